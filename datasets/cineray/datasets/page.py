"""The header in front of a Parquet page, read by hand.

It is a Thrift *compact* struct of 20 to 40 bytes (parquet-format, ``PageHeader``); pyarrow does not show it, and it
says where the raw bytes begin and what their CRC-32 is.
"""

from dataclasses import dataclass
from typing import Any

from cineray.core.errors import IntegrityError

__all__ = ["MAX_HEADER_BYTES", "PageHeader", "read_page_header"]

MAX_HEADER_BYTES = 256
"""More than any header without statistics needs."""

DATA_PAGE, PLAIN = 0, 0
TRUE, FALSE, BYTE, I16, I32, I64, STRUCT = 1, 2, 3, 4, 5, 6, 12


@dataclass(frozen=True)
class PageHeader:
    """What precedes the bytes of a data page (version 1)."""

    header_bytes: int
    payload_bytes: int
    num_values: int
    crc32: int


def read_page_header(data: bytes | memoryview) -> PageHeader:
    """Parse the header at the start of ``data``; `IntegrityError` if it is not a plain page with a CRC."""
    try:
        fields, end = _struct(memoryview(data)[:MAX_HEADER_BYTES], 0)
        page = fields[5]
        plain = (fields[1], page[2]) == (DATA_PAGE, PLAIN) and fields[2] == fields[3]
        header = PageHeader(end, fields[3], page[1], fields[4] & 0xFFFFFFFF)
    except (IndexError, KeyError, TypeError, ValueError, RecursionError):
        raise IntegrityError("found no page header with a CRC, expected one") from None
    if not plain:
        raise IntegrityError("found an encoded or compressed page, expected plain bytes")
    return header


def _struct(data: memoryview, at: int) -> tuple[dict[int, Any], int]:
    """Field id -> value, and where the struct ends."""
    fields: dict[int, Any] = {}
    number = 0
    while kind := data[at] & 15:
        step = data[at] >> 4
        at += 1
        if step:
            number += step
        else:
            number, at = _integer(data, at)
        fields[number], at = _value(data, at, kind)
    return fields, at + 1


def _value(data: memoryview, at: int, kind: int) -> tuple[Any, int]:
    if kind in (TRUE, FALSE):
        return kind == TRUE, at
    if kind == BYTE:
        return data[at], at + 1
    if kind in (I16, I32, I64):
        return _integer(data, at)
    if kind == STRUCT:
        return _struct(data, at)
    raise ValueError(f"Thrift type {kind} does not occur in a page header without statistics")


def _integer(data: memoryview, at: int) -> tuple[int, int]:
    """A zigzag variable-length integer."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return (value >> 1) ^ -(value & 1), at
