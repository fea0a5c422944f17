"""A bar on the terminal that follows a run folder while workers elsewhere write to it."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from cineray.core.errors import StorageError
from cineray.core.storage import Store

__all__ = ["watched"]

POLL_S = 0.5
LOG = "metrics.jsonl"


@contextmanager
def watched(store: Store, text: str, num_steps: int) -> Iterator[None]:
    """Show the steps that ``store``'s metrics tell of, with the last losses; nothing where there is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    ended = threading.Event()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"{text}  (waiting for workers)", total=num_steps)
        follower = threading.Thread(target=_follow, args=(store, text, bar, task, ended), daemon=True)
        if console.is_terminal:
            follower.start()
        try:
            yield
        finally:
            ended.set()
            if console.is_terminal:
                follower.join()


def _follow(store: Store, text: str, bar: Progress, task: TaskID, ended: threading.Event) -> None:
    log = _Log(store)
    while True:
        last = ended.wait(POLL_S)
        try:
            if log.read():
                shown = log.last
                losses = "  ".join(f"{name} {shown[name]:.4f}" for name in ("loss", "val/loss") if name in shown)
                bar.update(task, completed=shown["step"], description=f"{text}  {losses}")
        except StorageError as error:  # training does not hang on its being watched
            bar.update(task, description=f"{text}  ({error})")
        if last:
            return


class _Log:
    """The metrics so far: each read takes in the lines that are new."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.last: dict[str, float] = {}
        """Newest value of every metric."""
        self._place = 0

    def read(self) -> bool:
        """Whether there was anything new."""
        size = self.store.size(LOG) if self.store.exists(LOG) else 0
        if size == self._place:
            return False
        start = max(0, self._place - 1)  # with the end of the last line: another byte there means another log
        data = self.store.get_range(LOG, start, max(0, size - start))
        if self._place and not data.startswith(b"\n"):
            self._place, self.last = 0, {}
            return self.read()
        lines = data[self._place - start : data.rfind(b"\n") + 1]
        self._place += len(lines)
        for line in lines.splitlines():
            self.last |= json.loads(line)
        return bool(lines)
