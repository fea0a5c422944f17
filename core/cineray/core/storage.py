"""One folder or one ``s3://bucket/prefix``, with the few operations whose behaviour under crashes can be stated.

Keys are relative, with forward slashes. A key is absent, or holds the complete bytes of one write: never a part.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from cineray.core.errors import ConflictError, StorageError

__all__ = ["LocalStore", "Store", "check_key", "check_length", "explained"]

TEMPORARY = ".tmp"
"""Ends the names (which begin with a dot) of files and folders that a crash may leave behind."""


class Store(ABC):
    """Bytes by key. All methods raise `StorageError`, with one sentence for a person.

    A store can be pickled and used by many processes at once.
    """

    url: str

    @staticmethod
    def at(url: str | Path) -> "Store":
        """The store at a folder or an ``s3://bucket/prefix``; nothing is created or contacted yet."""
        text = str(url)
        if not text:
            raise StorageError("found an empty location, expected a folder or s3://bucket/prefix")
        if text.startswith("s3://"):
            from cineray.core.storage_s3 import S3Store

            return S3Store(text)
        if "://" in text:
            raise StorageError(f"found location '{text}', expected a folder or s3://bucket/prefix")
        return LocalStore(os.path.abspath(os.path.expanduser(text)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def path(self, key: str) -> str:
        """Where a key lives, for messages and for other programs."""
        return f"{self.url}/{check_key(key)}"

    def get(self, key: str) -> bytes:
        """All bytes of a key."""
        return self.get_tagged(key)[0]

    @abstractmethod
    def get_tagged(self, key: str) -> tuple[bytes, str]:
        """All bytes, and the tag of this content for `swap`."""

    @abstractmethod
    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``start``; an object that ends earlier is an error."""

    @abstractmethod
    def size(self, key: str) -> int:
        """Number of bytes."""

    @abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Write or replace."""

    @abstractmethod
    def put_file(self, key: str, path: str | Path, *, consume: bool = False) -> None:
        """Write or replace with the content of a local file, without holding it in memory.

        ``consume`` gives the file away: it may be moved rather than copied, and is gone afterwards.
        """

    @abstractmethod
    def create(self, key: str, data: bytes) -> None:
        """Write only if the key is absent; `ConflictError` if it is not."""

    @abstractmethod
    def swap(self, key: str, data: bytes, tag: str) -> None:
        """Replace only the content that `get_tagged` returned with ``tag``; else `ConflictError`.

        Keys that are swapped must not be written by `put`.
        """

    @abstractmethod
    def sizes(self, prefix: str = "", *, unfinished: bool = False) -> dict[str, int]:
        """Bytes of every key that begins with ``prefix``; ``unfinished`` adds temporary files of killed writers."""

    def list(self, prefix: str = "", *, unfinished: bool = False) -> list[str]:
        """Sorted keys of `sizes`."""
        return sorted(self.sizes(prefix, unfinished=unfinished))

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Whether the key is there."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove; an absent key is fine."""

    @abstractmethod
    def local(self, key: str) -> Path | None:
        """The file behind a key, None where there is none."""

    def scratch(self) -> tempfile.TemporaryDirectory[str]:
        """A temporary local folder for files on their way to `put_file`."""
        return tempfile.TemporaryDirectory()


class LocalStore(Store):
    """A folder. Writes go to a hidden temporary file beside the target, are synced, then renamed."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get_tagged(self, key: str) -> tuple[bytes, str]:
        """The tag is the sha256 of the content."""
        with explained("read", self.path(key)):
            data = self.local(key).read_bytes()
        return data, hashlib.sha256(data).hexdigest()

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """One ``pread``, repeated where the system returns less."""
        with explained("read", self.path(key)), open(self.local(key), "rb", buffering=0) as file:
            data = bytearray()
            while len(data) < length and (part := os.pread(file.fileno(), length - len(data), start + len(data))):
                data += part
        check_length(self.path(key), start, length, len(data))
        return bytes(data)

    def size(self, key: str) -> int:
        """From the file system."""
        with explained("read", self.path(key)):
            return self.local(key).stat().st_size

    def put(self, key: str, data: bytes) -> None:
        """Temporary file, sync, rename."""
        self._write(key, lambda file: file.write(data), os.replace)

    def put_file(self, key: str, path: str | Path, *, consume: bool = False) -> None:
        """As `put`; a consumed file on the same file system is renamed, any other copied in blocks."""
        target = self.local(key)
        with explained("write", self.path(key)), open(path, "rb") as source:
            _make_folder(target.parent)
            if consume and os.fstat(source.fileno()).st_dev == target.parent.stat().st_dev:
                os.fsync(source.fileno())
                os.replace(path, target)
                _sync_folder(target.parent)
                return
            self._write(key, lambda file: shutil.copyfileobj(source, file, 1 << 22), os.replace)
            if consume:
                os.unlink(path)

    def scratch(self) -> tempfile.TemporaryDirectory[str]:
        """Hidden inside the folder, so that consumed files need no copy."""
        with explained("write", self.url):
            _make_folder(Path(self.url))
            return tempfile.TemporaryDirectory(dir=self.url, prefix=".", suffix=TEMPORARY)

    def create(self, key: str, data: bytes) -> None:
        """A hard link is made in one step and refuses an existing name."""
        self._write(key, lambda file: file.write(data), os.link)

    def swap(self, key: str, data: bytes, tag: str) -> None:
        """Under a lock on the folder, which the system drops if the process dies."""
        target = self.local(key)
        with explained("write", self.path(key)), _locked(target.parent):
            if not target.exists() or self.get_tagged(key)[1] != tag:
                raise ConflictError(f"{self.path(key)} was changed by another writer; read it again and repeat")
            self.put(key, data)

    def sizes(self, prefix: str = "", *, unfinished: bool = False) -> dict[str, int]:
        """Walks the folder that holds the prefix; a file removed meanwhile is left out."""
        root = Path(self.url)
        start = root / prefix.rpartition("/")[0]
        found = {}
        with explained("read", str(start)):
            for path in start.rglob("*"):
                key = path.relative_to(root).as_posix()
                if key.startswith(prefix) and (unfinished or not _is_temporary(key)) and path.is_file():
                    with contextlib.suppress(FileNotFoundError):
                        found[key] = path.stat().st_size
        return found

    def exists(self, key: str) -> bool:
        """Whether it is a file."""
        return self.local(key).is_file()

    def delete(self, key: str) -> None:
        """Unlink."""
        with explained("delete", self.path(key)):
            self.local(key).unlink(missing_ok=True)

    def local(self, key: str) -> Path:
        """The file itself."""
        return Path(self.path(key))

    def _write(self, key: str, fill: Callable[[BinaryIO], object], publish: Callable[[Path, Path], None]) -> None:
        target = self.local(key)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}{TEMPORARY}")
        with explained("write", self.path(key)):
            _make_folder(target.parent)
            try:
                with open(temporary, "xb") as file:
                    fill(file)
                    file.flush()
                    os.fsync(file.fileno())
                publish(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)
            _sync_folder(target.parent)


def check_length(path: str, start: int, length: int, found: int) -> None:
    """Refuse a read that came back short."""
    if found != length:
        raise StorageError(
            f"{path} gave {found} bytes from {start}, expected {length}; it was truncated, restore or ingest it again"
        )


def check_key(key: str) -> str:
    """The key itself, if it stays inside the store."""
    parts = PurePosixPath(key).parts
    if not parts or key.startswith("/") or ".." in parts:
        raise StorageError(f"found key '{key}', expected a relative one without '..'")
    return key


def _is_temporary(key: str) -> bool:
    return any(part.startswith(".") and part.endswith(TEMPORARY) for part in key.split("/"))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, "a file is in the way") from None


def _sync_folder(folder: Path) -> None:
    """A rename is durable once its folder is."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


ADVICE = {
    errno.ENOENT: "does not exist; check the path",
    errno.ENOSPC: "found no space left on the disk; free some space and repeat",
    errno.EDQUOT: "found the disk quota used up; free some space and repeat",
    errno.EFBIG: "found the file size limit reached; raise the limit or free some space and repeat",
    errno.EACCES: "is not permitted; check owner and mode of the folder",
    errno.EPERM: "is not permitted; check owner and mode of the folder",
    errno.EROFS: "found a read-only file system; choose another folder",
    errno.ENOTDIR: "found a file where a folder was expected; choose another path",
    errno.EISDIR: "found a folder where a file was expected; choose another path",
}


@contextlib.contextmanager
def explained(verb: str, path: str) -> Iterator[None]:
    """Turn what the system says into one sentence."""
    try:
        yield
    except StorageError:
        raise
    except FileExistsError:
        raise ConflictError(f"{path} exists already, expected none; another writer was first") from None
    except OSError as error:
        advice = ADVICE.get(error.errno or 0, f"failed ({error.strerror or error}); repair the disk and repeat")
        raise StorageError(f"{verb} of {path} {advice}") from error
