"""Ridge regression on the single scans of all the others together, with or without the person's own.

Sums over rows of x'x and y'x are kept per person, so one pass serves every choice of whom to leave out: the map of a
person is a ridge regression on everybody's rows with row weights, 1 / (number of others) for those of the others and
``own`` for the person's.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cineray.core.config import Config
from cineray.core.errors import DataError
from cineray.training.models.base import Sizes, Trial
from cineray.training.models.group import Moments
from cineray.training.models.linear import LinearDecoder, flat_brain, flat_targets

__all__ = ["PooledRidgeConfig", "PooledRidgeDecoder", "moments_with_bias", "pooled", "solve_pooled"]

Array = NDArray[np.floating]


class PooledRidgeConfig(Config):
    """Settings of the pooled ridge."""

    name: Literal["pooled_ridge"] = "pooled_ridge"
    penalty: float = Field(default=3000.0, gt=0)
    """That of a regression on the scans of one person: the rows of all others together weigh as much as one's."""
    own: float = Field(default=0.0, ge=0)
    """Weight of the person's own rows. 0: nothing of the person is used; 1: as much as all the others together."""

    def build(self, sizes: Sizes) -> "PooledRidgeDecoder":
        """One map per subject, still unsolved; voxels must mean the same in everybody (parcels)."""
        if len(set(sizes.voxels.values())) > 1:
            found = ", ".join(f"{s} {v}" for s, v in list(sizes.voxels.items())[:4])
            raise DataError(f"pooled_ridge pools brains voxel by voxel, found {found}; use parcels or model.name=srm")
        return PooledRidgeDecoder(self, sizes)


class PooledRidgeDecoder(LinearDecoder):
    """A subject without training rows uses the rows of all who have some, unless own rows are asked for."""

    advice = "train on scans of this subject, or set model.own=0"

    def __init__(self, config: PooledRidgeConfig, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.config, self.subjects = config, list(sizes.voxels)

    def fit(self, trials: Iterable[Trial]) -> None:
        """One regression per subject, on rows that need not be aligned."""
        moments = {t.subject: moments_with_bias(flat_brain(t), flat_targets(t, self.shapes)) for t in trials}
        for subject in self.subjects:
            if self.config.own == 0 or subject in moments:
                weights, bias = solve_pooled(pooled(moments, subject, self.config.own), self.config.penalty)
                self.map_of(subject).solve(weights.T, bias)


def moments_with_bias(brain: Array, target: Array) -> Moments:
    """Sums over rows of (rows, voxels) and (rows, values); the brain has a last column of ones."""
    x = np.column_stack([brain, np.ones(len(brain))]).astype(np.float64)
    return Moments.of(x, target.astype(np.float64))


def pooled(moments: Mapping[str, Moments], subject: str, own: float) -> Moments:
    """Mean over everybody but the subject, plus ``own`` times the subject's."""
    others = [m for s, m in moments.items() if s != subject]
    if not others:
        raise DataError(f"{subject} is the only subject with training rows; pooled_ridge needs at least two")
    xx, yx, yy = (np.mean([getattr(m, part) for m in others], axis=0) for part in ("xx", "yx", "yy"))
    if own == 0:
        return Moments(xx, yx, yy)
    m = moments[subject]
    return Moments(xx + own * m.xx, yx + own * m.yx, yy + own * m.yy)


def solve_pooled(m: Moments, penalty: float) -> tuple[Array, Array]:
    """Weights (voxels, values) and bias (values,) of moments with a column of ones; the bias is not penalised."""
    penalties = np.full(len(m.xx), penalty)
    penalties[-1] = 0.0
    solved = np.linalg.solve(m.xx + np.diag(penalties), m.yx.T)
    return solved[:-1], solved[-1]
