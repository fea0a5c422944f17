"""Lines of the benchmark of features: floors, targets, and the page in docs/results."""

import datetime
import os
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.goals import verdict

GOALS: dict[str, tuple[str, float, float]] = {
    "perf.P1/transformer": (">=", 0.80, 0.92),
    "perf.P2/transformer": (">=", 1.1, 1.4),
    "perf.P5/one_actor": ("<=", 1, 1),
    "perf.P5/one_of_two_actors": ("<=", 1, 1),
    "perf.P5/two_actors": ("<=", 1, 1),
    "perf.P6/driver": ("<=", 1.05, 1.05),
    "perf.P6/actor": ("<=", 1.05, 1.05),
    "perf.P6/above_imports": ("<=", 1.05, 1.05),
}
"""Sense, floor and target (performance.md 5e)."""


@dataclass(frozen=True)
class Line:
    """One figure."""

    key: str
    what: str
    value: float
    note: str

    @property
    def rounded(self) -> float:
        """Four digits."""
        return float(f"{self.value:.4g}")

    @property
    def verdict(self) -> str:
        """Against the goals."""
        if self.key not in GOALS:
            return ""
        return verdict(self.value, *GOALS[self.key])

    def text(self) -> str:
        """For the terminal."""
        return f"{self.key:30}{self.value:8.3g}  {self.verdict:7}{self.what}  [{self.note}]"

    def row(self) -> str:
        """For the page."""
        sense, floor, target = GOALS.get(self.key, ("", "", ""))
        limits = [f"{sense} {limit:g}" if isinstance(limit, int | float) else "" for limit in (floor, target)]
        return f"| {' | '.join([self.key, self.what, f'{self.value:.3g}', *limits, self.verdict, self.note])} |"


def write_report(path: Path, lines: list[Line], seconds: float) -> None:
    """The whole page; everything on it comes from this run."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "pyarrow", "ray"))
    missed = ", ".join(f"{line.key} ({line.value:.3g})" for line in lines if line.verdict == "MISSED") or "none"
    text = f"""# Features, measured

`make bench-features` ({seconds:.0f} s) on {datetime.date.today().isoformat()}, {os.cpu_count()} cores, no GPU, \
{packages}.

1024 clips of 8 frames of 128 x 128 (393 kB each), one actor, one thread. The transformer is CLIP's image tower with
6 layers of width 192 and random weights, stored and loaded as the real one is, on the middle frame; `pool` reads every
frame and needs almost no arithmetic, so it shows what moving the data costs. Medians of three alternating pairs; the
gate is CPU time where the load was above the number of cores (wall time then measures the neighbours), else wall time.
P1 counts from the first finished row group to the last, and the CPU time of the actor; the bare encoder is an actor,
too. P2 counts whole jobs, start of the actors included, and the CPU time of every process on both sides. The peer reads
the same frames as fixed-shape tensors in plain Parquet, its best case. No job is faster than its encoder: what P1 is
above 1, is the machine's noise.

P5 counts row groups that were begun and not recorded when SIGKILL came, never divided by the number of actors: each
actor loses the one in its work, so two actors killed at one moment lose two. P6 is a job of `pool` on Ray with two
actors: anonymous memory (RssAnon) of the driver and of the actor that held most, looked at every 5 ms from its start
to the published manifest, as a whole, which is what the goal says, and both together above what they held when
everything was imported and no clip read. Ray's own processes (raylet, GCS) and the object store, which is shared
memory, are not counted.

| goal | measure | figure | floor | target | verdict | detail |
|---|---|---|---|---|---|---|
{chr(10).join(line.row() for line in lines)}

Below their floor: {missed}.
"""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
