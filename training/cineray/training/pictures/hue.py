"""Agreement of colours."""

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["hue", "hue_animator"]

Video = NDArray[np.floating]
"""(frames, height, width, 3), sRGB, 0 to 255."""


ONE_COLOUR = 1e-3
"""Mean squared sine below which all pixels have one hue (a deviation of 2 degrees: 8-bit edges of one colour)."""


def hue(predicted: Video, truth: Video) -> float:
    """Circular correlation of hue (Jammalamadaka and SenGupta 2001, eq. 8.2.2), pixels weighted by saturation.

    The weight is the product of the two saturations: what is grey on either side has no hue. Turning all colours by
    one angle leaves it at 1, colours that have nothing to do with each other give 0; so does a prediction of one hue.
    NaN for a truth without colour or of one hue. All frames of a clip are taken together.
    """
    (angle, saturation), (true_angle, true_saturation) = (_hue_and_saturation(x) for x in (predicted, truth))
    coloured = true_saturation > 0
    own = true_saturation[coloured]
    if not len(own) or _spread(_off_mean(true_angle[coloured], own), own) < ONE_COLOUR:
        return float("nan")
    w = (saturation * true_saturation)[coloured]
    if not w.any():
        return 0.0
    x, y = (_off_mean(a[coloured], w) for a in (angle, true_angle))
    scale = np.sqrt(_spread(x, w) * _spread(y, w))
    return float(np.average(x * y, weights=w) / scale) if scale > ONE_COLOUR else 0.0


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


def _off_mean(angle: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sine of the angle from the weighted circular mean."""
    sine, cosine = np.sin(angle), np.cos(angle)
    mean = np.arctan2(sine @ weight, cosine @ weight)
    return sine * np.cos(mean) - cosine * np.sin(mean)


def _spread(sine: NDArray[np.float32], weight: NDArray[np.float32]) -> float:
    return float(np.average(sine * sine, weights=weight))


def _hue_and_saturation(video: Video) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Radians, and 0 to 1, of every pixel (HSV)."""
    columns = np.ascontiguousarray(video, np.float32).reshape(1, -1, 3) / 255
    hsv = cv2.cvtColor(columns, cv2.COLOR_RGB2HSV)[0]
    return np.deg2rad(hsv[:, 0]), hsv[:, 1]
