"""A bar on the terminal that follows a run folder while workers elsewhere write to it."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from cineray.core.storage import Store

__all__ = ["watched"]

POLL_S = 0.5
LOG = "metrics.jsonl"


@contextmanager
def watched(store: Store, text: str, num_steps: int) -> Iterator[None]:
    """Show the steps that ``store``'s metrics tell of, with the last losses; nothing where there is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
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
    place, shown = 0, {}
    while True:
        last = ended.wait(POLL_S)
        size = store.size(LOG) if store.exists(LOG) else 0
        if size > place:
            lines = store.get_range(LOG, place, size - place)
            whole = lines[: lines.rfind(b"\n") + 1]
            place += len(whole)
            for line in whole.splitlines():
                shown |= json.loads(line)
            losses = "  ".join(f"{name} {shown[name]:.4f}" for name in ("loss", "val/loss") if name in shown)
            bar.update(task, completed=shown.get("step", 0), description=f"{text}  {losses}")
        if last:
            return
