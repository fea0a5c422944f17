"""One command at a time on a folder. The system itself lets go when the process ends, however it ends."""

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from cineray.core.errors import ConflictError
from cineray.core.storage import Store, explained

__all__ = ["claimed"]

KEY = ".claimed.tmp"
"""An empty file that stays; it is the lock on it that counts."""

WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""What file systems say that are mounted without locks, as Lustre often is."""


@contextmanager
def claimed(store: Store) -> Iterator[None]:
    """Keep other processes out of ``store`` for the block.

    Object stores and file systems without locks have nothing that ends with a process: there nobody is kept out.

    Raises:
        ConflictError: another process is in it.
    """
    path = store.local(KEY)
    if path is None:
        yield
        return
    with explained("write", str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "ab")  # noqa: SIM115 (closed below)
    with file:
        with explained("write", str(path)):
            _lock(file, store)
        yield


def _lock(file: BinaryIO, store: Store) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConflictError(
            f"another command is writing to {store.url}; wait for it, or choose another folder (out=…)"
        ) from None
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
