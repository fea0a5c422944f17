"""A picture set in motion by a coarse flow."""

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["dense_flow", "displaced"]

Flow = NDArray[np.float32]

EMPTY = 1e-9
"""Slower than this, in frame widths per frame step, is no motion."""


def dense_flow(flow: Flow, num_frames: int, height: int, width: int, faint: float) -> Flow:
    """A coarse flow for every pixel and frame step: (num_frames - 1, height, width, 2), pixels per frame step.

    Args:
        flow: (stretches, places, places, 2), shares of the frame's width and height per frame step, of equal stretches
            of the clip (`cineray.datasets.encoders.motion`).
        faint: slower than this, in the same unit, nothing moves, and the faster something is the less it loses
            (non-negative garrote, Gao 1998, doi:10.1080/10618600.1998.10474789): what noise there is in a decoded flow
            is everywhere, what moves is not.
    """
    speed = np.linalg.norm(flow, axis=-1, keepdims=True)
    kept = flow * np.maximum(0, 1 - (faint / np.maximum(speed, EMPTY)) ** 2)
    fine = [cv2.resize(step, (width, height), interpolation=cv2.INTER_LINEAR) for step in kept.astype(np.float32)]
    steps = np.array_split(np.arange(num_frames - 1), len(flow))
    dense = np.concatenate([np.repeat(f[None], len(s), 0) for f, s in zip(fine, steps, strict=True)])
    return dense * np.array([width, height], np.float32)


def displaced(picture: NDArray[np.uint8], flow: Flow, at: int) -> NDArray[np.uint8]:
    """The picture (height, width, 3) as frame ``at`` of a video that moves by ``flow``: (frames, height, width, 3).

    A pixel of another frame is looked up where the summed flow says that it came from, bilinearly; what comes in over
    the edge repeats it.
    """
    height, width = picture.shape[:2]
    way = np.concatenate([np.zeros_like(flow[:1]), np.cumsum(flow, 0)])
    y, x = np.mgrid[:height, :width].astype(np.float32)
    from_x, from_y = ((grid - (way - way[at])[..., axis]).astype(np.float32) for axis, grid in ((0, x), (1, y)))
    video: NDArray[np.uint8] = np.empty((len(way), *picture.shape), np.uint8)
    for frame, (left, top) in enumerate(zip(from_x, from_y, strict=True)):
        video[frame] = cv2.remap(picture, left, top, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return video
