"""Fréchet distance between two sets of features (Heusel et al. 2017; on videos Unterthiner et al. 2018, "FVD")."""

import numpy as np
from numpy.typing import NDArray

from cineray.core.errors import DataError

__all__ = ["frechet_distance"]


def frechet_distance(x: NDArray[np.floating], y: NDArray[np.floating]) -> float:
    """(n, dim) and (m, dim) to |mean difference|² + Tr(Cx + Cy - 2 (Cx Cy)^½), sample covariances.

    Tr (Cx Cy)^½ is the sum of the singular values of X Yᵀ (centred, scaled), which the triangular factors of X and Y
    give without a matrix root. Small sets are biased upwards, and values of different networks do not compare.
    """
    if min(len(x), len(y)) < 2 or x.shape[1] != y.shape[1]:
        raise DataError(f"found features {x.shape} and {y.shape}, expected at least 2 rows each of equal length")
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    offset = ((x.mean(0) - y.mean(0)) ** 2).sum()
    a, b = ((v - v.mean(0)) / np.sqrt(len(v) - 1) for v in (x, y))
    ra, rb = (np.linalg.qr(v, mode="r") for v in (a, b))
    shared = np.linalg.svd(ra @ rb.T, compute_uv=False).sum()
    return float(max(0.0, offset + (a**2).sum() + (b**2).sum() - 2 * shared))
