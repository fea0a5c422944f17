"""Pickles of plain data read as Python reads them, and those that would run something read not at all."""

import collections
import datetime
import os
import pickle
import struct
from pickle import BUILD, MARK, NONE, REDUCE, STOP, TUPLE, TUPLE3

import numpy as np
import pytest

from cineray.core.errors import DataError
from cineray.datasets.pickles import read_object_array, read_pickle

RNG = np.random.default_rng(5)

VALUES = {
    "numbers": (RNG.normal(size=(3, 4)), np.asfortranarray(RNG.integers(0, 9, (2, 5))), np.arange(6).reshape(2, 3).T),
    "types": [np.zeros(2, kind) for kind in ("?", "i1", "u2", ">f4", "f2", "c8", "<i8")],
    "words": (["vid0001", "vid0002"], np.array(["one", "fünf"]), np.array([b"x", b"yz"])),
    "scalars": [np.float64(2.5), np.int32(-3), np.bool_(True), np.str_("ä"), 1, 2.5, None, True, b"raw", 1 << 70],
    "empty": (np.empty((0, 4)), [], {}, ()),
    "events": ([{"trial_type": ["vid1001"], "onset": [np.float64(3.0)]}], ["vid1001"]),
    "objects": np.array([[{"a": np.arange(3)}, [1, 2]], [None, "word"]], object),
    "fortran objects": np.asfortranarray(np.array([[1, "b", None], [[4], (5,), 6.0]], object)),
    "arrays in an array": np.array([[np.arange(2), np.arange(2)]], object)[0],
}


def same(found, expected):
    assert type(found) is type(expected)
    if isinstance(expected, np.ndarray):
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        if expected.dtype.hasobject:
            same(found.ravel().tolist(), expected.ravel().tolist())
        else:
            np.testing.assert_array_equal(found, expected)
    elif isinstance(expected, dict):
        same(list(found.items()), list(expected.items()))
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            same(one, other)
    else:
        assert found == expected


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", VALUES)
def test_plain_data_reads_as_python_reads_it(tmp_path, name, protocol):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(VALUES[name], protocol=protocol))
    same(read_pickle(path), VALUES[name])


def test_the_core_of_numpy_had_another_name(tmp_path):
    """Files written by numpy 1 name ``numpy.core``, those by numpy 2 ``numpy._core``."""
    data = pickle.dumps(np.arange(5.0), protocol=2)
    assert b"numpy._core.multiarray" in data
    (tmp_path / "old.pkl").write_bytes(data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    np.testing.assert_array_equal(read_pickle(tmp_path / "old.pkl"), np.arange(5.0))


def test_object_arrays(tmp_path):
    betas = {"betasmd": RNG.normal(size=(4, 1, 1, 6)).astype(np.float32), "R2": np.zeros(4)}
    np.save(tmp_path / "dict.npy", np.array(betas, object))
    same(read_object_array(tmp_path / "dict.npy"), betas)
    np.save(tmp_path / "array.npy", VALUES["objects"])
    same(read_object_array(tmp_path / "array.npy"), VALUES["objects"])
    np.save(tmp_path / "plain.npy", np.zeros(3))
    with pytest.raises(DataError, match=r"plain\.npy cannot be read \(it holds plain numbers, expected objects\)"):
        read_object_array(tmp_path / "plain.npy")


class Evil:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (Evil(os.system, ("touch stolen",)), "posix.system"),
        (Evil(eval, ("open('stolen', 'w')",)), "builtins.eval"),
        (Evil(getattr, ("x", "upper")), "builtins.getattr"),
        ([1, {"deep": Evil(exec, ("open('stolen', 'w')",))}], "builtins.exec"),
        (np.array([Evil(os.system, ("touch stolen",))], object), "posix.system"),
        (Evil(np.load, ("x.npy",)), "numpy.load"),
        (Evil(np.fromfile, ("x",)), "numpy.fromfile"),
        (datetime.date(2020, 1, 1), "datetime.date"),
        (collections.Counter("ab"), "collections.Counter"),
        (np.random.default_rng(0), "numpy.random"),
        (Evil, "Evil"),
    ],
)
def test_what_may_run_code_is_refused_by_name(tmp_path, monkeypatch, value, named):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(value))
    with pytest.raises(DataError, match=rf"x\.pkl cannot be read \(it names \S*{named}.*which may run code") as caught:
        read_pickle(tmp_path / "x.pkl")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "stolen").exists()
    np.save(tmp_path / "x.npy", np.array([value], object))
    with pytest.raises(DataError, match="which may run code"):
        read_object_array(tmp_path / "x.npy")
    assert not (tmp_path / "stolen").exists()


def crafted(dtype, state, data):
    """An array of two items whose parts are given one by one, in the order that numpy writes them."""

    def text(word):
        return b"X" + struct.pack("<I", len(word)) + word.encode()

    def number(value):
        return b"J" + struct.pack("<i", value)

    kind = b"cnumpy\ndtype\n" + text(dtype) + b"\x89\x88" + TUPLE3 + REDUCE
    kind += MARK + number(3) + text(state[0]) + NONE * 3 + number(-1) + number(-1) + number(state[1]) + TUPLE + BUILD
    made = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + number(0) + b"\x85" + text("b") + TUPLE3 + REDUCE
    )
    return made + MARK + number(1) + number(2) + b"\x85" + kind + b"\x89" + data + TUPLE + BUILD + STOP


def test_addresses_given_as_bytes_are_refused(tmp_path):
    """With its flags cleared numpy would take 16 bytes of the file for two addresses of objects."""
    raw = b"C\x10" + struct.pack("<QQ", 0x4141414141414141, 0x4242424242424242)
    path = tmp_path / "x.pkl"
    path.write_bytes(crafted("O8", ("|", 0), raw))
    with pytest.raises(DataError, match="objects that are not listed"):
        read_pickle(path)
    path.write_bytes(crafted("f8", ("<", 0), b"C\x10" + struct.pack("<dd", 1.5, 2.5)))
    np.testing.assert_array_equal(read_pickle(path), [1.5, 2.5])
    path.write_bytes(crafted("f8", ("<", 0), b"C\x08" + struct.pack("<d", 1.5)))
    with pytest.raises(DataError, match="cannot reshape"):
        read_pickle(path)


def bomb():
    """A list of two lists of two lists …: 2^60 members if each were walked on its own."""
    found = [0]
    for _ in range(60):
        found = [found, found]
    return found


def test_shapes_of_hostile_containers(tmp_path):
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(bomb()))
    found = read_pickle(path)
    assert found[0] is found[1]
    ring = []
    ring.append(ring)
    path.write_bytes(pickle.dumps(ring))
    with pytest.raises(DataError, match="a container that holds itself"):
        read_pickle(path)
    path.write_bytes(b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b".")
    with pytest.raises(DataError):
        read_pickle(path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no pickle at all",
        pickle.dumps(np.arange(100.0))[:-50],
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"x.",  # bytes that claim 4 exbibytes
        b"\x80\x04]r" + struct.pack("<I", 0xFFFFFFFF) + b".",  # a memo of 2^32 places
        b"\x80\x04}\x94(cnumpy\ndtype\n\x94K\x01ub.",
        b"cnumpy\ndtype\n}X\x01\x00\x00\x00aK\x01sb.",  # changes a global
        b"cnumpy\ndtype\n.",
        b"Pid\n.",
        b"\x80\x04\x8f.",  # a set
    ],
)
def test_damaged_files_are_refused_in_one_sentence(tmp_path, data):
    path = tmp_path / "x.pkl"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"x\.pkl cannot be read") as caught:
        read_pickle(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="no file"):
        read_pickle(tmp_path / "y.pkl")


@pytest.mark.parametrize("dtype", ["V8", "M8", "m8", "f8,f8", "(2,)f8", "O"])
def test_other_dtypes_are_refused(tmp_path, dtype):
    path = tmp_path / "x.pkl"
    path.write_bytes(crafted(dtype, ("|", 0), b"C\x10" + bytes(16)))
    with pytest.raises(DataError, match="expected numbers or words"):
        read_pickle(path)
