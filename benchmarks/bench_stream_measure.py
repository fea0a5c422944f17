"""How the streaming benchmark measures: alternate two readers, compare medians, check every byte first.

A ratio is always *ours over theirs*: how many times the rows a second. CPU time counts the reader's process and all
that it started; it is the gate whenever the machine has more to do than cores, because wall time then measures the
neighbours.
"""

import hashlib
import math
import os
import resource
import statistics
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
import torch

BATCH = 32
NUM_STAGING = 3
"""Staging buffers in rotation: one alone would stay in the L3 cache and flatter everybody."""
PAIRS = 5
SAMPLE_S = 0.3
"""A sample repeats epochs until it lasts about this long."""

WIDTHS = {"fmri": 14278 * 2, "clip": 257 * 768 * 2, "frames": 100_000}
"""Bytes of a row (performance.md section 0): voxels fp16, CLIP tokens fp16, six JPEG frames of about 100 kB."""
ROW_BYTES = sum(WIDTHS.values())

Rows = Mapping[str, np.ndarray]
"""Column -> (n, width) uint8, in staging memory."""


@dataclass(frozen=True)
class Cost:
    """What delivering some rows took."""

    rows: int
    wall_s: float
    cpu_s: float

    @property
    def wall_us(self) -> float:
        return 1e6 * self.wall_s / self.rows

    @property
    def cpu_us(self) -> float:
        return 1e6 * self.cpu_s / self.rows

    @property
    def gb_per_s(self) -> float:
        return ROW_BYTES / self.wall_us / 1e3


def own_cpu() -> float:
    """CPU seconds of this process and its finished children."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def tree_cpu() -> float:
    """CPU seconds of this process and everything below it, alive or finished."""
    total = own_cpu()
    for process in psutil.Process().children(recursive=True):
        try:
            total += sum(process.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return total


@dataclass
class Reader:
    """A way to deliver an epoch of rows into staging memory, a batch at a time."""

    name: str
    batches: Callable[[int], Iterator[Any]]
    """Epoch number to batches; a batch is valid until two more were delivered."""
    cpu: Callable[[], float] = own_cpu
    rows_of: Callable[[Any], Rows] = lambda batch: batch
    """The bytes of a batch, for the check."""
    epoch: int = 0

    def cost(self, epochs: int) -> Cost:
        """Deliver some epochs."""
        rows, cpu_s, wall_s = 0, self.cpu(), time.perf_counter()
        for _ in range(epochs):
            for batch in self.batches(self.epoch):
                rows += len(batch["fmri"]) if isinstance(batch, dict) else len(batch)
            self.epoch += 1
        return Cost(rows, time.perf_counter() - wall_s, self.cpu() - cpu_s)

    def digest(self) -> str:
        """Of one epoch: every row once and every byte right, whatever the order."""
        found = digest_of(map(self.rows_of, self.batches(self.epoch)))
        self.epoch += 1
        return found


def digest_of(batches: Iterator[Rows]) -> str:
    """Hash of the sorted checksums of all rows."""
    rows = []
    for batch in batches:
        columns = zip(*(batch[name] for name in WIDTHS), strict=True)
        rows += ["-".join(f"{zlib.crc32(cell):08x}" for cell in row) for row in columns]
    return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()


class Buffers:
    """Preallocated contiguous torch tensors in rotation: where every reader must deliver."""

    def __init__(self) -> None:
        self._sets = [
            {name: torch.zeros(BATCH, width, dtype=torch.uint8).numpy() for name, width in WIDTHS.items()}
            for _ in range(NUM_STAGING)
        ]
        self._next = 0

    def take(self, rows: int = BATCH) -> dict[str, np.ndarray]:
        """The next set, cut to a number of rows."""
        chosen = self._sets[self._next]
        self._next = (self._next + 1) % NUM_STAGING
        return {name: array[:rows] for name, array in chosen.items()}


@dataclass
class Ratio:
    """Ours over theirs, from alternating samples."""

    ours: list[Cost] = field(default_factory=list)
    theirs: list[Cost] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)

    def of(self, what: str) -> float:
        """Median over pairs of theirs / ours in ``wall_us`` or ``cpu_us``: how many times faster we are."""
        pairs = zip(self.ours, self.theirs, strict=True)
        return statistics.median(getattr(theirs, what) / getattr(ours, what) for ours, theirs in pairs)

    @property
    def busy(self) -> bool:
        """Whether the machine had more to do than cores."""
        return max(self.loads) > (os.cpu_count() or 1)

    @property
    def gate(self) -> float:
        """The figure that counts."""
        return self.of("cpu_us" if self.busy else "wall_us")


def alternate(ours: Reader, theirs: Reader, pairs: int = PAIRS) -> Ratio:
    """ABAB …, each sample about `SAMPLE_S` long; both were warmed up by their digest."""
    counts = [max(1, math.ceil(SAMPLE_S / reader.cost(1).wall_s)) for reader in (ours, theirs)]
    ratio = Ratio()
    for _ in range(pairs):
        ratio.ours.append(ours.cost(counts[0]))
        ratio.theirs.append(theirs.cost(counts[1]))
        ratio.loads.append(os.getloadavg()[0])
    return ratio
