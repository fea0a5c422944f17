"""Structural similarity (Wang et al. 2004), K1 = .01, K2 = .03, in the three definitions that are in use.

Published values do not compare across them: `ssim_columns` lies .12 to .16 above `ssim_rgb` on unrelated photographs.
Frames are on the scale 0 to 255; borders that the window does not fill are left out.
"""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["LUMINANCE", "ssim", "ssim_columns", "ssim_rgb"]

Video = NDArray[np.floating]
"""(frames, height, width, 3), 0 to 255."""

LUMINANCE = np.array([0.2125, 0.7154, 0.0721])
"""Of red, green, blue (Rec. 709), as scikit-image's ``rgb2gray``."""
RADIUS, SIGMA = 5, 1.5
BOX = 7


def ssim(predicted: Video, truth: Video) -> float:
    """Luminance, two-dimensional Gaussian window of 1.5 px, population covariance; mean over frames."""
    return _mean(predicted @ LUMINANCE, truth @ LUMINANCE, _gaussian, (RADIUS, RADIUS), 1.0)


def ssim_columns(predicted: Video, truth: Video) -> float:
    """Legacy ``ssim@columns``: a grey picture whose last axis is taken for channels, so along single columns.

    What ``multichannel=True`` on grey pictures does in scikit-image up to 0.19 (Brain-Diffuser, NEURONS).
    """
    return _mean(predicted @ LUMINANCE, truth @ LUMINANCE, _down_columns, (RADIUS, 0), 1.0)


def ssim_rgb(predicted: Video, truth: Video) -> float:
    """Legacy ``ssim@rgb``: each colour, uniform window of 7 px, sample covariance (MinD-Video, Mind-Animator)."""
    size = BOX * BOX
    return _mean(np.asarray(predicted, float), np.asarray(truth, float), _box, (BOX // 2, BOX // 2), size / (size - 1))


def _mean(x: Any, y: Any, blur: Callable[[Any], Any], border: tuple[int, int], unbiased: float) -> float:
    inside = tuple(slice(b, -b or None) for b in border)
    return float(np.mean([_map(a, b, blur, unbiased)[inside].mean() for a, b in zip(x, y, strict=True)]))


def _map(x: Any, y: Any, blur: Callable[[Any], Any], unbiased: float) -> NDArray[np.float64]:
    """Similarity of two pictures (height, width) or (height, width, 3) at every pixel."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mx, my = blur(x), blur(y)
    vx, vy, cov = (unbiased * (blur(a) - b) for a, b in ((x * x, mx * mx), (y * y, my * my), (x * y, mx * my)))
    return (2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))


_KERNEL = np.exp(-0.5 * (np.arange(-RADIUS, RADIUS + 1) / SIGMA) ** 2)
_KERNEL /= _KERNEL.sum()


def _gaussian(x: Any) -> Any:
    return cv2.sepFilter2D(x, cv2.CV_64F, _KERNEL, _KERNEL, borderType=cv2.BORDER_REFLECT)


def _down_columns(x: Any) -> Any:
    return cv2.sepFilter2D(x, cv2.CV_64F, np.ones(1), _KERNEL, borderType=cv2.BORDER_REFLECT)


def _box(x: Any) -> Any:
    return cv2.boxFilter(x, cv2.CV_64F, (BOX, BOX), borderType=cv2.BORDER_REFLECT)
