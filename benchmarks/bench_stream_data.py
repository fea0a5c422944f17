"""The same rows written once in every format that is compared."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from benchmarks.bench_stream_measure import WIDTHS

from cineray.core.config import Config
from cineray.datasets.dataset import Dataset
from cineray.datasets.ingest import ingest
from cineray.datasets.schema import TensorSpec
from cineray.datasets.shards import ShardWriter
from cineray.datasets.signal import SignalConfig
from cineray.datasets.sources.base import Recording, Stimulus

NUM_FILES = 4
SPECS = {
    "fmri": TensorSpec("float16", (14278,), "voxels", "z-score"),
    "clip": TensorSpec("float16", (257, 768), "tokens dim", "1"),
    "frames": TensorSpec("uint8", (100_000,), "bytes", "JPEG"),
}


def make_rows(folder: Path, num_rows: int) -> dict[str, np.ndarray]:
    """fp16 noise and random bytes, as ``.npy`` files; returns them mapped, (rows, width) uint8."""
    rng = np.random.default_rng(0)
    for name, spec in SPECS.items():
        out = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.uint8, (num_rows, WIDTHS[name]))
        for first in range(0, num_rows, 64):
            part = out[first : first + 64]
            if spec.dtype == "float16":
                values = rng.standard_normal((len(part), WIDTHS[name] // 2), np.float32).astype(np.float16)
                part[:] = values.view(np.uint8)
            else:
                part[:] = rng.integers(0, 256, part.shape, np.uint8)
        out.flush()
    return open_rows(folder)


def open_rows(folder: Path) -> dict[str, np.ndarray]:
    """The ``.npy`` files, mapped."""
    return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in WIDTHS}


class BenchSource(Config):
    """The rows as recordings of one subject, each stimulus shown ``repeats`` times."""

    name: Literal["bench"] = "bench"
    folder: str
    num_stimuli: int
    repeats: int = 1

    def targets(self) -> dict[str, TensorSpec]:
        return {name: SPECS[name] for name in ("clip", "frames")}

    def stimuli(self) -> Iterator[Stimulus]:
        rows = open_rows(Path(self.folder))
        for i in range(self.num_stimuli):
            values = {name: rows[name][i].view(spec.dtype).reshape(spec.shape) for name, spec in self.targets().items()}
            yield Stimulus(f"clip-{i}", "film", float(i), 1.0, f"clip-{i}", targets=values)

    def recordings(self) -> Iterator[Recording]:
        rows = open_rows(Path(self.folder))["fmri"].view(np.float16)
        bounds = np.linspace(0, self.num_stimuli, NUM_FILES + 1).astype(int).tolist()
        for repeat in range(self.repeats):
            for number, (first, end) in enumerate(itertools.pairwise(bounds)):
                shown: list[str | None] = [f"clip-{i}" for i in range(first, end)]
                onset_s = np.arange(end - first, dtype=np.float64)
                offset_s = np.zeros(end - first)
                brain = rows[first:end]
                yield Recording("sub-01", f"run-{number}-{repeat}", repeat, 1.0, brain, onset_s, shown, offset_s)

    def notes(self) -> dict[str, object]:
        return {}


def write_ours(folder: Path, rows: Path, num_rows: int, repeats: int = 1) -> Dataset:
    """Through the ingest everybody uses."""
    source = BenchSource(folder=str(rows), num_stimuli=num_rows, repeats=repeats)
    ingest(source, folder, signal=SignalConfig(zscore="none"))
    return Dataset.open(folder)


def write_one_table(folder: Path, rows: dict[str, np.ndarray]) -> list[str]:
    """Our page layout with all three columns in one table: what Ray Data and pyarrow read best."""
    folder.mkdir()
    schema = pa.schema([SPECS[name].field(name) for name in WIDTHS])
    paths = []
    for number, part in enumerate(np.array_split(np.arange(len(rows["fmri"])), NUM_FILES)):
        path = folder / f"part-{number}.parquet"
        writer = ShardWriter(path, schema)
        writer.write_columns({name: rows[name][part[0] : part[-1] + 1] for name in WIDTHS})
        writer.close(f"part-{number}", "samples")
        paths.append(str(path))
    return paths


def write_lists(path: Path, rows: dict[str, np.ndarray]) -> None:
    """What pyarrow writes if nobody thinks about it: lists of half floats, snappy, dictionary."""
    types = {name: pa.float16() if SPECS[name].dtype == "float16" else pa.uint8() for name in WIDTHS}
    schema = pa.schema([(name, pa.list_(kind)) for name, kind in types.items()])
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, len(rows["fmri"]), 64):
            arrays = []
            for name in WIDTHS:
                values = np.ascontiguousarray(rows[name][first : first + 64]).view(SPECS[name].dtype)
                offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
                arrays.append(pa.ListArray.from_arrays(offsets, pa.array(values.ravel())))
            writer.write_table(pa.table(arrays, schema=schema))


def write_hf(folder: Path, rows: dict[str, np.ndarray]) -> None:
    """A Hugging Face data set of Arrow bytes."""
    import datasets

    schema = pa.schema([(name, pa.binary()) for name in WIDTHS])
    parts = []
    for first in range(0, len(rows["fmri"]), 64):
        part = {name: np.ascontiguousarray(rows[name][first : first + 64]) for name in WIDTHS}
        arrays = []
        for name, width in WIDTHS.items():
            offsets = np.arange(len(part[name]) + 1, dtype=np.int32) * width
            buffers = [None, pa.py_buffer(offsets), pa.py_buffer(part[name])]
            arrays.append(pa.BinaryArray.from_buffers(pa.binary(), len(part[name]), buffers))
        parts.append(pa.table(arrays, schema=schema))
    datasets.Dataset(pa.concat_tables(parts)).save_to_disk(folder)
