"""How the benchmark of features measures: one side after the other, CPU time of every process that took part."""

import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

import psutil
from benchmarks.bench_features_report import Line

PAIRS = 3
SETTLE_S = 2.0
"""Before each measurement: nobody pays for putting the other's actors away."""
POLL_S = 0.5
"""Between two looks at the processes below this one; what one did after the last look and before its end is lost."""


@dataclass
class Work:
    """What some rows took."""

    rows: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0

    @classmethod
    @contextmanager
    def measured(cls, only: str = "") -> Iterator[Self]:
        """Filled when the block ends, but for the rows.

        Counts this process and all below it, also those that begin or end meanwhile, as Ray's actors do; or ``only``
        those below whose command line begins so.
        """
        work, meter = cls(), _Meter(only)
        wall_s = time.perf_counter()
        try:
            yield work
        finally:
            work.wall_s = time.perf_counter() - wall_s
            work.cpu_s = meter.stop()


class _Meter:
    """CPU seconds since the meter was made."""

    def __init__(self, only: str) -> None:
        self._only = only
        self._last: dict[tuple[int, float], float] = {}
        self._look()
        self._first = dict(self._last)
        self._own_s = time.process_time()
        self._looking_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        self._stop.set()
        self._thread.join()
        own_s = time.process_time() - self._own_s - self._looking_s
        self._look()
        return (0.0 if self._only else own_s) + sum(
            seconds - self._first.get(who, 0.0) for who, seconds in self._last.items()
        )

    def _watch(self) -> None:
        while not self._stop.wait(POLL_S):
            self._look()
        self._looking_s = time.thread_time()

    def _look(self) -> None:
        for process in psutil.Process().children(recursive=True):
            try:
                if self._only and not "".join(process.cmdline()[:1]).startswith(self._only):
                    continue
                times = process.cpu_times()
                self._last[process.pid, process.create_time()] = times.user + times.system
            except psutil.NoSuchProcess:
                continue


@dataclass
class Pairs:
    """Ours beside theirs, one after the other."""

    ours: list[Work] = field(default_factory=list)
    theirs: list[Work] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)

    def ratio(self, what: str) -> float:
        """Median of how many times as many rows a second (``wall_s``) or a CPU second (``cpu_s``) ours does."""
        return statistics.median(
            (ours.rows / getattr(ours, what)) / (theirs.rows / getattr(theirs, what))
            for ours, theirs in zip(self.ours, self.theirs, strict=True)
        )

    def line(self, key: str, what: str) -> Line:
        """The gate is CPU time where the machine had more to do than cores: wall time then measures the neighbours."""
        busy = max(self.loads) > (os.cpu_count() or 1)
        rates = [statistics.median(w.rows / w.wall_s for w in works) for works in (self.ours, self.theirs)]
        cpu = [statistics.median(1e3 * w.cpu_s / w.rows for w in works) for works in (self.ours, self.theirs)]
        note = (
            f"{rates[0]:.0f} against {rates[1]:.0f} clips/s, {cpu[0]:.2f} against {cpu[1]:.2f} CPU ms a clip, wall "
            f"{self.ratio('wall_s'):.3g}, CPU {self.ratio('cpu_s'):.3g}, load {max(self.loads):.1f}, gate "
            f"{'CPU' if busy else 'wall'}"
        )
        return Line(key, what, self.ratio("cpu_s" if busy else "wall_s"), note)


def alternate(ours: Callable[[], Work], theirs: Callable[[], Work]) -> Pairs:
    """ABAB …"""
    pairs = Pairs()
    for _ in range(PAIRS):
        time.sleep(SETTLE_S)
        pairs.ours.append(ours())
        time.sleep(SETTLE_S)
        pairs.theirs.append(theirs())
        pairs.loads.append(os.getloadavg()[0])
    return pairs
