"""Bootstrap intervals over subjects and clips at once.

Scores are computed under weights that say how often each clip was drawn; a paired difference is the difference of two
methods' scores under the same weights.
"""

from collections.abc import Hashable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Draws", "Interval", "draw", "interval", "of_values", "weighted_centre"]

Array = NDArray[np.float64]


class Draws(NamedTuple):
    """How often each draw takes each subject and each clip."""

    subjects: Array
    """(draws, subjects)."""
    clips: Array
    """(draws, clips)."""

    @property
    def weights(self) -> Array:
        """(1 + draws, clips): every clip once, which gives the estimate, then the draws."""
        return np.concatenate([np.ones((1, self.clips.shape[1])), self.clips])


class Interval(NamedTuple):
    """An estimate and its 95 % percentile interval."""

    value: float
    low: float
    high: float


def draw(num_subjects: int, blocks: Sequence[Hashable], *, num: int, seed: int) -> Draws:
    """Resample subjects, and independently blocks of clips, both with replacement.

    ``blocks`` names the block of each clip: neighbouring clips (and repeats of one clip) that belong together are
    taken together. Everybody saw the same clips, so a draw takes the same clips for all subjects (crossed design).
    """
    _, block = np.unique([str(b) for b in blocks], return_inverse=True)
    rng = np.random.default_rng(seed)
    subjects = rng.multinomial(num_subjects, np.full(num_subjects, 1 / num_subjects), size=num)
    num_blocks = int(block.max()) + 1
    taken = rng.multinomial(num_blocks, np.full(num_blocks, 1 / num_blocks), size=num)
    return Draws(subjects.astype(np.float64), taken[:, block].astype(np.float64))


def interval(scores: Array, draws: Draws) -> Interval:
    """``scores`` (1 + draws, subjects) under `Draws.weights`; NaN where a draw left a subject nothing."""
    weights = np.where(np.isnan(scores[1:]), 0.0, draws.subjects)
    usable = weights.sum(1) > 0
    means = (weights * np.nan_to_num(scores[1:])).sum(1)[usable] / weights.sum(1)[usable]
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(np.nanmean(scores[0])), float(low), float(high))


def of_values(values: Array, weights: Array, centre: Literal["mean", "median"] = "mean") -> Array:
    """The mean or median of each row of ``values`` (subjects, clips; NaN where absent): (draws, subjects)."""
    return np.stack([weighted_centre(row, weights, centre) for row in values], axis=1)


def weighted_centre(values: Array, weights: Array, centre: Literal["mean", "median"]) -> Array:
    """Values (clips,) and weights (draws, clips) to (draws,); NaN where a draw took none of these clips."""
    present = ~np.isnan(values)
    values, weights = values[present], weights[:, present]
    total = weights.sum(1)
    if centre == "mean":
        return np.divide(weights @ values, total, out=np.full(len(weights), np.nan), where=total > 0)
    order = np.argsort(values)
    running = np.cumsum(weights[:, order], axis=1)
    middle = [np.argmax(side, axis=1) for side in (running >= total[:, None] / 2, running > total[:, None] / 2)]
    median = (values[order][middle[0]] + values[order][middle[1]]) / 2
    return np.where(total > 0, median, np.nan)
