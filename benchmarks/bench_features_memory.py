"""perf.P6: anonymous memory of the processes of a job of features, against the number of clips."""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
from benchmarks import bench_features_data as data
from benchmarks.bench_features_kills import actors_of, child
from benchmarks.bench_features_report import Line

from cineray.datasets.extraction import extract

CLIPS = (512, 4096)
NUM_ACTORS = 2
SAMPLE_S = 0.005
LOOK_S = 0.2
"""Between two looks for new actors, which are costlier than a look at a known process."""

Held = dict[str, tuple[int, int]]
"""Who -> bytes before the first clip, and the most at any time."""


def measure(folder: Path, frames: int, side: int) -> Iterator[Line]:
    """P6, of the driver and of the actors, as a whole and above their imports."""
    found = []
    for clips in CLIPS:
        data.make_clips(folder / f"m{clips}", clips, frames, side)
        found.append(held(folder / f"m{clips}"))
        shutil.rmtree(folder / f"m{clips}")
    for who, what in (("driver", "the driver"), ("actor", "the actor that holds most")):
        once, more = (each[who][1] for each in found)
        note = ", ".join(f"{clips} clips {told(each[who])}" for clips, each in zip(CLIPS, found, strict=True))
        yield Line(f"perf.P6/{who}", f"peak anonymous memory of {what}, 8 times the clips / once", more / once, note)
    once, more = (sum(peak - before for before, peak in each.values()) for each in found)
    note = f"{once / 1e6:.1f} and {more / 1e6:.1f} MB"
    what = "the same, driver and actor together, imports left out"
    yield Line("perf.P6/above_imports", what, more / once, note)


def told(sizes: tuple[int, int]) -> str:
    """Sizes for a reader."""
    before, peak = sizes
    return f"{peak / 1e6:.1f} MB, {(peak - before) / 1e6:.1f} above the imports"


def held(dataset: Path) -> Held:
    """Run a job in a process of its own."""
    found = child("memory", str(dataset), str(NUM_ACTORS), stdout=subprocess.PIPE, text=True)
    out, _ = found.communicate()
    if found.returncode:
        raise AssertionError("the job whose memory is measured did not come to its end")
    driver, driver_peak, actor, actor_peak = map(int, out.split()[-4:])
    return {"driver": (driver, driver_peak), "actor": (actor, actor_peak)}


def job(dataset: str, num_actors: int) -> None:
    """A job on the connected Ray; prints what driver and actor hold before the first clip, and their peaks."""
    from cineray.datasets.features import on_ray

    log = Path(f"{dataset}.log")
    before, watch = data.rss_anon(), Watch()
    extract(dataset, data.NotedPoolConfig(log=str(log)), workers=partial(on_ray, num_actors=num_actors))
    peaks = watch.stop()
    driver = peaks.pop(os.getpid())
    begun = {int(pid): int(size) for pid, size in map(str.split, log.read_text().splitlines())}
    largest = max(begun, key=lambda pid: peaks[pid])
    print(before, driver, begun[largest], peaks[largest])


class Watch:
    """Looks at this process and the actors below it every few milliseconds."""

    def __init__(self) -> None:
        self._peaks: dict[int, int] = {os.getpid(): 0}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> dict[int, int]:
        """Process -> its peak in bytes."""
        self._stop.set()
        self._thread.join()
        return self._peaks

    def _watch(self) -> None:
        looked_s = 0.0
        while not self._stop.wait(SAMPLE_S):
            if time.monotonic() - looked_s > LOOK_S:
                looked_s = time.monotonic()
                for each in actors_of(psutil.Process()):
                    self._peaks.setdefault(each.pid, 0)
            for pid, peak in self._peaks.items():
                self._peaks[pid] = max(peak, data.rss_anon(pid))
