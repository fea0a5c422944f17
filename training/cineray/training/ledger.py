"""Which rows every committed step used: evidence, gathered from the batches themselves.

Segments ``ledger/<first step>.jsonl``, one a checkpoint, are written before its manifest. A run that goes on from step
k writes its next segment under k again, so replayed steps replace what was lost with the worker.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from cineray.core.errors import IntegrityError
from cineray.core.records import read_records
from cineray.core.storage import Store

__all__ = ["Entry", "forget_from", "read_ledger", "segment_bytes", "segment_key"]


@dataclass(frozen=True)
class Entry:
    """One step."""

    epoch: int
    step: int
    """Steps taken before it, since the beginning."""
    rows: list[int]
    """Numbers of the examples used, rank after rank."""


def segment_key(first_step: int) -> str:
    """Where the entries from ``first_step`` on go."""
    return f"ledger/{first_step:08d}.jsonl"


def segment_bytes(entries: list[Entry]) -> bytes:
    """One line an entry."""
    return "".join(json.dumps(vars(entry)) + "\n" for entry in entries).encode()


def read_ledger(store: Store, until_step: int) -> Iterator[Entry]:
    """The committed history up to a checkpoint's step.

    Raises:
        IntegrityError: a step is missing, or a line is not an entry.
    """
    expected = 0
    for key in store.list("ledger/"):
        for record in read_records(store, key):
            if expected == until_step:
                return
            if record.keys() != Entry.__annotations__.keys() or record["step"] != expected:
                raise IntegrityError(f"{store.path(key)} is damaged: it does not tell of step {expected}; restore it")
            yield Entry(**record)
            expected += 1
    if expected < until_step:
        raise IntegrityError(f"{store.path('ledger')} tells of {expected} steps, expected {until_step}; restore it")


def forget_from(store: Store, step: int) -> None:
    """Drop what was written of steps that will be taken again."""
    for key in store.list("ledger/"):
        if key >= segment_key(step):
            store.delete(key)
