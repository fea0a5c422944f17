"""Recordings out of untrusted bytes: everything is checked before anything is allocated, and nothing is echoed.

A 128-byte ``.npy`` can claim 32 GiB, and a JSON reader with defaults takes ``true``, ``"1.5"`` and ``NaN`` for numbers.
Here the claim is held against the bytes that are really there, and only numbers are numbers.
"""

import io
import json
import math
import re
import struct

import numpy as np
from numpy.typing import NDArray

from cineray.core.errors import DataError

__all__ = ["read_json", "read_npy", "write_npy"]

MAGIC = b"\x93NUMPY"

DTYPES = {"<f2": np.dtype("<f2"), "<f4": np.dtype("<f4"), "<f8": np.dtype("<f8")}

MAX_HEADER_BYTES = 1024
"""numpy writes 118; the rest is room for other writers' padding."""

MAX_VALUE = float(np.finfo(np.float16).max)
"""What a data set can store; larger numbers are no z-scores and would overflow inside a model."""

DESCR = re.compile(rb"'descr'\s*:\s*'([<>=|]?[A-Za-z]\d{0,3})'")
ORDER = re.compile(rb"'fortran_order'\s*:\s*(True|False)\b")
SHAPE = re.compile(rb"'shape'\s*:\s*\((\s*\d{1,18}\s*(?:,\s*\d{1,18}\s*)*),?\s*\)")


def read_npy(body: bytes, num_voxels: int) -> NDArray[np.float32]:
    """An ``.npy`` file to (scans, voxels) float32, finite.

    The header is matched, never evaluated, and must describe a little-endian float array in C order of exactly the
    bytes that follow it.

    Raises:
        DataError: anything else; one sentence.
    """
    header, data = _split(body)
    descr, order, shape = (_field(pattern, header) for pattern in (DESCR, ORDER, SHAPE))
    if descr not in DTYPES:
        raise DataError(
            f"the array's dtype is {descr or 'not a plain one'}, expected <f2, <f4 or <f8; convert it with "
            "x.astype('float32')"
        )
    if order != "False":
        raise DataError("the array is not in C order; save np.ascontiguousarray(x)")
    sizes = [int(part) for part in (shape or "").split(",") if part.strip()]
    scans = _checked_shape(sizes, num_voxels)
    expected = math.prod(sizes) * DTYPES[descr].itemsize
    if len(data) != expected:
        raise DataError(
            f"the header promises {expected} bytes of data, {len(data)} followed it; send the file whole and unchanged"
        )
    return _finite(np.frombuffer(data, DTYPES[descr]).reshape(scans, num_voxels))


def read_json(body: bytes, num_voxels: int) -> NDArray[np.float32]:
    """A JSON list of scans, each a list of numbers, to (scans, voxels) float32, finite.

    Booleans, strings, null and NaN are not numbers.

    Raises:
        DataError: anything else; one sentence.
    """
    try:
        rows = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError):  # bad syntax, bad UTF-8, integers of thousands of digits, deep nesting
        raise DataError("the body is not valid JSON; send a list of scans, each a list of finite numbers") from None
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise DataError("the JSON is not a list of lists; send a list of scans, each a list of finite numbers")
    lengths = {len(row) for row in rows}
    if len(lengths) > 1:
        raise DataError(f"the scans have {min(lengths)} to {max(lengths)} values, expected {num_voxels} in each")
    scans = _checked_shape([len(rows), *lengths], num_voxels)
    for number, row in enumerate(rows):
        if not set(map(type, row)) <= {int, float}:
            raise DataError(f"scan {number} holds something that is not a number; send finite numbers only")
    try:
        values = np.array(rows, np.float64)
    except OverflowError:
        raise DataError("an integer is beyond the range of a float; send finite numbers only") from None
    return _finite(values.reshape(scans, num_voxels))


def write_npy(values: NDArray) -> bytes:
    """The array as an ``.npy`` file."""
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def _split(body: bytes) -> tuple[bytes, memoryview]:
    """Header text and data of an ``.npy`` file of format 1, 2 or 3."""
    if body[:6] != MAGIC or len(body) < 12 or body[6] not in (1, 2, 3):
        raise DataError("the body does not begin like an .npy file; send what numpy.save writes")
    width = 2 if body[6] == 1 else 4
    (length,) = struct.unpack_from("<H" if width == 2 else "<I", body, 8)
    start = 8 + width + length
    if length > MAX_HEADER_BYTES or start > len(body):
        raise DataError(
            f"the .npy header claims {length} bytes, expected at most {MAX_HEADER_BYTES} and no more than were sent; "
            "send what numpy.save writes"
        )
    return body[8 + width : start], memoryview(body)[start:]


def _field(pattern: re.Pattern[bytes], header: bytes) -> str | None:
    found = pattern.findall(header)
    return found[0].decode("ascii") if len(found) == 1 else None


def _checked_shape(sizes: list[int], num_voxels: int) -> int:
    """Number of scans of a (scans, voxels) shape."""
    if len(sizes) != 2:
        raise DataError(f"the recording has {len(sizes)} axes, expected 2: (scans, {num_voxels} voxels)")
    scans, voxels = sizes
    if voxels != num_voxels:
        raise DataError(
            f"the recording has {voxels} voxels, this subject has {num_voxels}; use the mask the data set was made with"
        )
    if scans < 1:
        raise DataError("the recording has no scans, expected at least one")
    return scans


def _finite(values: NDArray[np.floating]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite and is refused below
        single = values.astype(np.float32)
    bad = ~(np.abs(single) <= MAX_VALUE)  # true for NaN as well
    if bad.any():
        scan, voxel = np.unravel_index(int(bad.argmax()), bad.shape)
        raise DataError(
            f"{int(bad.sum())} values are NaN, infinite or beyond {MAX_VALUE:.0f}, the first at scan {scan}, voxel "
            f"{voxel}; repair or mask them before sending"
        )
    return single


def _no_constant(name: str) -> float:
    raise ValueError(name)
