"""Correlation of pixels."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["pixcorr"]


def pixcorr(predicted: NDArray[np.floating], truth: NDArray[np.floating]) -> float:
    """Pearson over all red, green and blue values of a frame, mean over frames; 0 where one side is constant.

    MindEye2 computes it at 425 x 425.
    """
    x, y = (np.asarray(v, np.float64).reshape(len(v), -1) for v in (predicted, truth))
    x, y = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    scale = np.sqrt((x**2).sum(1) * (y**2).sum(1))
    # A constant picture leaves rounding errors behind; below this spread there is nothing to correlate.
    flat = scale <= 1e-6 * x.shape[1]
    return float(np.where(flat, 0.0, (x * y).sum(1) / np.where(flat, 1.0, scale)).mean())
