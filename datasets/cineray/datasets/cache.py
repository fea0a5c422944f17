"""The bytes of a published object, on local disk: the object itself, or a sparse copy that fills as it is read.

A copy is one file per object, named by the object's sha256 and as long as the object. Every region is checked before
use, so a hole, a torn write or a damaged block all look alike: they are fetched (again) and checked once more. That
needs no bookkeeping, and lets any number of processes fill the same file.
"""

import errno
import mmap
import os
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cineray.core.errors import IntegrityError, StorageError
from cineray.core.storage import Store
from cineray.datasets.manifest import ObjectInfo

__all__ = ["Cache", "ObjectBytes"]

NUM_ATTEMPTS = 100

Check = Callable[[memoryview], None]
"""Raises `IntegrityError` if these are not the expected bytes."""


class ObjectBytes:
    """One object, mapped into memory for as long as this lives (mapping anew costs page faults, performance.md 2a)."""

    def __init__(self, info: ObjectInfo, path: Path, fetch: Callable[[int, int], bytes] | None) -> None:
        self.info = info
        self.path = path
        self._fetch = fetch
        self.handle = os.open(path, os.O_RDWR if fetch else os.O_RDONLY)
        try:
            found = os.fstat(self.handle).st_size
            if found != info.num_bytes:
                raise IntegrityError(
                    f"{path} has {found} bytes, the manifest says {info.num_bytes}; restore it or ingest again"
                )
            self.map = mmap.mmap(self.handle, info.num_bytes, prot=mmap.PROT_READ)
        except BaseException:
            os.close(self.handle)
            raise

    def __del__(self) -> None:
        if hasattr(self, "map"):
            os.close(self.handle)

    def region(self, start: int, length: int, check: Check) -> memoryview:
        """``length`` bytes from ``start`` that passed ``check``; fetched if they are not here."""
        view = memoryview(self.map)[start : start + length]
        if self._fetch is None:
            check(view)
            return view
        try:
            # Not through the map: a hole in a full tmpfs would end the process (SIGBUS), where this reads zeros.
            check(memoryview(os.pread(self.handle, length, start)))
        except IntegrityError:
            data = self._fetch(start, length)
            check(memoryview(data))
            self._fill(data, start)
        return view

    def read_into(self, row: NDArray[np.uint8], start: int) -> None:
        """Fill ``row`` by ``pread``; the region must have been checked."""
        done = 0
        while done < len(row):
            count = os.preadv(self.handle, [row.data[done:]], start + done)
            if count == 0:
                raise IntegrityError(f"{self.path} ends before byte {start + len(row)}; restore it or ingest again")
            done += count

    def _fill(self, data: bytes, start: int) -> None:
        try:
            done = 0
            while done < len(data):
                done += os.pwrite(self.handle, memoryview(data)[done:], start + done)
        except OSError as error:
            raise StorageError(f"cannot fill {self.path} ({error.strerror}); free space or lower the cache") from error


class Cache:
    """A folder of sparse copies, safe for many processes.

    Args:
        folder: made on first use.
        max_bytes: least recently opened copies are removed to stay below; None keeps everything. A copy that is open
            stays readable until it is closed.
    """

    def __init__(self, folder: str | Path, max_bytes: int | None = None) -> None:
        self.folder = Path(folder)
        self.max_bytes = max_bytes

    def open(self, store: Store, info: ObjectInfo) -> ObjectBytes:
        """The (possibly still empty) copy of an object."""
        path = self.folder / f"{info.sha256}.parquet"
        for _ in range(NUM_ATTEMPTS):
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._make_room(info.num_bytes, keep=path)
                if not path.exists() or path.stat().st_size != info.num_bytes:
                    _sparse(path, info.num_bytes)
                os.utime(path)
                return ObjectBytes(info, path, lambda start, length: store.get_range(info.key, start, length))
            except FileNotFoundError:  # another process made room just now
                continue
            except StorageError:
                raise
            except OSError as error:
                raise StorageError(f"cannot use the cache {self.folder} ({error.strerror}); choose another") from error
        raise StorageError(f"cannot keep a copy in the cache {self.folder}: others remove it at once; allow more bytes")

    def num_bytes(self) -> int:
        """Disk space that the copies take."""
        return sum(taken for _, taken, _ in self._copies())

    def _copies(self) -> list[tuple[float, int, Path]]:
        """Time of last opening, bytes on disk, path; oldest first."""
        found = []
        for path in self.folder.glob("*.parquet"):
            try:
                status = path.stat()
            except FileNotFoundError:  # another process made room
                continue
            found.append((status.st_mtime, status.st_blocks * 512, path))
        return sorted(found)

    def _make_room(self, wanted: int, keep: Path) -> None:
        if self.max_bytes is None:
            return
        copies = self._copies()
        excess = sum(taken for _, taken, _ in copies) + wanted - self.max_bytes
        for _, taken, path in copies:
            if excess > 0 and path != keep:
                path.unlink(missing_ok=True)
                excess -= taken


def _sparse(path: Path, num_bytes: int) -> None:
    """A file of holes, put in place in one step."""
    temporary = path.with_suffix(f".{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.truncate(num_bytes)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def open_object(store: Store, info: ObjectInfo, cache: Cache | None) -> ObjectBytes:
    """An object of a local store as it lies there; of another store through the cache."""
    path = store.local(info.key)
    if path is None:
        if cache is None:
            raise StorageError(f"{store.url} is not local, expected a cache folder for it; set cache_dir")
        return cache.open(store, info)
    try:
        return ObjectBytes(info, path, None)
    except FileNotFoundError:
        raise IntegrityError(f"{path} is named by the manifest but missing; restore it or ingest again") from None
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "error")
        raise StorageError(f"cannot open {path} ({name}: {error.strerror}); check its permissions") from error
