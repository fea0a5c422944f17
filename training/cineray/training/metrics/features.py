"""Correlation, R² and squared error feature by feature, from sums, so that a bootstrap only reweights clips."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Moments", "mse", "pearson", "r2"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """Sums over rows, each (..., features) but ``n``, which is (..., 1); the leading axes are clips or draws."""

    n: Array
    p: Array
    t: Array
    pp: Array
    tt: Array
    pt: Array

    @classmethod
    def of(cls, predicted: NDArray[np.floating], truth: NDArray[np.floating]) -> "Moments":
        """(clips, rows, features) twice to sums per clip.

        Both are centred on the truth's mean over everything, which changes none of the scores and keeps digits.
        """
        centre = np.asarray(truth, np.float64).mean((0, 1))
        p, t = np.asarray(predicted, np.float64) - centre, np.asarray(truth, np.float64) - centre
        n = np.full((len(p), 1), p.shape[1], np.float64)
        return cls(n, p.sum(1), t.sum(1), (p * p).sum(1), (t * t).sum(1), (p * t).sum(1))

    def weighted(self, weights: Array) -> "Moments":
        """Draws of clips: weights (draws, clips) to sums per draw."""
        return Moments(*(weights @ x for x in (self.n, self.p, self.t, self.pp, self.tt, self.pt)))


def pearson(m: Moments) -> Array:
    """Correlation over rows; 0 where the prediction or the truth is constant."""
    covariance = m.n * m.pt - m.p * m.t
    vp, vt = m.n * m.pp - m.p**2, m.n * m.tt - m.t**2
    tiny_p, tiny_t = 1e-12 * m.n * m.pp, 1e-12 * m.n * m.tt
    moving = (vp > tiny_p) & (vt > tiny_t)
    return np.divide(covariance, np.sqrt(np.where(moving, vp * vt, 1.0)), out=np.zeros_like(covariance), where=moving)


def r2(m: Moments) -> Array:
    """1 - SSE / SST: 0 for a constant at the truth's mean, negative for worse; 0 where the truth is constant.

    SST stays around the mean over *all* clips (the centre of `Moments`): around each draw's own mean it would shrink
    and push every interval below the estimate.
    """
    error = m.pp - 2 * m.pt + m.tt
    return 1 - np.divide(error, m.tt, out=np.ones_like(error), where=m.tt > 0)


def mse(m: Moments) -> Array:
    """Mean squared error."""
    return (m.pp - 2 * m.pt + m.tt) / np.maximum(m.n, 1)


def mean_variance(m: Moments) -> Array:
    """The truth's variance: the squared error of a constant at its mean, the chance level of `mse`."""
    return m.tt / np.maximum(m.n, 1) - (m.t / np.maximum(m.n, 1)) ** 2
