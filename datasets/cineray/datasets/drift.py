"""Slow drift of a run: what it is made of, and its removal."""

import numpy as np
from numpy.typing import NDArray

from cineray.core.errors import DataError

__all__ = ["drift_basis", "remove_drift"]


def drift_basis(
    onset_s: NDArray[np.float64], tr_s: float, order: int | None, high_pass_s: float | None
) -> NDArray[np.float64]:
    """(scans, columns) orthonormal: polynomials up to ``order`` in time and cosines slower than ``high_pass_s``.

    The cosines are the discrete cosine set (DCT-II) with periods ``2 · scans · tr_s / k``, as in SPM. With neither
    asked for there is no column.
    """
    scans = len(onset_s)
    columns = []
    if order is not None:
        columns += list(np.polynomial.legendre.legvander(np.linspace(-1, 1, scans), order).T)
    if high_pass_s is not None:
        highest = int(np.floor(2 * scans * tr_s / high_pass_s))
        grid = (2 * np.arange(scans) + 1) * np.pi / (2 * scans)
        columns += [np.cos(k * grid) for k in range(highest + 1)]
    if not columns:
        return np.empty((scans, 0))
    if len(columns) >= scans:
        raise DataError(
            f"removing {len(columns)} drift terms from {scans} scans leaves nothing; "
            "lower signal.detrend or raise signal.high_pass_s"
        )
    left, size, _ = np.linalg.svd(np.stack(columns, axis=1), full_matrices=False)
    return left[:, size > size[0] * 1e-10]


def remove_drift(brain: NDArray[np.floating], basis: NDArray[np.float64]) -> NDArray[np.float64]:
    """(scans, voxels) less its least-squares fit by the orthonormal ``basis``."""
    brain = np.asarray(brain, np.float64)
    return brain - basis @ (basis.T @ brain) if basis.shape[1] else brain
