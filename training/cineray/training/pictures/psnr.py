"""Peak signal-to-noise ratio."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["CAP_DB", "psnr"]

CAP_DB = 100.0
"""Of equal frames, whose ratio is infinite (Mind-Animator's convention)."""


def psnr(predicted: NDArray[np.floating], truth: NDArray[np.floating]) -> float:
    """(frames, height, width, 3) on the scale 0 to 255, rounded to whole values: dB, mean over frames."""
    error = (np.rint(predicted) - np.rint(truth)).astype(np.float64)
    mse = (error**2).mean((1, 2, 3))
    with np.errstate(divide="ignore"):
        return float(np.minimum(10 * np.log10(255.0**2 / mse), CAP_DB).mean())
