"""Recordings as bytes: what NumPy and JSON write is read; every hostile body is one sentence."""

import io
import json
import struct

import numpy as np
import pytest

from asking import X, npy
from cineray.core.errors import DataError
from cineray.serving.arrays import read_json, read_npy, write_npy


def raw(header, data=b"", version=1):
    text = header.encode("latin-1")
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + data


def described(descr="'<f4'", order="False", shape="(2, 3)"):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_what_numpy_writes_is_read(dtype, version):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, X.astype(dtype), version=version)
    found = read_npy(buffer.getvalue(), 3)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, X)
    np.testing.assert_array_equal(np.load(io.BytesIO(write_npy(found)), allow_pickle=False), X)


HOSTILE_NPY = {
    "huge claim": (raw(described(shape="(65536, 3)")), "promises 786432 bytes"),
    "claim beyond int64": (raw(described(shape="(999999999999999999, 3)")), "promises"),
    "absurd digits": (raw(described(shape=f"({'9' * 400}, 3)")), "axes"),
    "truncated": (npy(X)[:-1], "23 followed"),
    "trailing bytes": (npy(X) + b"x", "25 followed"),
    "object": (npy(X.astype(object), allow_pickle=True), r"dtype is \|O"),
    "structured": (npy(np.zeros((2, 3), [("a", "<f4")])), "dtype"),
    "text": (npy(np.full((2, 3), "1.5")), "dtype is <U3"),
    "bool": (npy(X > 1), r"dtype is \|b1"),
    "integers": (npy(X.astype(np.int64)), "dtype is <i8"),
    "complex": (npy(X.astype(complex)), "dtype is <c16"),
    "big endian": (npy(X.astype(">f4")), "dtype is >f4"),
    "fortran": (npy(np.asfortranarray(X)), "C order"),
    "one axis": (npy(X[0]), "1 axes"),
    "no axis": (npy(X[0, 0]), "0 axes"),
    "three axes": (npy(X[None]), "3 axes"),
    "negative": (raw(described(shape="(-2, 3)")), "axes"),
    "no scans": (npy(X[:0]), "no scans"),
    "voxel too few": (npy(X[:, :2]), "2 voxels, this subject has 3"),
    "voxel too many": (npy(np.zeros((2, 4))), "4 voxels, this subject has 3"),
    "empty": (b"", "begin like"),
    "magic only": (b"\x93NUMPY", "begin like"),
    "future version": (raw(described(), version=4), "begin like"),
    "zip": (b"PK\x03\x04" + b"\0" * 40, "begin like"),
    "long header": (raw(" " * 4000 + described()), "header claims"),
    "header past the end": (b"\x93NUMPY\x02\0" + struct.pack("<I", 2**32 - 1) + b"x", "header claims"),
    "code in header": (raw("{'descr': __import__('os').abort(), 'fortran_order': False, 'shape': (2, 3)}"), "dtype"),
    "nested header": (raw("(" * 1000), "dtype"),
    "two shapes": (raw(described()[:-2] + "'shape': (9, 9)}", X.tobytes()), "axes"),
    "nan": (npy(np.where(X == 4, np.nan, X)), "scan 1, voxel 1"),
    "infinite": (npy(np.where(X == 2, -np.inf, X)), "scan 0, voxel 2"),
    "beyond float16": (npy(np.where(X == 1, 65536, X)), "beyond 65504, the first at scan 0, voxel 1"),
    "beyond float32": (npy(np.where(X == 5, 1e300, X.astype(float))), "scan 1, voxel 2"),
}


@pytest.mark.parametrize("name", HOSTILE_NPY)
def test_hostile_npy_is_refused_in_one_sentence(name):
    body, expected = HOSTILE_NPY[name]
    with pytest.raises(DataError, match=expected) as caught:
        read_npy(body, 3)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_a_claim_of_32_gib_costs_no_memory():
    import tracemalloc

    tracemalloc.start()
    with pytest.raises(DataError, match="promises"):
        read_npy(raw(described("'<f8'", shape="(65536, 65536)")), 65536)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_json_lists_of_numbers_are_read():
    np.testing.assert_array_equal(read_json(json.dumps(X.tolist()).encode(), 3), X)
    np.testing.assert_array_equal(read_json(b"[[1, 2, -0.5e1]]", 3), np.float32([[1, 2, -5]]))


HOSTILE_JSON = {
    "nan": (b"[[1, NaN, 2]]", "not valid JSON"),
    "infinity": (b"[[1, -Infinity, 2]]", "not valid JSON"),
    "1e400": (b"[[1, 1e400, 2]]", "scan 0, voxel 1"),
    "beyond float32": (b"[[1, 2, 3], [1, 2, 1e39]]", "scan 1, voxel 2"),
    "endless integer": (b"[[1, 2, " + b"9" * 5000 + b"]]", "not valid JSON"),
    "large integer": (b"[[1, 2, " + b"9" * 400 + b"]]", "beyond the range"),
    "bool": (b"[[1, true, 2]]", "not a number"),
    "text": (b'[[1, "1.5", 2]]', "not a number"),
    "null": (b"[[1, null, 2]]", "not a number"),
    "nested": (b"[[1, [2], 3]]", "not a number"),
    "ragged": (b"[[1, 2, 3], [1, 2]]", "2 to 3 values"),
    "flat": (b"[1, 2, 3]", "list of lists"),
    "object": (b'{"recording": [[1, 2, 3]]}', "list of lists"),
    "no scans": (b"[]", "axes"),
    "empty scan": (b"[[]]", "0 voxels"),
    "wrong voxels": (b"[[1, 2]]", "2 voxels, this subject has 3"),
    "deep": (b"[" * 100_000, "not valid JSON"),
    "invalid UTF-8": (b"[[1, 2, \xff]]", "not valid JSON"),
    "UTF-16": ("[[1, 2, 3]]".encode("utf-16"), "not valid JSON"),
    "byte order mark": (b"\xef\xbb\xbf[[1, 2, 3]]", "not valid JSON"),
    "empty": (b"", "not valid JSON"),
    "two documents": (b"[[1, 2, 3]] [[1, 2, 3]]", "not valid JSON"),
}


@pytest.mark.parametrize("name", HOSTILE_JSON)
def test_hostile_json_is_refused_in_one_sentence(name):
    body, expected = HOSTILE_JSON[name]
    with pytest.raises(DataError, match=expected) as caught:
        read_json(body, 3)
    assert len(str(caught.value)) < 300
