"""perf.P5: what a job of features loses when its processes are killed."""

import random
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from benchmarks import bench_features_data as data
from benchmarks.bench_features_report import Line

from cineray.datasets.dataset import Dataset
from cineray.datasets.extraction import Job

KILLS = 3
CLIPS = 24 * 256
WATCHED_S = 0.1
"""A row group of eight batches takes the watched encoder 0.8 s."""
PARTS_BEFORE = 4
"""Row groups done before each kill."""
POLL_S = 0.02
ACTOR = "ray::MapWorker"
"""What Ray calls the processes of its actor pools."""


def child(*words: str, **how: object) -> subprocess.Popen:
    """A process of the benchmark's own."""
    command = [sys.executable, "-m", "benchmarks.bench_features_child", *words]
    return subprocess.Popen(command, cwd=Path(__file__).parent.parent, **how)  # type: ignore[call-overload]


def actors_of(process: psutil.Process) -> list[psutil.Process]:
    """The actors below a process that are at work or wait for it."""
    found = []
    for each in process.children(recursive=True):
        try:
            if "".join(each.cmdline()[:1]).startswith(ACTOR):
                found.append(each)
        except psutil.NoSuchProcess:
            continue
    return found


def measure(folder: Path) -> Iterator[Line]:
    """P5: of one actor with everything around it, of two, and of one of two while the job goes on."""
    where = "driver, Ray and {} killed together at random moments, the same command run again"
    for actors, key, who in ((1, "one_actor", "the actor"), (2, "two_actors", "both actors")):
        lost = Watched.of(folder / key, actors).killed_whole()
        note = f"{KILLS} kills lost {lost} of {CLIPS // 256}; {where.format(who)}"
        yield Line(
            f"perf.P5/{key}", f"row groups lost, {who} killed with everything around, the worst", max(lost), note
        )
    lost = Watched.of(folder / "one_of_two", 2).killed_actors()
    note = f"{KILLS} kills lost {lost} of {CLIPS // 256}; the job went on by itself"
    yield Line("perf.P5/one_of_two_actors", "row groups lost, one of two actors killed, the worst", max(lost), note)


@dataclass(frozen=True)
class Watched:
    """A job of the watched encoder whose processes are killed."""

    dataset: Dataset
    job: Job
    log: Path
    num_actors: int

    @classmethod
    def of(cls, folder: Path, num_actors: int) -> "Watched":
        """Over tiny clips."""
        dataset, log = data.make_clips(folder, CLIPS, 1, 8), folder.with_suffix(".log")
        job = Job.of(dataset, data.WatchedConfig(log=str(log), seconds=WATCHED_S))
        return cls(dataset, job, log, num_actors)

    def killed_whole(self) -> list[int]:
        """Row groups that each kill of all processes lost; the last run goes to the end."""
        moments, lost = random.Random(0), []
        for _ in range(KILLS):
            before, begun = len(self.job.done()), len(self._begun())
            process = self._start()
            self._wait(process, before + PARTS_BEFORE)
            time.sleep(moments.uniform(0, 1))
            kill([*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)])
            process.wait()
            lost.append(len(self._begun()) - begun - (len(self.job.done()) - before))
        begun, left = len(self._begun()), len(self.job.pending())
        self._finish(self._start())
        if len(self._begun()) - begun != left:
            raise AssertionError(f"the last run did {len(self._begun()) - begun} row groups, expected {left}")
        return lost

    def killed_actors(self) -> list[int]:
        """Row groups of each killed actor that another had to begin anew; the job is never started again."""
        moments, victims = random.Random(0), []
        process = self._start()
        for number in range(KILLS):
            self._wait(process, PARTS_BEFORE * (number + 1))
            time.sleep(moments.uniform(0, 1))
            at_work = {pid for pid, _ in self._begun()} - set(victims)
            victim = next(each for each in actors_of(psutil.Process(process.pid)) if each.pid in at_work)
            kill([victim])
            victims.append(victim.pid)
        self._finish(process)
        return lost_by(victims, self._begun())

    def _begun(self) -> list[tuple[int, int]]:
        """Process and row group, in the order in which they were begun."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        rows = [(int(pid), int(row)) for row, pid in map(str.split, lines)]
        return [(pid, row // self.job.part_rows) for pid, row in rows if row % self.job.part_rows == 0]

    def _start(self) -> subprocess.Popen:
        return child("watched", self.dataset.store.url, str(self.log), str(WATCHED_S), str(self.num_actors))

    def _wait(self, process: subprocess.Popen, num_parts: int) -> None:
        wait_until(lambda: len(self.job.done()) >= num_parts or process.poll() is not None)
        if process.poll() is not None:
            raise AssertionError(f"the job ended ({process.returncode}) before it could be killed")

    def _finish(self, process: subprocess.Popen) -> None:
        """To the end, and the values are right."""
        if process.wait():
            raise AssertionError("the job did not come to its end")
        values = Dataset.open(self.dataset.store.url).gather_stimuli("watched", np.arange(CLIPS))
        frames = self.dataset.gather_stimuli("frames", np.arange(CLIPS))
        if not np.allclose(values[:, 0], frames.mean((1, 2, 3, 4)), rtol=1e-5):
            raise AssertionError("the values after the kills are not those of the frames")


def lost_by(victims: Sequence[int], begun: Sequence[tuple[int, int]]) -> list[int]:
    """Row groups that each process began and another began anew, of all (process, row group) in their order."""
    by: dict[int, list[int]] = defaultdict(list)
    for pid, part in begun:
        by[part].append(pid)
    return [sum(pid in pids[:-1] for pids in by.values()) for pid in victims]


def wait_until(done: Callable[[], bool]) -> None:
    """Look again and again."""
    while not done():
        time.sleep(POLL_S)


def kill(processes: list[psutil.Process]) -> None:
    """SIGKILL."""
    for each in processes:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, timeout=10)
