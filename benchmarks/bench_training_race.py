"""Loops that take turns: each in processes of its own, a few steps at a time, on a word over a socket.

A loop calls `Pace` after every step. When a lap's steps are done it tells what they took and waits for its next turn,
so loops that nobody could call step by step (ours, on Ray Train too) can be measured ABAB like functions.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

from benchmarks.bench_stream_measure import Cost
from benchmarks.bench_training_memory import moment_bytes, peak, resident

LAP = 10
"""Steps of a lap: two of them are an epoch."""
KEY = b"bench"
START_S = 180.0
"""Within which a loop must have taken its first step."""


@dataclass
class Lap:
    """What one process says of a lap."""

    rows: int
    wall_s: float
    cpu_s: float
    waited_s: float
    """In the loop, for the next batch."""
    losses: list[float]
    peak_bytes: int
    """Largest resident size since the process's imports, above what they take."""
    rest_bytes: int
    """Between two steps."""
    moment_bytes: int
    """Of the optimiser."""


@dataclass
class Pace:
    """In the loop's process: tells each lap and waits for the next turn."""

    address: str
    rows: int
    """Of a step, over all ranks."""
    base_bytes: int = 0
    """Resident before the loop begins."""
    waited_s: float = 0.0
    _pipe: Connection | None = None
    _losses: list[float] = field(default_factory=list)

    def __call__(self, step: int, metrics: dict[str, float]) -> None:
        """After every step; the first lap is for warming up."""
        if "loss" not in metrics:
            return
        if self._pipe is None:
            self._pipe = Client(self.address, "AF_UNIX", authkey=KEY)
            self._start()
        self._losses.append(metrics["loss"])
        if step % LAP == 0:
            wall_s, cpu_s = time.perf_counter() - self._wall_s, time.process_time() - self._cpu_s
            memory = (peak() - self.base_bytes, resident() - self.base_bytes, moment_bytes())
            self._pipe.send(Lap(self.rows * LAP, wall_s, cpu_s, self.waited_s, self._losses, *memory))
            self._pipe.recv()
            self._start()

    def _start(self) -> None:
        self._losses, self.waited_s = [], 0.0
        self._wall_s, self._cpu_s = time.perf_counter(), time.process_time()

    def watched(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The same batches; the time that passes before each counts as waiting."""
        while True:
            start = time.perf_counter()
            try:
                batch = next(batches)
            except StopIteration:
                return
            self.waited_s += time.perf_counter() - start
            yield batch


class Runner:
    """In the measuring process: a loop on one or more ranks that takes its turn when told."""

    def __init__(self, name: str, folder: Path, start: Callable[[str], Any], ranks: int = 1) -> None:
        """``start(address)`` sets the loop going; returns when its warm-up lap is done."""
        self.name = name
        self.losses: list[float] = []
        self.waits: list[float] = []
        self.last: list[Lap] = []
        address = str(folder / f"{name}.socket")
        with closing(Listener(address, "AF_UNIX", authkey=KEY, backlog=ranks)) as listener:
            listener._listener._socket.settimeout(START_S)  # type: ignore[attr-defined] (else a dead loop hangs us)
            self.handle = start(address)
            self._pipes = [listener.accept() for _ in range(ranks)]
        self._receive()
        self.waits = []

    def lap(self) -> Cost:
        """One lap: the slowest rank's wall time, all ranks' CPU time."""
        self._go()
        return self._receive()

    def megabytes(self, what: str) -> float:
        """The largest rank's ``peak``, ``rest`` or ``moment``, as of the last lap."""
        return max(getattr(lap, f"{what}_bytes") for lap in self.last) / 1e6

    def finish(self) -> None:
        """After the last lap: to the end of the run."""
        self._go()
        self.handle.wait()

    def stop(self) -> None:
        """Without ceremony."""
        self.handle.kill()
        self.handle.wait()

    def _go(self) -> None:
        for pipe in self._pipes:
            pipe.send(None)

    def _receive(self) -> Cost:
        laps: list[Lap] = [pipe.recv() for pipe in self._pipes]
        self.losses += laps[0].losses
        self.last = laps
        wall_s = max(lap.wall_s for lap in laps)
        self.waits.append(max(lap.waited_s for lap in laps) / wall_s)
        return Cost(laps[0].rows, wall_s, sum(lap.cpu_s for lap in laps))
