"""perf.P1, P2, P5, P6: features of stimuli, beside the bare encoder and beside Ray Data's own way.

    make bench-features    or    python -m benchmarks.bench_features [--only P5,P6] [--out docs/results/features.md]

The page is written by a whole run only. The last line is JSON.
"""

import argparse
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks import bench_features_data as data
from benchmarks import bench_features_kills as kills
from benchmarks import bench_features_memory as memory
from benchmarks.bench_features_kills import ACTOR
from benchmarks.bench_features_measure import Work, alternate
from benchmarks.bench_features_report import Line, write_report
from benchmarks.goals import figures

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
POLL_S = 0.02


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


def speed(folder: Path) -> Iterator[Line]:
    """P1 and P2."""
    dataset = data.make_clips(folder / "clips", CLIPS, FRAMES, SIDE)
    paths = data.write_plain(folder / "plain", dataset)
    transformer, pool = data.make_transformer(folder / "transformer", SIDE), PoolConfig()
    with connected(num_cpus=2):
        for name, settings in (("transformer", transformer), ("pool", pool)):
            alone = alternate(pipeline(dataset, settings), encoder_only(dataset, settings))
            yield alone.line(f"perf.P1/{name}", f"{name}: job on Ray / the bare encoder on frames in memory")
            whole = alternate(whole_job(folder / "clips", settings), ray_data(paths, folder / "theirs", settings))
            yield whole.line(f"perf.P2/{name}", f"{name}: whole job / Ray Data read, map_batches, write")


PARTS: dict[tuple[str, ...], Callable[[Path], Iterator[Line]]] = {
    ("P6",): lambda folder: memory.measure(folder, FRAMES, SIDE),
    ("P5",): kills.measure,
    ("P1", "P2"): speed,
}
"""What is measured together."""


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="goals, e.g. P5,P6; empty for all")
    parser.add_argument("--out", type=Path, default=Path("docs/results/features.md"))
    arguments = parser.parse_args()
    wanted = set(filter(None, arguments.only.split(",")))
    if strange := wanted - {goal for goals in PARTS for goal in goals}:
        parser.error(f"found {', '.join(sorted(strange))} in --only, expected {', '.join(sum(PARTS, ()))}")
    torch.set_num_threads(1)
    os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)  # for Ray's workers
    started, lines = time.perf_counter(), []
    with tempfile.TemporaryDirectory(prefix="bench-features-") as folder:
        for goals, measure in PARTS.items():
            if not wanted or wanted & set(goals):
                for line in measure(Path(folder)):
                    lines.append(line)
                    print(line.text(), flush=True)
    seconds = time.perf_counter() - started
    if not wanted:
        write_report(arguments.out, sorted(lines, key=lambda line: line.key), seconds)
    found = [(line.key, line.rounded) for line in lines]
    print(json.dumps(figures([*found, ("other/seconds", round(seconds, 1))])), flush=True)


if __name__ == "__main__":
    main()
