"""M1 and M2: anonymous memory of a loader process against the number of rows.

python -m benchmarks.bench_stream_memory FOLDER      one loader: prints its largest RssAnon in bytes
"""

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from cineray.core.config import Config
from cineray.datasets.dataset import Dataset
from cineray.datasets.examples import Examples
from cineray.datasets.ingest import ingest
from cineray.datasets.schema import TensorSpec
from cineray.datasets.signal import SignalConfig
from cineray.datasets.sources.base import Recording, Stimulus
from cineray.datasets.split import Selection, SplitConfig
from cineray.datasets.stream import Stream
from cineray.datasets.view import ViewConfig

SIZES = (32_768, 65_536, 131_072, 262_144)
RUN_ROWS = 8192
NUM_STIMULI = 2048
NUM_VOXELS = 64
MIN_STEPS = 64


class NarrowSource(Config):
    """Very many very small rows, so that a few bytes a row would show."""

    name: Literal["narrow"] = "narrow"
    num_rows: int

    def targets(self) -> dict[str, TensorSpec]:
        return {"features": TensorSpec("float32", (16,), "dim", "1")}

    def stimuli(self) -> Iterator[Stimulus]:
        values = np.random.default_rng(0).standard_normal((NUM_STIMULI, 16), np.float32)
        for i, value in enumerate(values):
            yield Stimulus(f"clip-{i}", "film", float(i), 1.0, f"clip-{i}", targets={"features": value})

    def recordings(self) -> Iterator[Recording]:
        rng = np.random.default_rng(1)
        shown: list[str | None] = [f"clip-{i % NUM_STIMULI}" for i in range(RUN_ROWS)]
        onset_s, offset_s = np.arange(RUN_ROWS, dtype=np.float64), np.zeros(RUN_ROWS)
        for run in range(self.num_rows // RUN_ROWS):
            brain = rng.standard_normal((RUN_ROWS, NUM_VOXELS), np.float32).astype(np.float16)
            yield Recording("sub-01", f"run-{run}", run, 1.0, brain, onset_s, shown, offset_s)

    def notes(self) -> dict[str, object]:
        return {}


def loader_bytes(folder: Path) -> int:
    """Largest RssAnon of a fresh process that streams a shuffled epoch."""
    command = [sys.executable, "-m", "benchmarks.bench_stream_memory", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent)
    return int(result.stdout.split()[-1])


def bytes_a_row(folder: Path) -> tuple[float, list[int]]:
    """Slope of RssAnon over `SIZES`, and the measurements."""
    found = []
    for num_rows in SIZES:
        ingest(NarrowSource(num_rows=num_rows), folder / str(num_rows), signal=SignalConfig(zscore="none"))
        found.append(loader_bytes(folder / str(num_rows)))
    return float(np.polyfit(SIZES, found, 1)[0]), found


def _rss_anon() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no RssAnon; this measurement needs Linux")


def _main(folder: str) -> None:
    dataset = Dataset.open(folder)
    view = ViewConfig(dataset=folder, targets=tuple(dataset.target_specs), split=SplitConfig(test=Selection()))
    ranges = [(0, number, run.first_row, run.num_rows) for number, run in enumerate(dataset.runs)]
    examples = Examples.of(dataset.subjects, ranges)
    stream = Stream(dataset, view, examples, batch_size=32, seed=0, normaliser=None)
    torch.set_num_threads(1)
    # Equally many steps at least for small and large, so that all have filled their queues.
    num_epochs = max(1, MIN_STEPS // stream.num_steps)
    references = itertools.chain.from_iterable(map(stream.references, range(num_epochs)))
    peak = 0
    for step, _ in enumerate(stream.batches(references)):
        if step % 8 == 7:
            peak = max(peak, _rss_anon())
    print(peak)


if __name__ == "__main__":
    _main(sys.argv[1])
