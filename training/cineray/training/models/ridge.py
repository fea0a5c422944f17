"""Ridge regression from each subject's own scans to the targets: the baseline of every laboratory."""

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cineray.core.config import Config
from cineray.training.models.base import Sizes, Trial
from cineray.training.models.linear import LinearDecoder, flat_brain, flat_targets

__all__ = ["RidgeConfig", "RidgeDecoder", "choose_penalty", "fit_ridge"]

Array = NDArray[np.floating]

NUM_BLOCKS = 5
"""Blocks that a penalty is chosen on: four fifths of the rows fit, close to what all of them will."""


def fit_ridge(brain: Array, target: Array, penalty: float) -> tuple[Array, Array]:
    """(rows, voxels) and (rows, values) to weights (values, voxels) and bias (values,); the bias is not penalised."""
    from sklearn.linear_model import Ridge  # a second of every worker's start, for one model

    solved = Ridge(alpha=penalty, solver="cholesky").fit(brain, target)
    return np.atleast_2d(solved.coef_), np.atleast_1d(solved.intercept_)


def choose_penalty(brain: Array, target: Array, penalties: Sequence[float]) -> float:
    """The penalty of least squared error when each contiguous block of rows is predicted from the others.

    Blocks, not random rows: neighbouring scans are nearly copies of each other and would reward too weak a penalty.
    """
    if len(penalties) == 1:
        return penalties[0]
    blocks = np.array_split(np.arange(len(brain)), NUM_BLOCKS)
    errors = []
    for penalty in penalties:
        error = 0.0
        for held in blocks:
            kept = np.setdiff1d(np.arange(len(brain)), held)
            weights, bias = fit_ridge(brain[kept], target[kept], penalty)
            error += float(np.square(brain[held] @ weights.T + bias - target[held]).sum())
        errors.append(error)
    return penalties[int(np.argmin(errors))]


class RidgeConfig(Config):
    """Settings of the ridge baseline."""

    name: Literal["ridge"] = "ridge"
    penalties: tuple[float, ...] = Field(default=(3000.0,), min_length=1)
    """One: fixed beforehand. Several: chosen for each subject on contiguous blocks of its training rows."""

    def build(self, sizes: Sizes) -> "RidgeDecoder":
        """One map per subject, still unsolved."""
        return RidgeDecoder(self, sizes)


class RidgeDecoder(LinearDecoder):
    """Solved once from the training rows; a subject without training rows is refused."""

    advice = "train on scans of this subject, or use model.name=mean_of_others"

    def __init__(self, config: RidgeConfig, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.penalties = config.penalties

    def fit(self, trials: Iterable[Trial]) -> None:
        """One regression per subject, all targets at once."""
        for trial in trials:
            brain, target = flat_brain(trial), flat_targets(trial, self.shapes)
            penalty = choose_penalty(brain, target, self.penalties)
            self.map_of(trial.subject).solve(*fit_ridge(brain, target, penalty))
