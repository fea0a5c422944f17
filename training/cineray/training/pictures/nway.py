"""N-way top-1 classification: does the classifier see in the reconstruction what it sees in the truth?

The classifier's ``num_accepted`` highest classes of the truth are accepted; against the best of them stand n - 1
classes drawn from the others. Chance is m / (n - 1 + m): 1/n in the strict form (m = 1), 3/(n + 2) in the published one
(m = 3), which is .75 for "2-way" and .058 for "50-way".
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cineray.training.pictures.drawing import miss_all

__all__ = ["nway", "nway_chance", "nway_monte_carlo", "nway_of"]

Logits = NDArray[Any]
"""(pictures, classes)."""


def nway(predicted: Logits, truth: Logits, *, n: int, num_accepted: int = 1) -> NDArray[np.float64]:
    """(pictures,): exact expectation over the drawn classes; ties fail.

    P = C(C-m-b, n-1) / C(C-m, n-1) with b classes, not accepted, that score at least as high as the best accepted.
    """
    best, others = _best_and_others(predicted, truth, num_accepted)
    return miss_all((others >= best[:, None]).sum(1), others.shape[1], n - 1)


def nway_of(predicted: Logits, label: int, *, n: int) -> NDArray[np.float64]:
    """(pictures,): the same with a class that is known, whatever the classifier thinks of the truth."""
    scores = np.asarray(predicted, np.float64)
    others = np.delete(scores, label, axis=1)
    return miss_all((others >= scores[:, [label]]).sum(1), others.shape[1], n - 1)


def nway_monte_carlo(
    predicted: Logits, truth: Logits, *, n: int, num_accepted: int = 3, trials: int = 100, seed: int = 0
) -> NDArray[np.float64]:
    """(pictures,): the published estimate of the same by ``trials`` draws (MinD-Video)."""
    rng = np.random.default_rng(seed)
    best, others = _best_and_others(predicted, truth, num_accepted)
    drawn = np.array([[rng.permutation(others.shape[1])[: n - 1] for _ in range(trials)] for _ in best])
    rivals = np.take_along_axis(others[:, None], drawn, axis=2).max(2)
    return (best[:, None] > rivals).mean(1)


def nway_chance(n: int, num_accepted: int = 1) -> float:
    """Expected value where scores are drawn at random."""
    return num_accepted / (n - 1 + num_accepted)


def _best_and_others(predicted: Logits, truth: Logits, num_accepted: int) -> tuple[Logits, Logits]:
    """Score of the best accepted class (pictures,), and of the classes not accepted (pictures, classes - m)."""
    order = np.argsort(-np.asarray(truth, np.float64), axis=1, kind="stable")
    scores = np.take_along_axis(np.asarray(predicted, np.float64), order, axis=1)
    return scores[:, :num_accepted].max(1), scores[:, num_accepted:]
