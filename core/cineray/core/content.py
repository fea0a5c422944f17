"""What lies at a place, told from few of its bytes: copied elsewhere it is the same, trained further it is another."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import PlainSerializer, SerializationInfo

from cineray.core.storage import explained

__all__ = ["BY_CONTENT", "Local", "content_of"]

BY_CONTENT = "by content"
"""Context of serialisation in which a `Local` is its content."""

WHOLE_BYTES = 1 << 20
"""Files up to this size are read whole: settings, vocabularies, small networks."""
NUM_SAMPLES = 256
SAMPLE_BYTES = 4096
"""Of a larger file: a page of it every 1/255 of its length. Training changes nearly every weight; of 4 GB in which
only a fiftieth of the tensors were trained, five pages are expected to differ."""


def content_of(place: Path) -> str:
    """First 16 hex digits of a sha256 over names below the place, sizes and samples of all files that are not hidden.

    Tells weights apart that were trained differently, at a cost that does not grow with them. Not a check against
    damage or forgery: of a large file, a stretch of 1/255 of its length (16 MB of 4 GB) may change unseen.

    Raises:
        StorageError: a file or folder in it cannot be read.
    """
    digest = hashlib.sha256()
    for name, file in sorted(_files(place)):
        with explained("read", str(file)):
            size = file.stat().st_size
            digest.update(f"{name}\0{size}\0".encode())
            for sample in _samples(file, size):
                digest.update(sample)
    return digest.hexdigest()[:16]


def _files(place: Path) -> Iterator[tuple[str, Path]]:
    """Name below the place and path of every file; a file by itself has no name."""
    if place.is_file():
        yield "", place
        return
    for folder, folders, names in os.walk(place, onerror=_refuse, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(folder, name) for name in names if not name.startswith(".")):
            yield path.relative_to(place).as_posix(), path


def _refuse(error: OSError) -> None:
    """A folder that cannot be listed is not an empty one."""
    with explained("read", error.filename):
        raise error


def _samples(path: Path, size: int) -> Iterator[bytes]:
    with open(path, "rb", buffering=0) as file:
        if size <= WHOLE_BYTES:
            yield file.read()
            return
        for number in range(NUM_SAMPLES):
            yield os.pread(file.fileno(), SAMPLE_BYTES, number * (size - SAMPLE_BYTES) // (NUM_SAMPLES - 1))


def _serialised(place: str, info: SerializationInfo) -> str:
    path = Path(place).expanduser()
    return content_of(path) if info.context == BY_CONTENT and path.exists() else place


Local = Annotated[str, PlainSerializer(_serialised)]
"""A file or folder of this machine. A fingerprint takes what lies there; the place itself where nothing does."""
