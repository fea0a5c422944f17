"""Arrays out of .npy, .npz, HDF5 and MATLAB files: the header is judged first, and nothing is ever unpickled."""

import math
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import h5py
import numpy as np
import scipy.io
from numpy.typing import NDArray
from scipy.io.matlab import MatReadError

from cineray.core.errors import DataError

__all__ = ["MAX_GB", "Header", "headers", "read_array", "readable"]

NUMBERS = "biuf"
"""Kinds of dtype that hold real numbers."""

MAX_GB = 16.0
"""Largest array read: a header can claim any size."""


@dataclass(frozen=True)
class Header:
    """What a file says about one of its arrays."""

    shape: tuple[int, ...]
    dtype: str
    """numpy's name where there is one (``float32``, ``<U7``, ``object``), the format's own otherwise (``cell``)."""

    @property
    def is_numeric(self) -> bool:
        """Whether it holds real numbers."""
        return self.dtype in MATLAB or (self.dtype in np.sctypeDict and np.dtype(self.dtype).kind in NUMBERS)

    @property
    def is_text(self) -> bool:
        """Whether it holds words of a fixed length."""
        return self.dtype[:2] in ("<U", ">U")

    @property
    def num_gb(self) -> float:
        """Size of numbers or words once read."""
        return math.prod(self.shape) * np.dtype(MATLAB.get(self.dtype, self.dtype)).itemsize / 1e9


MATLAB = {"double": "float64", "single": "float32", "logical": "bool"}
"""MATLAB's own names of numeric classes; its integers are called as numpy's."""


def headers(path: Path) -> dict[str, Header]:
    """Name -> shape and dtype of every array in the file, without reading any (a .npy has the one name ``""``)."""
    list_arrays, _ = _format(path)
    with readable(path):
        return list_arrays(path)


def read_array(path: Path, key: str = "", *, text: bool = False) -> NDArray:
    """One array of real numbers (or of words); ``key`` may be left out where the file holds a single array.

    Raises `DataError` if the file is missing, damaged or cut off, lacks the key, or holds anything else.
    """
    known = headers(path)
    if not key and len(known) != 1:
        raise DataError(f"{path.name} holds {len(known)} arrays ({_names(known)}); name the one to read")
    key = key or next(iter(known))
    if key not in known:
        raise DataError(f"{path.name} has no array '{key}'; it holds {_names(known)}")
    header, where = known[key], f"{path.name} array '{key}'" if key else path.name
    if not (header.is_text if text else header.is_numeric):
        wanted = "words (numpy's str)" if text else "real numbers"
        raise DataError(f"{where} holds {header.dtype}, expected {wanted}; save it as such, nothing is unpickled")
    if header.num_gb > MAX_GB:
        raise DataError(
            f"{where} of shape {header.shape} is {header.num_gb:.3g} GB, expected at most {MAX_GB:g}; "
            "save one run a file"
        )
    with readable(path):
        array = _format(path)[1](path, key)
    if np.iscomplexobj(array):
        raise DataError(f"{where} holds complex numbers, expected real numbers; save the part that is meant")
    return array


Lister = Callable[[Path], dict[str, Header]]
Reader = Callable[[Path, str], NDArray]


def _format(path: Path) -> tuple[Lister, Reader]:
    if not path.is_file():
        raise DataError(f"there is no file {path}; correct the name")
    if path.suffix == ".mat":
        return FORMATS[".h5" if h5py.is_hdf5(path) else ".mat"]  # MATLAB 7.3 is HDF5
    if path.suffix not in FORMATS:
        raise DataError(f"{path.name} is of no known kind; expected one of {', '.join(FORMATS)}")
    return FORMATS[path.suffix]


def _npy_headers(path: Path) -> dict[str, Header]:
    with path.open("rb") as file:
        return {"": _npy_header(file)}


def _npy_header(file: IO[bytes]) -> Header:
    version = np.lib.format.read_magic(file)
    if version not in NPY_HEADERS:
        raise ValueError(f"version {version} of the npy format")
    shape, _, dtype = NPY_HEADERS[version](file)
    return Header(shape, "object" if dtype.hasobject else dtype.name if dtype.kind in NUMBERS else dtype.str)


def _npy_read(path: Path, key: str) -> NDArray:
    return np.load(path, allow_pickle=False)


def _npz_headers(path: Path) -> dict[str, Header]:
    found = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".npy"):
                with archive.open(name) as file:
                    found[name.removesuffix(".npy")] = _npy_header(file)
    return found


def _npz_read(path: Path, key: str) -> NDArray:
    with np.load(path, allow_pickle=False) as archive:
        return archive[key]


def _mat_headers(path: Path) -> dict[str, Header]:
    return {name: Header(tuple(shape), kind) for name, shape, kind in scipy.io.whosmat(path)}


def _mat_read(path: Path, key: str) -> NDArray:
    return scipy.io.loadmat(path, variable_names=[key])[key]


def _hdf5_headers(path: Path) -> dict[str, Header]:
    found: dict[str, Header] = {}

    def note(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith("#"):  # '#refs#' are MATLAB's own
            inside = item.external is None and not item.is_virtual
            kind = "object" if item.dtype.hasobject else item.dtype.name
            found[name] = Header(_turned(path, item.shape), kind if inside else "a link to another file")

    with h5py.File(path, "r") as file:
        file.visititems(note)
    return found


def _hdf5_read(path: Path, key: str) -> NDArray:
    with h5py.File(path, "r") as file:
        array = np.asarray(file[key])
    return array.T if path.suffix == ".mat" else array


def _turned(path: Path, shape: tuple[int, ...]) -> tuple[int, ...]:
    """MATLAB writes its columns first, so its HDF5 axes stand in reverse."""
    return shape[::-1] if path.suffix == ".mat" else shape


def _names(known: dict[str, Header]) -> str:
    return ", ".join(f"'{name}' {header.shape}" for name, header in list(known.items())[:8]) or "nothing"


@contextmanager
def readable(path: Path, *also: type[Exception]) -> Iterator[None]:
    """What several libraries raise on damaged bytes (and ``also``), said in one way."""
    try:
        yield
    except (*UNREADABLE, *also) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{path.name} cannot be read ({reason}); copy or export it again") from None


UNREADABLE = (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, MatReadError)

NPY_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}

FORMATS: dict[str, tuple[Lister, Reader]] = {
    ".npy": (_npy_headers, _npy_read),
    ".npz": (_npz_headers, _npz_read),
    ".mat": (_mat_headers, _mat_read),
    ".h5": (_hdf5_headers, _hdf5_read),
    ".hdf5": (_hdf5_headers, _hdf5_read),
}
