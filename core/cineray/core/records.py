"""Metric logs as JSON lines, and progress on the terminal.

One process writes a log; any number read it. A line counts once its newline is there: what a killed writer left after
the last newline is ignored by readers and cut off by the next writer. Anything else that is not JSON is damage.
"""

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

from cineray.core.errors import IntegrityError
from cineray.core.storage import Store, explained

__all__ = ["Records", "progress", "read_records"]

T = TypeVar("T")

UPLOAD_S = 30.0
"""Seconds between two uploads of a remote log: such a store cannot append, so each writes the whole of it."""


class Records:
    """An append-only log under one key.

    On a folder each line is in the file when `append` returns. On a remote store lines are uploaded every
    ``upload_s`` seconds and on `close`; a crash loses those in between, as it loses the steps after a checkpoint.
    """

    def __init__(self, store: Store, key: str, *, upload_s: float = UPLOAD_S) -> None:
        self._store = store
        self._key = key
        self._upload_s = upload_s
        self._uploaded_s = time.monotonic()
        self._fresh = False
        self._text = bytearray()
        """The whole log, where it must be uploaded whole."""
        path = store.local(key)
        if path is None:
            self._text += _whole_lines(store.get(key)) if store.exists(key) else b""
            self._file = None
        else:
            with explained("write", store.path(key)):
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = open(path, "ab")  # noqa: SIM115 (closed by `close`)
                self._file.truncate(_whole_length(path))

    def append(self, values: Mapping[str, Any]) -> None:
        """Add one record; numbers that are not finite are written as JSON's common extension (``NaN``)."""
        line = json.dumps(values, ensure_ascii=False).encode() + b"\n"
        if self._file is not None:
            with explained("write", self._store.path(self._key)):
                self._file.write(line)
                self._file.flush()
            return
        self._text += line
        self._fresh = True
        if time.monotonic() - self._uploaded_s >= self._upload_s:
            self.flush()

    def flush(self) -> None:
        """Upload what is not there yet."""
        if self._fresh:
            self._store.put(self._key, bytes(self._text))
            self._fresh = False
            self._uploaded_s = time.monotonic()

    def close(self) -> None:
        """Everything appended is in the store afterwards."""
        if self._file is not None:
            with explained("write", self._store.path(self._key)):
                self._file.close()
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def read_records(store: Store, key: str) -> list[dict[str, Any]]:
    """All complete records, in the order of writing; none if the log does not exist yet."""
    if not store.exists(key):
        return []
    found = []
    for number, line in enumerate(_whole_lines(store.get(key)).splitlines(), start=1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise IntegrityError(f"line {number} of {store.path(key)} is not a JSON object; repair or remove that line")
        found.append(record)
    return found


def progress(items: Iterable[T], text: str, total: int | None = None) -> Iterator[T]:
    """The same items, with a bar on the terminal (nothing where there is none)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        yield from bar.track(items, total=total, description=text)


def _whole_lines(data: bytes) -> bytes:
    return data[: data.rfind(b"\n") + 1]


def _whole_length(path: Path) -> int:
    """Bytes up to the last newline, looked for from the end."""
    step = 1 << 16
    with open(path, "rb") as file:
        end = file.seek(0, 2)
        while end > 0:
            start = max(0, end - step)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
    return 0
