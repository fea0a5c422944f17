"""Figures of the three claims, with intervals over seeds, subjects and clips.

A seed has films and brains of its own. Each draw of the bootstrap takes seeds with replacement and, inside every seed,
subjects and blocks of clips (`cineray.training.bootstrap.draw`); two methods are compared under the same draws.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from benchmarks.results_synthetic_runs import Plan, Scored, Seed, scored
from numpy.typing import NDArray

from cineray.training.bootstrap import Interval, draw, interval, of_values
from cineray.training.run import Run

__all__ = ["CHANCE", "figures", "over_seeds"]

Array = NDArray[np.float64]

CHANCE = 1 / 50
SHARE = 0.9
"""Of the ceiling, which the shared model should reach."""
NUM_DRAWS = 2000


def over_seeds(values: Sequence[Array], blocks: Sequence[tuple[str, int]], num: int = NUM_DRAWS) -> Interval:
    """Mean of (subjects, clips) of each seed and its interval."""
    columns = []
    for number, own in enumerate(values):
        draws = draw(len(own), blocks, num=num, seed=number)
        weights = np.concatenate([np.ones((1, len(own))), draws.subjects])
        columns.append((of_values(own, draws.weights) * weights).sum(1) / weights.sum(1))
    return interval(np.stack(columns, axis=1), draw(len(values), [0], num=num, seed=len(values)))


def figures(plan: Plan) -> dict[str, Any]:
    """Everything that the page and the last line tell, out of finished runs."""
    seeds = [Seed(plan, seed) for seed in plan.seeds]
    whole = [scored(seed.folder(seed.shared())) for seed in seeds]
    blocks = whole[0].blocks
    return {
        "chance": CHANCE,
        "null": float(np.mean([run.null.mean() for run in whole])),
        "a": _claim_a(seeds, whole, blocks),
        "b": {f"{m:g}": _claim_b(seeds, m, blocks) for m, _ in plan.together},
        "c": {f"{m:g}": _claim_c(seeds, m, blocks) for m in plan.few},
    }


def _claim_a(seeds: Sequence[Seed], whole: Sequence[Scored], blocks: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """The shared model beside the ceiling."""
    values = [run.of(seed.known) for seed, run in zip(seeds, whole, strict=True)]
    ceilings = [np.array([seed.ceiling()[s] for s in seed.known]) for seed in seeds]
    ridge = [scored(seed.folder(seed.ridge())).of(seed.known) for seed in seeds]
    above = over_seeds([v - SHARE * c[:, None] for v, c in zip(values, ceilings, strict=True)], blocks)
    ratios = [float(v.mean() / c.mean()) for v, c in zip(values, ceilings, strict=True)]
    return {
        **_line("shared", values, blocks),
        **_line("ridge", ridge, blocks),
        "ceiling": float(np.mean([c.mean() for c in ceilings])),
        "ceiling_seeds": [float(c.mean()) for c in ceilings],
        "share_of_ceiling": float(np.mean([v.mean() for v in values]) / np.mean([c.mean() for c in ceilings])),
        "share_of_ceiling_seeds": ratios,
        "above_share_ci": [above.low, above.high],
        "met": above.value >= 0,
    }


def _claim_b(seeds: Sequence[Seed], minutes: float, blocks: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """A few minutes of a whole crowd, or of each subject alone."""
    together = [scored(seed.folder(seed.together(minutes))).of(seed.crowd.subjects) for seed in seeds]
    found = _compared("together", together, seeds, minutes, blocks, lambda seed: seed.crowd.subjects)
    return {"num_subjects": seeds[0].many(minutes).num_subjects} | found


def _claim_c(seeds: Sequence[Seed], minutes: float, blocks: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """A few minutes of somebody new, joining the shared model or alone."""
    adapted = [_stacked(seed, [seed.adapt(s, minutes) for s in seed.new]) for seed in seeds]
    return _compared("adapted", adapted, seeds, minutes, blocks, lambda seed: seed.new)


def _compared(
    name: str,
    ours: Sequence[Array],
    seeds: Sequence[Seed],
    minutes: float,
    blocks: Sequence[tuple[str, int]],
    who: Callable[[Seed], list[str]],
) -> dict[str, Any]:
    """Beside what has nothing but the same minutes of the same subjects, ``who``."""
    scratch = [_stacked(seed, [seed.scratch(s, minutes) for s in who(seed)]) for seed in seeds]
    ridge = [scored(seed.folder(seed.ridge_alone(minutes))).of(who(seed)) for seed in seeds]
    found: dict[str, Any] = {}
    for label, theirs in (("scratch", scratch), ("ridge", ridge)):
        gain = over_seeds([a - b for a, b in zip(ours, theirs, strict=True)], blocks)
        found |= {f"minus_{label}": gain.value, f"minus_{label}_ci": [gain.low, gain.high]}
    lines = {**_line(name, ours, blocks), **_line("scratch", scratch, blocks), **_line("ridge", ridge, blocks)}
    return {**lines, **found, "met": found["minus_scratch_ci"][0] > 0}


def _stacked(seed: Seed, runs: Sequence[Run]) -> Array:
    """(subjects, clips) of runs of one subject each."""
    return np.concatenate([scored(seed.folder(run)).values for run in runs])


def _line(name: str, values: Sequence[Array], blocks: Sequence[tuple[str, int]]) -> dict[str, Any]:
    mean = over_seeds(values, blocks)
    return {name: mean.value, f"{name}_ci": [mean.low, mean.high], f"{name}_seeds": [float(v.mean()) for v in values]}
