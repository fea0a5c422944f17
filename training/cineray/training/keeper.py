"""Keeps a run: snapshots from all ranks; files, ledger and metrics from rank 0; old checkpoints removed."""

from collections.abc import Iterator, Mapping
from functools import partial

from torch import Tensor

from cineray.core.records import Records
from cineray.core.storage import Store
from cineray.training.checkpoint import Manifest, prune, snapshot, write_checkpoint
from cineray.training.ledger import Entry, forget_from, segment_bytes, segment_key
from cineray.training.world import World
from cineray.training.writer import BackgroundWriter

__all__ = ["Keeper"]


class Keeper:
    """One attempt's checkpoints. `save` and `finish` are collective; so are `news` and `hear`, through the loop.

    A write that fails raises on rank 0 at the next step or save; the other ranks then fail with it.
    """

    def __init__(self, store: Store, world: World, keep: int, resumed: Manifest | None) -> None:
        self.store, self.world, self.keep = store, world, keep
        self.saved_step = resumed.step if resumed else None
        self._first_step = resumed.step if resumed else 0
        self._entries: list[Entry] = []
        self._waiting: list[Manifest] = []
        self._writer: BackgroundWriter[int] = BackgroundWriter()
        self._log: Records | None = None
        if world.rank == 0:
            forget_from(store, self._first_step)
            self._log = Records(store, "metrics.jsonl")

    def record(self, entry: Entry) -> None:
        """Rows of this rank in one step; they count once a checkpoint follows."""
        self._entries.append(entry)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """A line of ``metrics.jsonl``, from rank 0; steps taken again appear again."""
        if self._log is not None:
            self._log.append({"step": step, **metrics})
            if "val/loss" in metrics:  # what a search compares must be there even if the run is stopped
                self._log.flush()

    def save(self, manifest: Manifest, state: Iterator[tuple[str, Tensor]], normaliser: Mapping[str, Tensor]) -> None:
        """Copy the state to host memory and write it beside training; waits if the last one is still being written."""
        first = self.world.rank == 0
        entries = _merged(self.world.gather(self._entries))
        tensors = snapshot(state, keep=first)
        if first:
            tensors |= snapshot(((f"normaliser/{name}", x) for name, x in normaliser.items()), keep=True)
            self._writer.submit(partial(self._write, manifest, tensors, entries, self._first_step))
        self._waiting.append(manifest)
        self._entries, self._first_step, self.saved_step = [], manifest.step, manifest.step

    def news(self) -> float:
        """Rank 0: step of the last finished write (0 before any); other ranks 0, so that a sum spreads it."""
        return float(self._writer.done() or 0) if self.world.rank == 0 else 0.0

    def hear(self, step: int) -> list[Manifest]:
        """Checkpoints that the news ``step`` says are finished and were not heard of before."""
        heard = [manifest for manifest in self._waiting if manifest.step <= step]
        self._waiting = self._waiting[len(heard) :]
        return heard

    def finish(self) -> list[Manifest]:
        """Wait for the last write; the checkpoints not heard of yet."""
        step = self.world.first(self._writer.wait())
        return self.hear(step or 0) if self._waiting else []

    def close(self) -> None:
        """End the thread and the log, whatever has happened."""
        self._writer.close()
        if self._log is not None:
            self._log.close()

    def _write(self, manifest: Manifest, tensors: Mapping[str, Tensor], entries: list[Entry], first_step: int) -> int:
        # The ledger first: a checkpoint that exists has its rows on record.
        if entries:
            self.store.put(segment_key(first_step), segment_bytes(entries))
        write_checkpoint(self.store, manifest, tensors)
        prune(self.store, self.keep, manifest.position.best_step)
        return manifest.step


def _merged(ranks: list[list[Entry]]) -> list[Entry]:
    """The same steps of all ranks, their rows in the order of ranks."""
    steps = zip(*ranks, strict=True)
    return [Entry(parts[0].epoch, parts[0].step, [row for part in parts for row in part.rows]) for parts in steps]
