"""Time-segment matching: does a stretch of one brain's time course find itself in another's?

The usual test of functional alignment (Haxby et al. 2011; Protocol A of docs/results/song.md).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cineray.core.errors import DataError

__all__ = ["SegmentMatch", "match_segments", "window_correlations"]


class SegmentMatch(NamedTuple):
    """One value per window; ``chance`` of top-1 counts the candidates that window really had."""

    top1: NDArray[np.float64]
    percentile: NDArray[np.float64]
    chance: NDArray[np.float64]


def match_segments(query: NDArray[np.floating], template: NDArray[np.floating], window: int) -> SegmentMatch:
    """Windows of ``query`` (rows, features) against all windows of ``template`` at stride 1.

    Wrong windows that overlap the true one in time are excluded. Top-1: the true window is strictly best.
    Percentile: share of wrong windows strictly below it; chance .5.
    """
    r = window_correlations(query, template, window)
    num = len(r)
    near = np.abs(np.subtract.outer(np.arange(num), np.arange(num))) < window
    wrong = (~near).sum(1)
    if not wrong.all():
        raise DataError(
            f"{len(query)} rows leave no window of {window} rows without overlap; use at least {3 * window} rows"
        )
    below = ((r < np.diagonal(r)[:, None]) & ~near).sum(1)
    return SegmentMatch((below == wrong).astype(np.float64), below / wrong, 1 / (wrong + 1))


def window_correlations(a: NDArray[np.floating], b: NDArray[np.floating], window: int) -> NDArray[np.float64]:
    """(rows, features) twice to (rows - window + 1)²: Pearson of every window of ``a`` with every one of ``b``.

    A window's product with another is a sum along a diagonal of the row-by-row product, so running sums along the
    diagonals do the work of a product ``window`` times as large.
    """
    if a.shape != b.shape or len(a) < window:
        raise DataError(f"found {a.shape} and {b.shape}, expected equal shapes of at least {window} rows")
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    values = window * a.shape[1]
    product = _diagonal_windows(a @ b.T, window)
    mean_a, mean_b = (_windows(x.sum(1), window) / values for x in (a, b))
    sd_a, sd_b = (
        np.sqrt(np.maximum(_windows((x**2).sum(1), window) / values - m**2, 0)) for x, m in ((a, mean_a), (b, mean_b))
    )
    scale = np.outer(sd_a, sd_b)
    covariance = product / values - np.outer(mean_a, mean_b)
    return np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 0)


def _windows(x: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Sums of ``window`` consecutive entries."""
    return np.convolve(x, np.ones(window), "valid")


def _diagonal_windows(x: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """out[i, j] = sum over k < window of x[i + k, j + k]."""
    rows, columns = x.shape[0] - window + 1, x.shape[1] - window + 1
    return sum((x[k : k + rows, k : k + columns] for k in range(1, window)), start=x[:rows, :columns].copy())
