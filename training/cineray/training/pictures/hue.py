"""Agreement of colours."""

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["hue", "hue_animator"]

Video = NDArray[np.floating]
"""(frames, height, width, 3), sRGB, 0 to 255."""


def hue(predicted: Video, truth: Video) -> float:
    """Circular correlation of hue (Jammalamadaka and SenGupta 2001, eq. 8.2.2), pixels weighted by saturation.

    The weight is the product of the two saturations: what is grey on either side has no hue. Turning all colours by
    one angle leaves it at 1, colours that have nothing to do with each other give 0. 0 where one side has no variation
    of hue, NaN for a truth without colour. All frames of a clip are taken together.
    """
    (angle, saturation), (true_angle, true_saturation) = (_hue_and_saturation(x) for x in (predicted, truth))
    if not (true_saturation > 0).any():
        return float("nan")
    w = saturation * true_saturation
    x, y = (_off_mean(a, w) for a in (angle, true_angle))
    scale = np.sqrt((w * x * x).sum() * (w * y * y).sum())
    return float((w * x * y).sum() / scale) if scale > 1e-9 * w.sum() else 0.0


def hue_animator(predicted: Video, truth: Video) -> float:
    """Legacy ``hue@animator``: cosine (not correlation) of OpenCV's hue, red and blue exchanged; mean over frames.

    The published "Hue-pcc" passes RGB frames to a conversion that expects BGR. Hue is an angle and never negative here,
    so that unrelated photographs reach .93.
    """
    values = []
    for frames in zip(predicted, truth, strict=True):
        x, y = (cv2.cvtColor(np.rint(f).astype(np.uint8), cv2.COLOR_BGR2HSV)[..., 0].astype(float) for f in frames)
        scale = np.sqrt((x * x).sum() * (y * y).sum())
        values.append((x * y).sum() / scale if scale > 0 else 0.0)
    return float(np.mean(values))


def _off_mean(angle: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sine of the angle from the weighted circular mean."""
    sine, cosine = np.sin(angle), np.cos(angle)
    mean = np.arctan2((weight * sine).sum(), (weight * cosine).sum())
    return sine * np.cos(mean) - cosine * np.sin(mean)


def _hue_and_saturation(video: Video) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Radians, and 0 to 1, of every pixel (HSV)."""
    columns = np.ascontiguousarray(video, np.float32).reshape(1, -1, 3) / 255
    degrees, saturation, _ = np.moveaxis(cv2.cvtColor(columns, cv2.COLOR_RGB2HSV).astype(np.float64)[0], -1, 0)
    return np.deg2rad(degrees), saturation
