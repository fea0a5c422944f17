"""Clips out of rows, and how alike every predicted clip is to every true one."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cineray.core.errors import DataError

__all__ = ["clips_of", "cosine_matrix", "pearson_matrix"]

Array = NDArray[np.floating]


def clips_of(rows: NDArray[Any], length: int) -> NDArray[Any]:
    """(rows, ...) to (clips, length, values): consecutive, not overlapping; the ragged tail is dropped."""
    num = len(rows) // length
    return rows[: num * length].reshape(num, length, -1)


def pearson_matrix(queries: Array, candidates: Array) -> NDArray[np.float64]:
    """(q, ...) and (c, ...) to (q, c): Pearson correlation over the flattened values; 0 where one side is constant."""
    return cosine_matrix(_centred(queries), _centred(candidates))


def cosine_matrix(queries: Array, candidates: Array) -> NDArray[np.float64]:
    """(q, ...) and (c, ...) to (q, c): cosine over the flattened values; 0 where one side is all zeros."""
    a, b = (np.asarray(x, np.float64).reshape(len(x), -1) for x in (queries, candidates))
    if a.shape[1] != b.shape[1]:
        raise DataError(f"predictions have {a.shape[1]} values, truths {b.shape[1]}; give both the same target")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise DataError("found NaN or infinity in predictions or truths, expected numbers; look for a diverged run")
    return _unit(a) @ _unit(b).T


def _centred(x: Array) -> NDArray[np.float64]:
    flat = np.asarray(x, np.float64).reshape(len(x), -1)
    centred = flat - flat.mean(1, keepdims=True)
    # A constant row leaves rounding errors behind; they must not become a correlation.
    floor = 1e-12 * np.abs(flat).max(1, keepdims=True, initial=0.0)
    return np.where(np.abs(centred).max(1, keepdims=True, initial=0.0) <= floor, 0.0, centred)


def _unit(x: NDArray[np.float64]) -> NDArray[np.float64]:
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return np.divide(x, norm, out=np.zeros_like(x), where=norm > 0)
