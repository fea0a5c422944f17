"""Motion: optical flow of both videos, compared."""

import itertools

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["endpoint_error", "farneback", "flow_cosine"]

Flow = NDArray[np.floating]
"""(frames - 1, height, width, 2), pixels to the right and down per frame step."""

MOVING_PX = 1.0
"""Below this true displacement a direction says nothing."""


def farneback(video: NDArray[np.floating], *, swapped: bool = False) -> NDArray[np.float16]:
    """Dense flow between neighbouring frames (Farnebäck 2003; settings of Mind-Animator's EPE).

    Args:
        video: (frames, height, width, 3), sRGB, 0 to 255.
        swapped: weigh red as blue and blue as red, as the published code does.
    """
    code = cv2.COLOR_BGR2GRAY if swapped else cv2.COLOR_RGB2GRAY
    grey = [cv2.cvtColor(np.rint(frame).astype(np.uint8), code) for frame in video]
    empty = np.zeros((*video.shape[1:3], 2), np.float32)
    steps = [
        cv2.calcOpticalFlowFarneback(one, two, empty.copy(), 0.5, 3, 15, 3, 5, 1.2, 0)
        for one, two in itertools.pairwise(grey)
    ]
    return np.stack(steps).astype(np.float16)


def endpoint_error(predicted: Flow, truth: Flow) -> float:
    """Mean length of the difference of the two flows, in their unit; of a still prediction: the mean true speed."""
    dx, dy = np.moveaxis(predicted.astype(np.float32) - truth.astype(np.float32), -1, 0)
    return float(np.hypot(dx, dy).mean())


def flow_cosine(predicted: Flow, truth: Flow) -> float:
    """Mean cosine between the flows where the true one exceeds one pixel per step; NaN where nothing moves so far.

    A still prediction has no direction: its cosine is 0.
    """
    length = np.hypot(*np.moveaxis(truth.astype(np.float32), -1, 0))
    moving = length > MOVING_PX
    if not moving.any():
        return float("nan")
    p, t = predicted[moving].astype(np.float32), truth[moving].astype(np.float32)
    scale = np.hypot(p[:, 0], p[:, 1]) * length[moving]
    return float(np.divide((p * t).sum(1), scale, out=np.zeros_like(scale), where=scale > 0).mean())
