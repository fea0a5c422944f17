"""Parquet files whose tensor pages are raw memory.

Required fixed-length binary columns, plain, uncompressed, no dictionary, one page for each column and row group, with
its CRC: any Parquet reader opens them, and `cineray.datasets.index` reads rows without decoding. Where fp16 noise is
stored, compression would save at most 14 % and cost more than the disk (docs/adr/0003).
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cineray.core.errors import DataError
from cineray.core.storage import explained
from cineray.datasets.manifest import ObjectInfo
from cineray.datasets.page import MAX_HEADER_BYTES, read_page_header

__all__ = ["ROW_GROUP_ROWS", "ShardWriter", "group_rows"]

ROW_GROUP_ROWS = 256
"""Rows of a row group: enough to make its footer entry cheap, few enough to fetch and check in one piece."""

MAX_PAGE_BYTES = 1 << 30
"""A page's length is a signed 32-bit integer; half of that leaves room for other readers."""


class ShardWriter:
    """Writes rows to one local Parquet file, a row group at a time, hashing on the way."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        self._schema = schema
        widest = max((f.type.byte_width for f in schema if pa.types.is_fixed_size_binary(f.type)), default=1)
        self._group_rows = group_rows(widest)
        self._sink = _HashingFile(path)
        self._waiting: list[Mapping[str, Any]] = []
        self._writer = pq.ParquetWriter(
            pa.PythonFile(self._sink, mode="w"),
            schema,
            compression="none",
            use_dictionary=False,
            write_statistics=False,
            data_page_size=MAX_PAGE_BYTES,
            write_batch_size=1 << 20,
            write_page_checksum=True,
        )
        self.num_rows = 0

    @property
    def num_bytes(self) -> int:
        """Bytes written so far, without the rows that wait for their group to fill."""
        return self._sink.num_bytes

    def write(self, row: Mapping[str, Any]) -> None:
        """Add one row; tensors are arrays of the right bytes."""
        self._waiting.append(row)
        if len(self._waiting) == self._group_rows:
            self._flush()

    def write_columns(self, columns: Mapping[str, Any]) -> None:
        """Add rows given by column; a tensor column is an array of shape (rows, ...)."""
        num_rows = len(next(iter(columns.values())))
        for start in range(0, num_rows, self._group_rows):
            part = {name: values[start : start + self._group_rows] for name, values in columns.items()}
            self._write_group(part, min(self._group_rows, num_rows - start))

    def close(self, key_stem: str, kind: Literal["samples", "stimuli", "features"], **where: str) -> ObjectInfo:
        """Finish the file; its key is ``<key_stem>-<hash>.parquet``."""
        self._flush()
        self._writer.close()
        self._sink.close()
        digest = self._sink.sha256.hexdigest()
        footer = _footer(self._path)
        return ObjectInfo(
            key=f"{key_stem}-{digest[:16]}.parquet",
            kind=kind,
            num_rows=self.num_rows,
            num_bytes=self._sink.num_bytes,
            sha256=digest,
            footer_bytes=len(footer),
            footer_sha256=hashlib.sha256(footer).hexdigest(),
            page_crc32=page_checksums(self._path),
            **where,
        )

    def abandon(self) -> None:
        """Let go of a file that will not be used (its disk may be full); safe after `close`."""
        self._sink.deaf = True
        self._writer.close()
        self._sink.close()

    def _flush(self) -> None:
        if self._waiting:
            rows, self._waiting = self._waiting, []
            self._write_group({name: [row[name] for row in rows] for name in self._schema.names}, len(rows))

    def _write_group(self, columns: Mapping[str, Any], num_rows: int) -> None:
        arrays = [_column(field, columns[field.name]) for field in self._schema]
        self._writer.write_table(pa.table(arrays, schema=self._schema), row_group_size=num_rows)
        self.num_rows += num_rows


def group_rows(num_bytes: int) -> int:
    """Rows of a row group whose widest column has ``num_bytes`` a row."""
    return max(1, min(ROW_GROUP_ROWS, MAX_PAGE_BYTES // max(num_bytes, 1)))


def page_checksums(path: Path) -> dict[str, str]:
    """Column -> CRC-32 of its page in each row group (8 hex digits), as the page headers say."""
    meta = pq.read_metadata(path)
    found: dict[str, str] = {}
    with open(path, "rb") as file:
        for number, name in enumerate(meta.schema.names):
            crcs = ""
            for group in range(meta.num_row_groups):
                chunk = meta.row_group(group).column(number)
                file.seek(chunk.data_page_offset)
                header = read_page_header(file.read(MAX_HEADER_BYTES))
                if header.header_bytes + header.payload_bytes != chunk.total_compressed_size:
                    raise DataError(f"column '{name}' needs more than one page a row group; write fewer rows a group")
                crcs += f"{header.crc32:08x}"
            found[name] = crcs
    return found


def _footer(path: Path) -> bytes:
    with open(path, "rb") as file:
        file.seek(-8, 2)
        length = int.from_bytes(file.read(4), "little") + 8
        file.seek(-length, 2)
        return file.read()


def _column(field: pa.Field, values: Any) -> pa.Array:
    if not pa.types.is_fixed_size_binary(field.type):
        return pa.array(values, field.type, from_pandas=False)
    data = np.ascontiguousarray(values) if isinstance(values, np.ndarray) else np.stack(values)
    width = field.type.byte_width
    if data.nbytes != width * len(data):
        raise DataError(f"column '{field.name}' has rows of {data.nbytes // len(data)} bytes, expected {width}")
    return pa.FixedSizeBinaryArray.from_buffers(field.type, len(data), [None, pa.py_buffer(data)])


class _HashingFile:
    """A file open for writing that hashes and counts what passes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with explained("write", str(path)):
            self._file = open(path, "xb")  # noqa: SIM115 (closed by `close`)
        self.sha256 = hashlib.sha256()
        self.num_bytes = 0
        self.deaf = False
        """Swallow what the Parquet library still writes when it closes."""

    def write(self, data: Any) -> int:
        if self.deaf:
            return len(data)
        self.sha256.update(data)
        self.num_bytes += len(data)
        with explained("write", str(self._path)):
            return self._file.write(data)

    def tell(self) -> int:
        return self.num_bytes

    def flush(self) -> None:
        if not self.deaf:
            with explained("write", str(self._path)):
                self._file.flush()

    def close(self) -> None:
        """What is still buffered is written, or dropped if the file was given up."""
        with explained("write", str(self._path)):
            try:
                self._file.close()
            except OSError:
                if not self.deaf:
                    raise

    @property
    def closed(self) -> bool:
        return self._file.closed
