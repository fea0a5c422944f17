"""Which of many is the true one? From a matrix of similarities (predictions, truths); ties fail.

``rows`` and ``own`` say which prediction stands beside which truth; several predictions may stand beside one truth
(repeats), and predictions of the same truth are never each other's wrong candidates.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Direction", "Rivals", "num_others", "rivals"]

Index = NDArray[np.int64]
Direction = Literal["image", "brain"]
"""``image``: the prediction searches among truths. ``brain``: the truth searches among predictions."""


class Rivals(NamedTuple):
    """Of each pair."""

    better: Index
    """Wrong candidates at least as similar as the true one."""
    others: Index
    """All wrong candidates."""

    @property
    def two_way(self) -> NDArray[np.float64]:
        """Share of wrong candidates strictly below the true one: two-way identification, chance .5."""
        return 1 - self.better / self.others


def rivals(similarity: NDArray[np.float64], rows: Index, own: Index, pool: Index, direction: Direction) -> Rivals:
    """Count over the wrong candidates of every pair (rows[k], own[k]).

    Args:
        similarity: (predictions, truths).
        rows: (pairs,) prediction of each pair.
        own: (pairs,) truth of each pair.
        pool: the truths that are candidates, among them every ``own``.
        direction: who searches.
    """
    true = similarity[rows, own][:, None]
    if direction == "image":
        values, wrong = similarity[rows][:, pool], pool != own[:, None]
    else:
        values, wrong = similarity[rows][:, own].T, own != own[:, None]
    return Rivals(((values >= true) & wrong).sum(1), wrong.sum(1))


def num_others(own: Index, pool: Index, direction: Direction) -> Index:
    """(pairs,): `Rivals.others`, which takes no similarity to know."""
    candidates = pool if direction == "image" else own
    return (candidates != own[:, None]).sum(1)
