"""Pickled numbers, words and containers, read without running anything the file asks for.

A pickle is a program that calls what it names. Here it may name only the makers of numpy arrays, and even these are
not numpy's own: each is a stand-in that takes plain bytes and checks their length, since numpy's own would believe a
hostile dtype. All other globals are refused by name.
"""

import math
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from cineray.core.errors import DataError

__all__ = ["read_object_array", "read_pickle"]

MAX_GB = 16.0
"""Largest file read: it is held in memory as a whole."""

NPY_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}

KINDS = "biufcSU"
"""Kinds of dtype whose bytes are values, not addresses."""

OBJECTS = "O8"
"""What numpy calls the dtype of objects in a pickle."""

CONTAINERS = (dict, list, tuple)
PLAIN = (str, bytes, int, float, bool, type(None), np.generic)


def read_pickle(path: Path) -> Any:
    """Arrays, numbers, words, and dicts, lists and tuples of them.

    Raises `DataError` if the file is missing, damaged, too large, or names anything else.
    """
    with _opened(path) as file:
        return _load(file)


def read_object_array(path: Path) -> Any:
    """What a ``.npy`` of dtype object holds: the array, or its only item where it has no axis (mostly a dict)."""
    with _opened(path) as file:
        read_header = NPY_HEADERS.get(np.lib.format.read_magic(file))
        if read_header is None:
            raise ValueError("it has another version of the npy format")
        if not read_header(file)[2].hasobject:
            raise ValueError("it holds plain numbers, expected objects")
        return _load(file)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """A file of bearable size; what its reader raises becomes one sentence."""
    if not path.is_file():
        raise DataError(f"there is no file {path}; correct the name")
    if (size_gb := path.stat().st_size / 1e9) > MAX_GB:
        raise DataError(f"{path.name} has {size_gb:.3g} GB, expected at most {MAX_GB:g}; save one run a file")
    try:
        with path.open("rb") as file:
            yield file
    except DAMAGED as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(f"{path.name} cannot be read ({reason}); copy or export it again") from None


def _load(file: IO[bytes]) -> Any:
    return _Plain().of(_Unpickler(file, encoding="latin1").load())


class _Unpickler(pickle.Unpickler):
    """Resolves the names in `GLOBALS`, nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        found = GLOBALS.get((module.replace("numpy._core", "numpy.core"), name))
        if found is None:
            raise pickle.UnpicklingError(
                f"it names {module}.{name}, which may run code; expected numpy arrays and plain containers"
            )
        return _Global(found)


class _Global:
    """A name that can be called and, unlike a function or class, not changed by the pickle."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("it changes a global")


class _Type:
    """Stands for ``numpy.dtype``."""

    __slots__ = ("value",)

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or not (code == OBJECTS or np.dtype(code).kind in KINDS):
            raise pickle.UnpicklingError(f"it holds dtype {code}, expected numbers or words")
        self.value = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        _, order, *parts = state[:5]
        if parts != [None, None, None] or order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("it holds a dtype with fields, expected numbers or words")
        self.value = self.value.newbyteorder(order)


class _Array:
    """Stands for an array until its bytes have come."""

    __slots__ = ("value",)

    def __init__(self, *_: object) -> None:
        self.value = np.empty(0)

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, is_fortran, data = state
        self.value = _array(data, dtype, shape, "F" if is_fortran else "C")


def _array(data: Any, dtype: object, shape: object, order: object) -> np.ndarray:
    """Bytes (of numbers or words) or a list (of objects) as an array; ``reshape`` refuses a length that is wrong."""
    if not isinstance(dtype, _Type) or not isinstance(shape, tuple) or not all(isinstance(n, int) for n in shape):
        raise pickle.UnpicklingError("it holds an array without dtype or shape")
    if min(shape, default=0) < 0 or order not in ("C", "F"):
        raise pickle.UnpicklingError(f"it holds an array of shape {shape}")
    if dtype.value.hasobject:
        if not isinstance(data, list) or len(data) != math.prod(shape):
            raise pickle.UnpicklingError("it holds an array of objects that are not listed")
        flat = np.empty(len(data), object)
        for index, one in enumerate(data):  # an assignment of the whole list would look into its members
            flat[index] = one
        return flat.reshape(shape)  # listed row by row, whatever the order in memory was
    data = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(data, dtype.value).reshape(shape, order=order)


def _from_buffer(data: object, dtype: object, shape: object, order: object) -> _Array:
    found = _Array()
    found.value = _array(data, dtype, shape, order)
    return found


def _scalar(dtype: object, data: object) -> _Array:
    return _from_buffer(data, dtype, (), "C")


def _encode(text: object, encoding: object = "latin1") -> bytes:
    """How older protocols write bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("it encodes something else than bytes")
    return text.encode("latin1")


def _no_call(*_: object) -> None:
    raise pickle.UnpicklingError("it calls a class")


GLOBALS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): _no_call,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): lambda: b"",  # how protocols 0 to 2 write no bytes
    ("collections", "OrderedDict"): dict,
}
"""What a pickle may name (numpy 2 calls its core ``_core``), and what stands for it."""

DAMAGED = (
    pickle.UnpicklingError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OSError,
    EOFError,
    MemoryError,
    RecursionError,
)
"""What a file raises that is no pickle, or a hostile one."""


class _Plain:
    """Replaces the stand-ins by their arrays; an object met again is not walked again."""

    def __init__(self) -> None:
        self._done: dict[int, Any] = {}

    def of(self, item: Any) -> Any:
        if isinstance(item, PLAIN):
            return item
        if id(item) not in self._done:
            self._done[id(item)] = _UNFINISHED
            self._done[id(item)] = self._walked(item)
        if self._done[id(item)] is _UNFINISHED:
            raise pickle.UnpicklingError("it holds a container that holds itself")
        return self._done[id(item)]

    def _walked(self, item: Any) -> Any:
        if isinstance(item, _Array):
            return self.of(item.value[()] if item.value.shape == () else item.value)
        if isinstance(item, np.ndarray):
            if item.dtype.hasobject:
                return _array([self.of(one) for one in item.ravel()], _Type(OBJECTS), item.shape, "C")
            return item
        if type(item) not in CONTAINERS:
            raise pickle.UnpicklingError(f"it holds {type(item).__name__}, expected arrays and plain containers")
        if isinstance(item, dict):
            return {self.of(key): self.of(value) for key, value in item.items()}
        return type(item)(self.of(one) for one in item)


_UNFINISHED = object()
