"""perf.P1, P2, P5, P6: features of stimuli, beside the bare encoder and beside Ray Data's own way.

    make bench-features        or        python -m benchmarks.bench_features [--out docs/results/features.md]

The last line is JSON.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from benchmarks import bench_features_data as data
from benchmarks.bench_features_measure import Work, alternate
from benchmarks.bench_features_report import Line, write_report

from cineray.cluster.connect import connected
from cineray.core.storage import Store
from cineray.datasets.dataset import Dataset
from cineray.datasets.encoders.base import EncoderSettings
from cineray.datasets.encoders.pool import PoolConfig
from cineray.datasets.extraction import BATCH_ROWS, Job, extract

CLIPS, FRAMES, SIDE = 1024, 8, 128
"""393 kB a clip; its middle frame is what the transformer encodes."""
IN_MEMORY = 512
"""Clips that the bare encoder goes through."""
NUM_ACTORS = 2
POLL_S = 0.02
ACTOR = "ray::MapWorker"
"""What Ray calls the processes of its actor pools."""
KILLS = 3
KILL_CLIPS = 24 * 256
WATCHED_S = 0.1
"""A row group of eight batches takes the watched encoder 0.8 s."""
MEMORY_CLIPS = (512, 4096)


class Bare:
    """The encoder alone, in a Ray actor as the job's is; the batches are in its memory, and nothing is kept of what
    comes out."""

    def __init__(self, dataset: Dataset, settings: EncoderSettings) -> None:
        torch.set_num_threads(1)
        self._encoder = settings.build("cpu")
        starts = range(0, IN_MEMORY, BATCH_ROWS)
        self._batches = [dataset.gather_stimuli("frames", np.arange(first, first + BATCH_ROWS)) for first in starts]
        self.run(1)

    def run(self, num_batches: int | None = None) -> Work:
        """Encode what is in memory; its own CPU time."""
        captions = [""] * BATCH_ROWS
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        for batch in self._batches[:num_batches]:
            self._encoder.encode(batch, captions)
        return Work(IN_MEMORY, time.perf_counter() - wall_s, time.process_time() - cpu_s)


def encoder_only(dataset: Dataset, settings: EncoderSettings) -> Callable[[], Work]:
    """A new actor each time, as the job has; its start is not counted."""
    import ray

    def run() -> Work:
        actor: Any = ray.remote(num_cpus=1)(Bare).remote(dataset, settings)
        return ray.get(actor.run.remote())

    return run


def pipeline(dataset: Dataset, settings: EncoderSettings) -> Callable[[], Work]:
    """A job on one Ray actor, from the record of its first row group to that of its last: without the actor's start."""
    from cineray.datasets.features import on_ray

    def run() -> Work:
        job = Job.of(dataset, settings)
        workers = threading.Thread(target=lambda: list(on_ray(job, range(job.num_parts), num_actors=1)))
        workers.start()
        before = wait_for(job, 1)
        with Work.measured(only=ACTOR) as work:
            wait_for(job, job.num_parts)
        workers.join()
        work.rows = sum(len(job.rows(part)) for part in range(before, job.num_parts))
        for key in dataset.store.list(f"{job.folder}/"):
            dataset.store.delete(key)
        return work

    return run


def wait_for(job: Job, num_parts: int) -> int:
    """Until so many parts of a job have their records; how many have."""
    while (found := len(job.dataset.store.list(f"{job.records}/"))) < num_parts:
        time.sleep(POLL_S)
    return found


class Encode:
    """The peer's actor: the same encoder behind Ray Data's batches."""

    def __init__(self, settings: EncoderSettings) -> None:
        torch.set_num_threads(1)
        self._target, self._encoder = settings.target, settings.build("cpu")

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = self._encoder.encode(batch["frames"], [""] * len(batch["frames"]))
        return {"stimulus_id": batch["stimulus_id"], self._target: found}


def ray_data(paths: list[str], out: Path, settings: EncoderSettings) -> Callable[[], Work]:
    """``read_parquet -> map_batches -> write_parquet``, one actor, the second CPU for reading and writing."""
    import ray.data

    def run() -> Work:
        shutil.rmtree(out, ignore_errors=True)
        with Work.measured() as work:
            items = ray.data.read_parquet(paths)
            compute = ray.data.ActorPoolStrategy(size=1)
            encoded = items.map_batches(
                Encode, fn_constructor_args=(settings,), batch_size=BATCH_ROWS, compute=compute, num_cpus=1
            )
            encoded.write_parquet(str(out))
        work.rows = CLIPS
        return work

    return run


def whole_job(folder: Path, settings: EncoderSettings) -> Callable[[], Work]:
    """Ours from the command's first look at the data to the published manifest, one actor."""
    from cineray.datasets.features import on_ray

    first = Store.at(folder).get("manifest.json")

    def run() -> Work:
        with Work.measured() as work:
            extract(folder, settings, workers=partial(on_ray, num_actors=1))
        work.rows = CLIPS
        (folder / "manifest.json").write_bytes(first)
        shutil.rmtree(folder / "features")
        return work

    return run


def speed(folder: Path) -> list[Line]:
    """P1 and P2."""
    dataset = data.make_clips(folder / "clips", CLIPS, FRAMES, SIDE)
    paths = data.write_plain(folder / "plain", dataset)
    transformer, pool = data.make_transformer(folder / "transformer", SIDE), PoolConfig()
    lines = []
    with connected(num_cpus=2):
        for tag, settings, name in (("perf.", transformer, "transformer"), ("pool.", pool, "pool")):
            alone = alternate(pipeline(dataset, settings), encoder_only(dataset, settings))
            lines.append(alone.line(f"{tag}P1", f"{name}: job on Ray / the bare encoder on frames in memory"))
            print(lines[-1].text(), flush=True)
            whole = alternate(whole_job(folder / "clips", settings), ray_data(paths, folder / "theirs", settings))
            lines.append(whole.line(f"{tag}P2", f"{name}: whole job / Ray Data read, map_batches, write"))
            print(lines[-1].text(), flush=True)
    return lines


def kills(folder: Path) -> Line:
    """P5: everything is killed in the middle of a job, several times; the last run goes to the end."""
    dataset = data.make_clips(folder / "small", KILL_CLIPS, 1, 8)
    log, moments = folder / "log", random.Random(0)
    job = Job.of(dataset, data.WatchedConfig(log=str(log), seconds=WATCHED_S))
    lost = []
    for _ in range(KILLS):
        before, begun = len(job.done()), starts(log, job)
        process = child("watched", str(folder / "small"), str(log), str(WATCHED_S), str(NUM_ACTORS))
        while len(job.done()) < before + 4 and process.poll() is None:
            time.sleep(POLL_S)
        time.sleep(moments.uniform(0, 1))
        kill_all(process)
        lost.append(starts(log, job) - begun - (len(job.done()) - before))
    begun, left = starts(log, job), len(job.pending())
    if child("watched", str(folder / "small"), str(log), str(WATCHED_S), str(NUM_ACTORS)).wait():
        raise AssertionError("the last run did not come to its end")
    if starts(log, job) - begun != left:
        raise AssertionError(f"the last run did {starts(log, job) - begun} row groups, expected {left}")
    values = Dataset.open(folder / "small").gather_stimuli("watched", np.arange(KILL_CLIPS))
    frames = dataset.gather_stimuli("frames", np.arange(KILL_CLIPS))
    if not np.allclose(values[:, 0], frames.mean((1, 2, 3, 4)), rtol=1e-5):
        raise AssertionError("the values after the kills are not those of the frames")
    note = f"{KILLS} kills of driver, Ray and {NUM_ACTORS} actors at random moments lost {lost} of {job.num_parts}"
    return Line("perf.P5", "row groups lost by each actor, the worst kill", max(lost) / NUM_ACTORS, note)


def starts(log: Path, job: Job) -> int:
    """Row groups whose first batch was begun."""
    if not log.exists():
        return 0
    return sum(int(line) % job.part_rows == 0 for line in log.read_text().split())


def kill_all(process: subprocess.Popen) -> None:
    """SIGKILL to a process and everything below it."""
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=10)
    process.wait()


def memory(folder: Path) -> Line:
    """P6."""
    peaks, grown = [], []
    for clips in MEMORY_CLIPS:
        data.make_clips(folder / f"m{clips}", clips, FRAMES, SIDE)
        found = child("memory", str(folder / f"m{clips}"), stdout=subprocess.PIPE, text=True)
        out, _ = found.communicate()
        before, peak = map(int, out.split()[-2:])
        peaks.append(peak)
        shutil.rmtree(folder / f"m{clips}")
        grown.append(peak - before)
    note = ", ".join(
        f"{clips} clips {peak / 1e6:.1f} MB, {more / 1e6:.1f} above the imported process"
        for clips, peak, more in zip(MEMORY_CLIPS, peaks, grown, strict=True)
    )
    return Line("perf.P6", "peak anonymous memory of a job, 8 times the clips / once", peaks[1] / peaks[0], note)


def child(*words: str, **how: object) -> subprocess.Popen:
    """A process of the benchmark's own."""
    command = [sys.executable, "-m", "benchmarks.bench_features_child", *words]
    return subprocess.Popen(command, cwd=Path(__file__).parent.parent, **how)  # type: ignore[call-overload]


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/results/features.md"))
    out = parser.parse_args().out
    torch.set_num_threads(1)
    os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)  # for Ray's workers
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="bench-features-") as folder:
        lines = [memory(Path(folder)), kills(Path(folder))]
        for line in lines:
            print(line.text(), flush=True)
        lines = speed(Path(folder)) + lines[::-1]
    seconds = time.perf_counter() - started
    write_report(out, lines, seconds)
    print(json.dumps({line.key: line.rounded for line in lines} | {"seconds": round(seconds, 1)}), flush=True)


if __name__ == "__main__":
    main()
