"""Agreement of yes and no: masks of pictures, and concepts that are shown or not."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Counts", "accuracy", "balanced_accuracy", "dice", "dice_of_all", "half", "recall", "said_rate", "usual"]

Array = NDArray[np.float64]
Marks = NDArray[np.bool_]


def dice(predicted: Marks, truth: Marks) -> Array:
    """(..., values) twice to (...): twice what both mark over the sum of what each marks (Dice 1945).

    1 where neither marks anything, 0 where one of them alone does. NEURONS (arXiv 2503.11167) prints another number:
    its code puts marks of 0 and 1 through a sigmoid once more, so that every pixel counts as marked at least by half.
    """
    both, marked = (predicted & truth).sum(-1), predicted.sum(-1) + truth.sum(-1)
    return np.divide(2.0 * both, marked, out=np.ones(both.shape), where=marked > 0)


def dice_of_all(predicted: Marks, truth: Marks) -> Array:
    """`dice` of marking everything, whatever is predicted: 2 f / (1 + f) where the share f is marked."""
    return dice(np.ones_like(predicted), truth)


class Counts(NamedTuple):
    """Rows by concept, each (..., concepts) but ``n``, which is (..., 1); the leading axes are clips or draws."""

    n: Array
    said: Array
    """Predicted to show it."""
    true: Array
    """Showing it."""
    both: Array

    @classmethod
    def of(cls, predicted: Marks, truth: Marks) -> "Counts":
        """(clips, rows, concepts) twice to counts per clip."""
        n = np.full((len(truth), 1), truth.shape[1], np.float64)
        return cls(n, *(x.sum(1, dtype=np.float64) for x in (predicted, truth, predicted & truth)))

    def weighted(self, weights: Array) -> "Counts":
        """Draws of clips: weights (draws, clips), or (clips,) of one draw, to counts per draw."""
        return Counts(*(weights @ x for x in (self.n, self.said, self.true, self.both)))


def accuracy(c: Counts) -> Array:
    """Share of rows of which it is told right whether the concept is there."""
    return _share(c.n - c.said - c.true + 2 * c.both, c.n)


def usual(c: Counts) -> Array:
    """`accuracy` of always giving the more usual answer, by the base rate: the chance level beside it."""
    return _share(np.maximum(c.true, c.n - c.true), c.n)


def recall(c: Counts) -> Array:
    """Share of the rows with the concept that are told to have it (NEURONS' "accuracy"); NaN where none has it."""
    return _share(c.both, c.true)


def said_rate(c: Counts) -> Array:
    """How often the answer is yes: `recall` of as many answers given blindly. NaN where no row has the concept."""
    return np.where(c.true > 0, _share(c.said, c.n), np.nan)


def balanced_accuracy(c: Counts) -> Array:
    """Mean of the shares told right with and without the concept; NaN where one of the kinds does not occur."""
    return (_share(c.both, c.true) + _share(c.n - c.said - c.true + c.both, c.n - c.true)) / 2


def half(c: Counts) -> Array:
    """The chance level of `balanced_accuracy`."""
    return np.full(np.broadcast_shapes(c.n.shape, c.true.shape), 0.5)


def _share(part: Array, whole: Array) -> Array:
    part, whole = np.broadcast_arrays(part, whole)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
