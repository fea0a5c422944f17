"""What the training benchmark measures in and beside plain processes: whole steps, the optimiser, checkpointing."""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from benchmarks import bench_training_child as child
from benchmarks import bench_training_data as data
from benchmarks.bench_stream_measure import PAIRS, Cost, Ratio
from benchmarks.bench_training_race import Runner
from benchmarks.bench_training_report import Line

from cineray.training.models.base import Sizes, subject_of
from cineray.training.models.semantic import SemanticDecoder

FAST = {"strategy.precision": "bf16"}


def strategy(ranks: int) -> dict[str, str]:
    """Plain on one worker, else DDP."""
    return {"strategy.name": "ddp" if ranks > 1 else "plain"}


def dataset(folder: Path) -> Path:
    """The data set, made once."""
    return folder / "data" if (folder / "data").exists() else data.make_data(folder / "data")


def runner(folder: Path, kind: str, name: str, ranks: int = 1, /, **settings: object) -> Runner:
    """Children that train, their warm-up lap done."""
    own = folder / name
    own.mkdir()
    where = dataset(folder)
    return Runner(name, own, lambda address: child.start(kind, address, where, own, ranks=ranks, **settings), ranks)


def race(*runners: Runner) -> Callable[[Runner, Runner], Ratio]:
    """Laps in turn, ABCABC ..., then everybody runs to the end; what gives the ratio of two of them."""
    costs: dict[str, list[Cost]] = {each.name: [] for each in runners}
    loads: list[float] = []
    for _ in range(PAIRS):
        for each in runners:
            costs[each.name].append(each.lap())
        loads.append(os.getloadavg()[0])
    for each in runners:
        each.finish()
    return lambda ours, theirs: Ratio(costs[ours.name], costs[theirs.name], loads)


def steps(folder: Path) -> Iterator[Line]:
    """T1, T8 and T11, plain and on two ranks of DDP."""
    for ranks in (1, 2):
        yield from _steps(folder, ranks)


def _steps(folder: Path, ranks: int) -> Iterator[Line]:
    manner, who = ("ddp", "DDP on two ranks, both sides") if ranks > 1 else ("plain", "one process")

    def started(kind: str, name: str, **settings: object) -> Runner:
        return runner(folder, kind, f"{name}_{manner}", ranks, **settings)

    ours = started("ours", "ours", **FAST, **strategy(ranks))
    ours_fp32 = started("ours", "ours_fp32", **strategy(ranks))
    theirs = started("peer", "theirs")
    theirs_bf16 = started("peer", "theirs_bf16", bf16=True)
    between = race(ours, theirs, ours_fp32, theirs_bf16)

    def line(key: str, what: str, mine: Runner, other: Runner) -> Line:
        return Line.of_ratio(f"perf.T1/{key}", what, between(mine, other), rows=data.BATCH)

    yield line(manner, f"our loop (bf16, fused AdamW) / peer (fp32, foreach AdamW), {who}, samples/s", ours, theirs)
    yield line(f"{manner}_both_fp32", "the same, ours in fp32, too", ours_fp32, theirs)
    yield line(f"{manner}_both_bf16", "the same, the peer under bf16 autocast, too", ours, theirs_bf16)
    waits, waits_fp32 = (statistics.median(each.waits) for each in (ours, ours_fp32))
    note = f"ours in bf16, wall, the slowest rank, median of {len(ours.waits)} laps; in fp32 {waits_fp32:.2g}"
    yield Line(f"perf.T8/{manner}", f"share of a step in which our loop waits for its stream, {who}", waits, note)
    apart = max(abs(a / b - 1) for a, b in zip(ours_fp32.losses, theirs.losses, strict=True))
    fell = f"loss from {theirs.losses[0]:.3f} to {theirs.losses[-1]:.3f}"
    note = f"{len(theirs.losses)} steps through BiMixCo and SoftCLIP, {fell}"
    yield Line(f"perf.T11/{manner}", f"largest relative difference of a loss, ours in fp32 / peer, {who}", apart, note)


def optimizer(folder: Path) -> Iterator[Line]:
    """T4, on the reconstructor's parameters."""
    run = data.make_run(folder)
    model = model_of()
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    mine = run.optim.build(model, subject_of)
    theirs = torch.optim.AdamW(model.parameters(), lr=3e-4, foreach=True)

    def ours() -> None:
        mine.prepare(3e-4, ())
        mine.step()

    note = f"{sum(p.numel() for p in model.parameters()) / 1e6:.0f} million parameters"
    found = alternate(ours, lambda: theirs.step(), repeats=5)
    yield Line.of_ratio("perf.T4", f"AdamW step, {note}: SubjectAdamW (fused) / foreach", found)


def model_of() -> SemanticDecoder:
    """The reconstructor that is trained everywhere here."""
    sizes = Sizes(data.VOXELS, 1, {"clip_tokens": (data.TOKENS, data.WIDTH), "clip_text": (data.WIDTH,)})
    model = data.make_run(Path()).model.build(sizes)
    assert isinstance(model, SemanticDecoder)
    return model


def alternate(ours: Callable[[], object], theirs: Callable[[], object], *, repeats: int = 1) -> Ratio:
    """ABAB ..., each some times in a row, both warmed up."""

    def cost(work: Callable[[], object]) -> Cost:
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        for _ in range(repeats):
            work()
        return Cost(repeats, time.perf_counter() - wall_s, time.process_time() - cpu_s)

    ratio = Ratio()
    for work in (ours, theirs):
        work()
    for _ in range(PAIRS):
        ratio.ours.append(cost(ours))
        ratio.theirs.append(cost(theirs))
        ratio.loads.append(os.getloadavg()[0])
    return ratio
