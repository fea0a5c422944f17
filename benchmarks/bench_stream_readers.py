"""The readers that run in this process: ours, and the peers at their best reasonable settings."""

from collections.abc import Iterable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from benchmarks.bench_stream_measure import BATCH, NUM_STAGING, WIDTHS, Buffers, Reader, Rows

from cineray.datasets.dataset import Dataset
from cineray.datasets.examples import Examples
from cineray.datasets.split import Selection, SplitConfig
from cineray.datasets.staging import Staging
from cineray.datasets.stream import Staged, Stream
from cineray.datasets.view import ViewConfig


def our_stream(dataset: Dataset) -> Stream:
    """Every row of the data set, one scan each, shuffled anew each epoch."""
    view = ViewConfig(dataset="-", targets=("clip", "frames"), split=SplitConfig(test=Selection()))
    ranges = [(0, number, run.first_row, run.num_rows) for number, run in enumerate(dataset.runs)]
    examples = Examples.of(dataset.subjects, ranges)
    return Stream(dataset, view, examples, batch_size=BATCH, seed=0, normaliser=None)


def staged(stream: Stream, blocks: list[Staging], references: Iterable[np.ndarray]) -> Iterator[Staged]:
    """Our staging blocks, in rotation like everybody's."""
    for plan, block in zip(stream.plans(references), cycle(blocks), strict=False):
        yield stream.stage(plan, block)


def new_blocks() -> list[Staging]:
    """As many as the others rotate."""
    return [Staging() for _ in range(NUM_STAGING)]


def as_rows(staged: Staged) -> Rows:
    """Staged bytes by column."""
    return {"fmri": staged.brain["sub-01"], **staged.targets}


def ours(dataset: Dataset) -> Reader:
    """References and rows from `Stream`, gathered in this thread."""
    stream = our_stream(dataset)
    blocks = new_blocks()
    return Reader("cineray", lambda epoch: staged(stream, blocks, stream.references(epoch)), rows_of=as_rows)


def ours_first_touch(folder: Path) -> Reader:
    """The same on a data set opened anew each epoch: maps, page faults and every CRC included."""

    blocks = new_blocks()

    def batches(epoch: int) -> Iterator[Staged]:
        stream = our_stream(Dataset.open(folder))
        yield from staged(stream, blocks, stream.references(epoch))

    return Reader("cineray, opened anew", batches, rows_of=as_rows)


def shuffled(epoch: int, num: int) -> Iterator[np.ndarray]:
    """Batches of a full shuffle."""
    order = np.random.default_rng(epoch).permutation(num)
    return (order[first : first + BATCH] for first in range(0, num, BATCH))


def memmap(rows: Rows) -> Reader:
    """``numpy.take`` from memory-mapped arrays straight into staging."""
    buffers = Buffers()

    def batches(epoch: int) -> Iterator[Rows]:
        for numbers in shuffled(epoch, len(rows["fmri"])):
            out = buffers.take(len(numbers))
            for name, array in rows.items():
                np.take(array, numbers, axis=0, out=out[name], mode="clip")  # "raise" would copy through a buffer
            yield out

    return Reader("numpy memmap", batches)


def memmap_rows(rows: Rows) -> Reader:
    """The same row by row, which is faster on some machines."""
    buffers = Buffers()

    def batches(epoch: int) -> Iterator[Rows]:
        for numbers in shuffled(epoch, len(rows["fmri"])):
            out = buffers.take(len(numbers))
            for name, array in rows.items():
                for target, number in zip(out[name], numbers.tolist(), strict=True):
                    target[:] = array[number]
            yield out

    return Reader("numpy memmap, row by row", batches)


def memmap_first_touch(folder: Path) -> Reader:
    """``numpy.take`` from arrays mapped anew each epoch."""

    def batches(epoch: int) -> Iterator[Rows]:
        rows = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in WIDTHS}
        yield from memmap(rows).batches(epoch)

    return Reader("numpy memmap, opened anew", batches)


def flat_bytes(column: pa.ChunkedArray | pa.Array, width: int) -> np.ndarray:
    """(n, width) uint8 of a column of equally long values, without a copy if it is one chunk."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
        column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_fixed_size_binary(column.type):
        first, data = column.offset * width, column.buffers()[1]
    elif pa.types.is_list(column.type):
        item = column.values.type.bit_width // 8
        first, data = (column.values.offset + column.offsets[0].as_py()) * item, column.values.buffers()[1]
    else:
        kind = np.int64 if pa.types.is_large_binary(column.type) else np.int32
        first = int(np.frombuffer(column.buffers()[1], kind, 1, column.offset * np.dtype(kind).itemsize)[0])
        data = column.buffers()[2]
    return np.frombuffer(data, np.uint8, len(column) * width, first).reshape(-1, width)


def pyarrow_file(name: str, paths: list[str]) -> Reader:
    """``ParquetFile.iter_batches`` in file order, one thread as everybody."""
    buffers = Buffers()

    def batches(epoch: int) -> Iterator[Rows]:
        for path in paths:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(BATCH, use_threads=False):
                    out = buffers.take(len(batch))
                    for column, width in WIDTHS.items():
                        out[column][:] = flat_bytes(batch.column(column), width)
                    yield out

    return Reader(name, batches)


class MappedRows(torch.utils.data.Dataset):
    """Memory-mapped rows for a torch ``DataLoader``, fetched a batch at a time, put together by its own collation."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.rows = folder, None

    def __len__(self) -> int:
        return len(np.load(self.folder / "fmri.npy", mmap_mode="r"))

    def open(self) -> Rows:
        """Mapped on first use, in the process that reads; copy-on-write, because torch has no read-only tensors."""
        if self.rows is None:
            self.rows = {name: np.load(self.folder / f"{name}.npy", mmap_mode="c") for name in WIDTHS}
        return self.rows

    def __getitems__(self, numbers: list[int]) -> Any:
        return [{name: torch.from_numpy(array[n]) for name, array in self.open().items()} for n in numbers]


class GatheredRows(MappedRows):
    """The same with one ``array[numbers]`` a column instead of rows that are collated."""

    def __getitems__(self, numbers: list[int]) -> Any:
        return {name: torch.from_numpy(array[numbers]) for name, array in self.open().items()}


def dataloader(folder: Path, num_workers: int, *, gathered: bool = False) -> Reader:
    """``DataLoader(shuffle=True)`` with batched fetching; ``gathered`` leaves nothing for its collation to do."""
    buffers = Buffers()
    how: dict[str, Any] = {"dataset": MappedRows(folder)}
    if gathered:
        how = {"dataset": GatheredRows(folder), "collate_fn": lambda batch: batch}
    loader = torch.utils.data.DataLoader(**how, batch_size=BATCH, shuffle=True, num_workers=num_workers)

    def batches(epoch: int) -> Iterator[Rows]:
        for batch in loader:
            out = buffers.take(len(batch["fmri"]))
            for name in WIDTHS:
                out[name][:] = batch[name].numpy()
            yield out

    return Reader(f"torch DataLoader, {num_workers} workers", batches)


def hugging_face(folder: Path) -> Reader:
    """Memory-mapped Arrow bytes, full shuffle, taken as Arrow tables."""
    import datasets

    buffers = Buffers()
    table = datasets.load_from_disk(str(folder)).with_format("arrow")

    def batches(epoch: int) -> Iterator[Rows]:
        for batch in table.shuffle(seed=epoch).iter(BATCH):
            out = buffers.take(len(batch))
            for name, width in WIDTHS.items():
                out[name][:] = flat_bytes(batch[name], width)
            yield out

    return Reader("Hugging Face datasets", batches)
