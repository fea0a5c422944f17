"""Lines of the training benchmark: floors, targets, and the page in docs/results."""

import datetime
import os
import statistics
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Self

from benchmarks.bench_stream_measure import Ratio
from benchmarks.goals import verdict

GOALS: dict[str, tuple[str, float, float]] = {
    "perf.T1/plain": (">=", 1.8, 2.5),
    "perf.T1/ddp": (">=", 1.8, 2.5),
    "perf.T4": (">=", 3, 5),
    "perf.T5/memory": ("<=", 0.15, 0.08),
    "perf.T5/time": ("<=", 1.3, 1.0),
    "perf.T6": ("<=", 1.2, 1.05),
    "perf.T7/activations": ("<=", 0.30, 0.20),
    "perf.T7/time": ("<=", 1.35, 1.2),
    "perf.T8/plain": ("<=", 0.05, 0.01),
    "perf.T8/ddp": ("<=", 0.05, 0.01),
    "perf.T9/plain": (">=", 0.95, 0.98),
    "perf.T9/ddp": (">=", 0.95, 0.98),
    "perf.T10": (">=", 0.80, 0.95),
    "perf.T11/plain": ("<=", 1e-3, 1e-3),
    "perf.T11/ddp": ("<=", 1e-3, 1e-3),
}
"""Sense, floor and target."""


@dataclass(frozen=True)
class Line:
    """One figure."""

    key: str
    what: str
    value: float
    note: str
    wall: float | None = None
    cpu: float | None = None

    @classmethod
    def of_ratio(
        cls, key: str, what: str, ratio: Ratio, *, unit: str = "step", rows: int = 1, time: bool = False
    ) -> Self:
        """Ours over theirs in speed, or in ``time``; the gate is the CPU's if the machine was busy."""
        wall, cpu = ratio.of("wall_us"), ratio.of("cpu_us")
        sides = [
            " against ".join(
                f"{rows * statistics.median(getattr(c, f'{clock}_us') for c in costs) / 1e3:.4g}"
                for costs in (ratio.ours, ratio.theirs)
            )
            for clock in ("wall", "cpu")
        ]
        note = (
            f"{sides[0]} ms a {unit}, {sides[1]} CPU ms, load {max(ratio.loads):.1f}, "
            f"gate {'CPU' if ratio.busy else 'wall'}"
        )
        wall, cpu = (1 / wall, 1 / cpu) if time else (wall, cpu)
        return cls(key, what, cpu if ratio.busy else wall, note, wall, cpu)

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
        return f"{self.key:26}{self.value:9.3g}  {self.verdict:7}{self.what}  [{self._clocks()}{self.note}]"

    def row(self) -> str:
        """For the page."""
        sense, floor, target = GOALS.get(self.key, ("", "", ""))
        limits = [f"{sense} {limit:g}" if isinstance(limit, int | float) else "" for limit in (floor, target)]
        clocks = ["" if x is None else f"{x:.3g}" for x in (self.wall, self.cpu)]
        return (
            f"| {' | '.join([self.key, self.what, f'{self.value:.3g}', *clocks, *limits, self.verdict, self.note])} |"
        )

    def _clocks(self) -> str:
        return "" if self.wall is None else f"wall {self.wall:.3g}, CPU {self.cpu:.3g}; "


def write_report(path: Path, lines: list[Line], seconds: float) -> None:
    """The whole page; everything on it comes from this run."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "ray", "deepspeed"))
    missed = ", ".join(f"{line.key} ({line.value:.3g})" for line in lines if line.verdict == "MISSED") or "none"
    below = ", ".join(f"{line.key} ({line.value:.3g})" for line in lines if line.verdict == "floor") or "none"
    text = f"""# Training, measured

`make bench-training` ({seconds:.0f} s) on {datetime.date.today().isoformat()}, {os.cpu_count()} cores, no GPU, \
{packages}.

The semantic reconstructor of NeuroClips with all widths divided by four: four subjects of 3170 to 3931 voxels, 1024
units, 64 x 192 tokens and the caption's embedding, 27 million parameters, 64 rows a step, BiMixCo, then SoftCLIP, text
InfoNCE. Ours is the real loop (`cineray.training.loop.train`) with its stream, in a process of its own. The peer is a
loop as MindEye2 and NeuroClips write it, in plain torch: targets precomputed, all rows preloaded in memory as scaled
fp32, subjects looped over (padding them costs more), whole N x N matrices, no clipping, foreach AdamW, fp32; where the
line says so, bf16 autocast and fused AdamW. Its blends are drawn beforehand. One thread a process on both sides. The
`ddp` lines of T1, T8 and T11 are the same race on two ranks over gloo, 32 rows each: ours with `strategy.name=ddp`, the
peer in torch's DistributedDataParallel with all ranks' rows gathered for its whole matrices, equal rows, blends and
weights on both sides. T9 has both, too. T4 to T7 are measured in one process: every rank of DDP takes the same
optimiser step over all parameters and computes the same layers on its own rows; the loss, whose tiles then go around
the ring of ranks, is in T1. Loops take turns of ten steps, ABAB, after ten to warm up; figures are medians of five
rounds. The gate is CPU time of the training processes where the load was above the number of cores (wall time then
measures the neighbours), else wall time; both are given (of several ranks: the slowest one's wall time, the CPU time of
all). T5 begins with unit vectors; T7 counts each memory once that autograd keeps for the backward pass, weights left
out. Ray's own processes are in T9's wall time only; its workers take memory in huge pages (`launch` says so), the loops
without Ray as torch does by itself. The lines "over ours without Ray" tell Ray's part and that of the pages from our
loop's, which also measures the gradient's norm, sums metrics over ranks and sends columns around the ring. The moments
show what is sharded; at 27 million parameters DeepSpeed's buffers are as large as what it saves.

| goal | measure | figure | wall | CPU | floor | target | verdict | detail |
|---|---|---|---|---|---|---|---|---|
{chr(10).join(line.row() for line in lines)}

Below their floor: {missed}. At their floor but below their target: {below}.
"""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
