"""Lines of the streaming benchmark: floors, targets, and the page in docs/results."""

import datetime
import os
import platform
import statistics
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Self

import numpy as np
from benchmarks.bench_stream_measure import Ratio
from benchmarks.goals import verdict

COPY_BYTES = 256 << 20

GOALS: dict[str, tuple[str, float, float, str]] = {
    "perf.D1/warm": (">=", 0.80, 0.95, "1.04-1.16"),
    "perf.D2": (">=", 2.0, 2.6, "2.4-2.9"),
    "perf.D3": (">=", 40, 65, "68-150"),
    "perf.D4/steady": (">=", 8, 12, "11-38"),
    "perf.D5": (">=", 0.60, 0.80, "0.82"),
    "perf.D6/collated": (">=", 2.0, 3.5, "3.9-8"),
    "perf.D7": (">=", 4, 5.5, "5.6-12"),
    "perf.D8": (">=", 8, 12, "12.8-28"),
    "perf.D9": (">=", 1.1, 1.4, "1.4-3.1"),
    "perf.D12/open": ("<=", 0.25, 0.10, "0.03"),
    "perf.D16": ("<=", 0.45, 0.38, "0.38"),
    "perf.M1": ("<=", 64, 16, "5"),
    "perf.M2": ("<=", 64, 8, "-"),
    "perf.M3": ("<=", 8, 3, "-"),
}
"""Sense, floor, target and what was seen before (performance.md 5a, 5h)."""


@dataclass(frozen=True)
class Line:
    """One figure."""

    key: str
    what: str
    value: float | None
    """None where the peer is absent."""
    wall: float | None = None
    cpu: float | None = None
    note: str = ""

    @classmethod
    def of_ratio(cls, key: str, what: str, ratio: Ratio) -> Self:
        """A ratio with both clocks; the gate is the CPU's if the machine was busy."""
        ours, theirs = (statistics.median(c.gb_per_s for c in costs) for costs in (ratio.ours, ratio.theirs))
        cpu = [statistics.median(c.cpu_us for c in costs) for costs in (ratio.ours, ratio.theirs)]
        note = (
            f"{ours:.2f} against {theirs:.2f} GB/s, {cpu[0]:.0f} against {cpu[1]:.0f} CPU µs a row, "
            f"load {max(ratio.loads):.1f}, gate {'CPU' if ratio.busy else 'wall'}"
        )
        return cls(key, what, ratio.gate, ratio.of("wall_us"), ratio.of("cpu_us"), note)

    @property
    def rounded(self) -> float | None:
        """Four digits."""
        return None if self.value is None else float(f"{self.value:.4g}")

    @property
    def verdict(self) -> str:
        """Against the goals."""
        if self.key not in GOALS or self.value is None:
            return "" if self.value is not None else "absent"
        return verdict(self.value, *GOALS[self.key][:3])

    def text(self) -> str:
        """For the terminal."""
        clocks = "" if self.wall is None else f"  wall {self.wall:.3g}  cpu {self.cpu:.3g}"
        value = "     -" if self.value is None else f"{self.value:6.3g}"
        return f"{self.key:20} {value}  {self.verdict:6} {self.what}{clocks}  [{self.note}]"

    def row(self) -> str:
        """For the page."""
        sense, floor, target, seen = GOALS.get(self.key, ("", "", "", ""))
        shown = [_short(x) for x in (self.value, self.wall, self.cpu)]
        limits = [f"{sense} {limit:g}" if isinstance(limit, int | float) else "" for limit in (floor, target)]
        return f"| {' | '.join([self.key, self.what, *shown, *limits, seen, self.verdict, self.note])} |"


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def write_report(path: Path, lines: list[Line], num_rows: int, seconds: float) -> None:
    """The whole page; everything on it comes from this run."""
    missed = [line for line in lines if line.verdict in ("MISSED", "absent")]
    below = [line for line in lines if line.verdict == "floor"]
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "pyarrow", "ray", "datasets"))
    text = f"""# Streaming, measured

`make bench-stream` ({num_rows} rows of 523 kB, {seconds:.0f} s) on {datetime.date.today().isoformat()}, \
{os.cpu_count()} cores ({_processor()}), {packages}.

Ratios are ours over theirs in rows a second, the median of five alternating pairs. Every reader delivers batches of 32
into three rotating preallocated staging buffers; the checksum of every row was compared first, each row exactly once.
Warm page cache. The gate is the ratio of CPU time (process and children) where the load was above the number of cores,
else wall time; both are given. "Opened anew" pays for maps, page faults and, on our side only, the CRC of every page.
Pyarrow and Ray Data read one table in our page layout, unshuffled, which is the best case for them.
Numpy copies 256 MB from memory to memory at {copy_gb_per_s():.1f} GB/s here. No reader that delivers into staging can
be faster for long, so where memory is slow every ratio to a slower peer shrinks.

| goal | peer or measure | figure | wall | CPU | floor | target | seen before | verdict | detail |
|---|---|---|---|---|---|---|---|---|---|
{chr(10).join(line.row() for line in lines)}

Below their floor or absent: {_named(missed)}. At their floor but below their target: {_named(below)}.
"""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def copy_gb_per_s() -> float:
    """Median speed of numpy copying from memory to memory."""
    source, target, found = np.ones(COPY_BYTES, np.uint8), np.ones(COPY_BYTES, np.uint8), []
    for _ in range(5):
        started = time.perf_counter()
        np.copyto(target, source)
        found.append(COPY_BYTES / 1e9 / (time.perf_counter() - started))
    return statistics.median(found)


def _named(lines: list[Line]) -> str:
    return ", ".join(f"{line.key} ({_short(line.value) or line.note})" for line in lines) or "none"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()
