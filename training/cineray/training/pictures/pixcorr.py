"""Correlation of pixels."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["pixcorr"]


def pixcorr(predicted: NDArray[np.floating], truth: NDArray[np.floating]) -> float:
    """Pearson over all red, green and blue values of a frame, mean over frames; 0 where one side is constant.

    MindEye2 computes it at 425 x 425.
    """
    return float(np.mean([_pearson(x.ravel(), y.ravel()) for x, y in zip(predicted, truth, strict=True)]))


def _pearson(x: NDArray[np.floating], y: NDArray[np.floating]) -> float:
    x, y = x - x.mean(), y - y.mean()
    scale = np.sqrt(float(x @ x) * float(y @ y))
    # A constant picture leaves rounding errors behind; below this spread there is nothing to correlate.
    return float(x @ y) / scale if scale > 1e-6 * len(x) else 0.0
