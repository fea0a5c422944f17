"""Rows of fixed-length columns straight out of the page bytes: no decoding, no copy but the last.

What is kept is O(row groups): where each page begins, how long it is and whether it was checked. Row ``r`` of a group
lies at ``base + r * width``. A page's CRC is verified the first time it is touched, before any row leaves it.
"""

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cineray.core.errors import DataError, IntegrityError
from cineray.datasets.cache import ObjectBytes
from cineray.datasets.page import read_page_header

__all__ = ["Access", "ColumnReader", "PageIndex", "Places"]

Access = Literal["mmap", "pread"]
"""``mmap`` copies rows out of a long-lived mapping; ``pread`` asks the system for each, and holds no pages."""

WIDTHS = {pa.int32(): 4, pa.float32(): 4, pa.int64(): 8, pa.float64(): 8}

LOOP_BYTES = 16_384
"""From this row width on, copying row by row is faster than one fancy index into a fresh array (measured: 0.91
against 0.66 of `numpy.take` at 8 kB, 0.71 against 0.87 at 28 kB)."""

YIELD_BYTES = 65_536
"""From this row width on, other threads may run during the copy of a row."""


class PageIndex:
    """Where the pages of one object lie, from its verified footer; of that, two numbers a page are kept."""

    def __init__(self, source: ObjectBytes) -> None:
        info = self.info = source.info
        self.source = source
        # Never `metadata.schema`: the two refer to each other, and the footer (a kilobyte a page) would stay in memory.
        with pq.ParquetFile(pa.BufferReader(self._footer())) as file:
            metadata, self.schema = file.metadata, file.schema_arrow
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        self.group_rows = [group.num_rows for group in groups]
        chunks = [[group.column(number) for number in range(metadata.num_columns)] for group in groups]
        self._pages = np.array(
            [[(c.data_page_offset, c.total_compressed_size) for c in row] for row in chunks], np.int64
        )
        """(row groups, columns, 2): first byte and length of each page."""
        self._number = {name: number for number, name in enumerate(self.schema.names)}
        if metadata.num_rows != info.num_rows:
            raise IntegrityError(f"{info.key} has {metadata.num_rows} rows, the manifest says {info.num_rows}")

    def width(self, name: str) -> int:
        """Bytes of one value of a required fixed-length column."""
        field = self.schema.field(self._find(name))
        kind = field.type
        width = kind.byte_width if pa.types.is_fixed_size_binary(kind) else WIDTHS.get(kind)
        if field.nullable or not width:
            raise DataError(
                f"column '{name}' of {self.info.key} is not a required fixed-length one; read it by pyarrow"
            )
        return width

    def page(self, name: str, group: int) -> int:
        """Check one page (fetching it if need be) and say at which byte its values begin."""
        first, num_bytes = self._pages[group, self._find(name)].tolist()
        expected = self.info.crc32(name, group)
        where = f"column '{name}', row group {group} of {self.info.key}"
        payload = first

        def check(view: memoryview) -> None:
            nonlocal payload
            payload = first + _checked_page(view, expected, self.group_rows[group], where)

        self.source.region(first, num_bytes, check)
        return payload

    def table(self, columns: Sequence[str]) -> pa.Table:
        """Columns decoded by pyarrow, every page checked; for metadata, not tensors."""
        for name in columns:
            for group in range(len(self.group_rows)):
                self.page(name, group)
        metadata = pq.read_metadata(pa.BufferReader(self._footer()))
        try:
            with pq.ParquetFile(self.source.path, metadata=metadata, page_checksum_verification=True) as file:
                return file.read(columns=list(columns), use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise IntegrityError(
                f"{self.info.key} cannot be decoded ({str(error).splitlines()[0]}); restore it or ingest again"
            ) from None

    def _footer(self) -> memoryview:
        start = self.info.num_bytes - self.info.footer_bytes
        return self.source.region(start, self.info.footer_bytes, self._check_footer)

    def _find(self, name: str) -> int:
        if name not in self._number:
            raise DataError(f"{self.info.key} has no column '{name}'; it has {', '.join(self._number)}")
        return self._number[name]

    def _check_footer(self, view: memoryview) -> None:
        if hashlib.sha256(view).hexdigest() != self.info.footer_sha256:
            raise IntegrityError(
                f"the footer of {self.info.key} does not match its sha256; restore the object or ingest again"
            )


@dataclass(frozen=True)
class Places:
    """Object and first byte of each of some rows of a column."""

    objects: NDArray[np.int64]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, part: slice) -> "Places":
        return Places(self.objects[part], self.offsets[part])


class ColumnReader:
    """One fixed-length column over several objects whose rows are numbered on.

    Args:
        indexes: the objects, in row order.
        first_rows: number of the first row of each.
    """

    def __init__(
        self, indexes: Sequence[PageIndex], first_rows: Sequence[int], name: str, access: Access = "mmap"
    ) -> None:
        self.name = name
        widths = {index.width(name) for index in indexes}
        if len(widths) != 1:
            raise DataError(f"column '{name}' has rows of {sorted(widths)} bytes in different objects, expected one")
        self.width = widths.pop()
        groups = [
            (index, group, start, num_rows)
            for index, first in zip(indexes, first_rows, strict=True)
            for group, (start, num_rows) in enumerate(
                zip(accumulate(index.group_rows, initial=first), index.group_rows, strict=False)
            )
        ]
        self._where = [(index, group) for index, group, _, _ in groups]
        self._first = np.array([first for _, _, first, _ in groups], np.int64)
        self._num_rows = np.array([num_rows for _, _, _, num_rows in groups], np.int64)
        self._base = np.full(len(groups), -1, np.int64)
        self._object = np.searchsorted(
            np.cumsum([len(index.group_rows) for index in indexes]), range(len(groups)), "right"
        )
        self._indexes = list(indexes)
        self._pread = access == "pread"
        self._views = [memoryview(index.source.map) for index in indexes]
        self._flat = [np.frombuffer(view, np.uint8) for view in self._views]

    def gather(self, rows: NDArray[np.int64], out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """(n,) row numbers to (n, width) bytes, in contiguous memory that may be the caller's."""
        places = self.locate(rows)
        if out is None:
            out = np.empty((len(places), self.width), np.uint8)
        self.copy(places, out)
        return out

    def locate(self, rows: NDArray[np.int64]) -> "Places":
        """Where rows lie, their pages checked. Many at once cost little more than one."""
        rows = np.asarray(rows, np.int64)
        return Places(*self._places(rows)) if len(rows) else Places(rows, rows)

    def copy(self, places: "Places", out: NDArray[np.uint8]) -> None:
        """Located rows into contiguous memory (n, width)."""
        if out.shape != (len(places), self.width) or out.dtype != np.uint8 or not out.flags.c_contiguous:
            raise DataError(
                f"the buffer is {out.shape} {out.dtype}, expected contiguous ({len(places)}, {self.width}) uint8"
            )
        if len(places) == 0:
            return
        if self._pread:
            self._read_rows(places.objects, places.offsets, out)
        elif self.width >= LOOP_BYTES:
            self._copy_rows(places.objects, places.offsets, out)
        else:
            self._copy_small_rows(places.objects, places.offsets, out)

    def _places(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Object and byte offset of each row, their pages checked."""
        groups = self._first.searchsorted(rows, side="right") - 1
        inside = rows - self._first[groups]
        outside = (groups < 0) | (inside >= self._num_rows[groups])
        if outside.any():
            raise DataError(f"row {rows[outside][0]} does not belong to column '{self.name}' of these objects")
        base = self._base[groups]
        if base.min() < 0:
            # Two threads may check the same page; both find the same base.
            for group in np.unique(groups[base < 0]).tolist():
                index, number = self._where[group]
                self._base[group] = index.page(self.name, number)
            base = self._base[groups]
        return self._object[groups], base + inside * self.width

    def _copy_rows(self, objects: NDArray[Any], offsets: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        width, start = self.width, 0
        # A memoryview slice costs half of numpy's, but keeps other threads waiting, so long rows go through numpy.
        target = out.reshape(-1) if width >= YIELD_BYTES else out.data.cast("B")
        sources = self._flat if width >= YIELD_BYTES else self._views
        for number, offset in zip(objects.tolist(), offsets.tolist(), strict=True):
            target[start : start + width] = sources[number][offset : offset + width]
            start += width

    def _copy_small_rows(self, objects: NDArray[Any], offsets: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        void = np.dtype((np.void, self.width))
        target = out.view(void)[:, 0]
        numbers = [int(objects[0])] if (objects == objects[0]).all() else np.unique(objects).tolist()
        for number in numbers:
            flat = self._flat[number]
            # Every byte position as the start of a possible row: an overlapping view, so nothing is materialised.
            starts = np.ndarray((len(flat) - self.width + 1,), void, flat, 0, (1,))
            if len(numbers) == 1:
                target[:] = starts[offsets]
                return
            mine = np.flatnonzero(objects == number)
            target[mine] = starts[offsets[mine]]

    def _read_rows(self, objects: NDArray[Any], offsets: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        for row, number, offset in zip(out, objects.tolist(), offsets.tolist(), strict=True):
            self._indexes[number].source.read_into(row, offset)


def _checked_page(view: memoryview, expected: int, num_values: int, where: str) -> int:
    """Length of the page's header, after its CRC was found to be ``expected``."""
    advice = "restore the object or ingest again"
    try:
        header = read_page_header(view)
    except IntegrityError as error:
        raise IntegrityError(f"{where}: {error}; {advice}") from None
    if header.header_bytes + header.payload_bytes != len(view) or header.num_values != num_values:
        raise IntegrityError(f"{where}: the page header disagrees with the footer; {advice}")
    if not header.crc32 == expected == zlib.crc32(view[header.header_bytes :]):
        raise IntegrityError(f"{where}: the page does not match its CRC-32; {advice}")
    return header.header_bytes
