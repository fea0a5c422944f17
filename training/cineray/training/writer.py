"""One thread that writes while training goes on; its errors come back to the caller."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

__all__ = ["BackgroundWriter"]

T = TypeVar("T")


class BackgroundWriter(Generic[T]):
    """At most one job at a time: a second one waits for the first, so memory holds one snapshot, never a queue."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._job: Future[T] | None = None

    def submit(self, job: Callable[[], T]) -> None:
        """Begin a job once the one before is done; raises what that one raised."""
        self.wait()
        self._job = self._pool.submit(job)

    def done(self) -> T | None:
        """Result of the last job if it has ended (raises its error), else None."""
        return self._job.result() if self._job is not None and self._job.done() else None

    def wait(self) -> T | None:
        """Result of the last job, once it has ended; None if there was none."""
        return self._job.result() if self._job is not None else None

    def close(self) -> None:
        """Let the thread end; unlike `wait` it does not raise."""
        self._pool.shutdown()
