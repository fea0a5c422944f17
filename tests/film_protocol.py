"""Protocol B on plain arrays: what recipes and run folders are compared with.

Each function gives subject -> predictions (rows, features) on the test film; `score_film` scores any such mapping, a
network's included.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cineray.training.bootstrap import Interval
from cineray.training.models.ridge import fit_ridge
from cineray.training.protocols.segments import standardise
from cineray.training.scores import Part, Score, Scoring, compare, score

__all__ = ["compare_film", "ridge_of_mean_brain", "ridge_unseen", "ridge_within", "score_film"]

Array = NDArray[np.floating]
Brains = Mapping[str, Array]
"""Subject -> (rows, parcels), all on the clock of one film."""


def ridge_within(train: Brains, target: Array, test: Brains, penalty: float = 3000.0) -> dict[str, Array]:
    """Trained and tested on one and the same subject."""
    return {s: _apply(test[s], fit_ridge(train[s], target, penalty)) for s in train}


def ridge_unseen(train: Brains, target: Array, test: Brains, penalty: float = 300.0) -> dict[str, Array]:
    """Trained on the mean of the others (z-scored again: averaging shrinks it), tested on the one left out."""
    total = np.sum(list(train.values()), axis=0)
    mean_of_others = {s: standardise((total - x) / (len(train) - 1)) for s, x in train.items()}
    return {s: _apply(test[s], fit_ridge(x, target, penalty)) for s, x in mean_of_others.items()}


def ridge_of_mean_brain(train: Brains, target: Array, test: Brains, penalty: float = 300.0) -> dict[str, Array]:
    """Trained and tested on the mean of everybody: the head-room that more signal would give."""
    train_mean, test_mean = (standardise(np.mean(list(x.values()), axis=0)) for x in (train, test))
    return {"mean brain": _apply(test_mean, fit_ridge(train_mean, target, penalty))}


def score_film(
    predicted: Mapping[str, Array], truth: Array, *, tr_s: float, film: str = "film", how: Scoring | None = None
) -> dict[str, Score]:
    """All metrics of the predictions on the test film, ``truth`` (rows, features) z-scored over that film."""
    return score(_parts(predicted, truth, tr_s, film), how or Scoring())


def compare_film(
    a: Mapping[str, Array], b: Mapping[str, Array], truth: Array, *, tr_s: float, how: Scoring | None = None
) -> dict[str, Interval]:
    """Metric -> paired interval of ``a`` - ``b`` on one film and the same subjects."""
    return compare(_parts(a, truth, tr_s, "film"), _parts(b, truth, tr_s, "film"), how or Scoring())


def _parts(predicted: Mapping[str, Array], truth: Array, tr_s: float, film: str) -> list[Part]:
    time_s, rows = np.arange(len(truth)) * tr_s, np.arange(len(truth))
    return [Part(s, film, film, time_s, rows, x, truth) for s, x in predicted.items()]


def _apply(brain: Array, solved: tuple[Array, Array]) -> Array:
    weights, bias = solved
    return brain @ weights.T + bias
