"""Frames into what image networks take: chosen, resized, a few at a time."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cineray.datasets.encoders.base import FrameChoice, chosen

__all__ = ["IMAGES_TOGETHER", "by_frame", "resized"]

IMAGES_TOGETHER = 64
"""Pictures that go through a network at once."""


def by_frame(
    frames: NDArray[np.uint8],
    frame: FrameChoice,
    encode: Callable[[Tensor], Tensor],
    device: torch.device | str,
    *,
    together: int = IMAGES_TOGETHER,
) -> NDArray[np.float16]:
    """(rows, frames, height, width, 3) through ``encode``, which takes uint8 pictures (n, 3, height, width).

    Returns:
        (rows, frames, ...) where every frame is chosen, (rows, ...) where it is one.
    """
    picked = chosen(frames, frame)
    pictures = torch.from_numpy(np.ascontiguousarray(picked.reshape(-1, *picked.shape[2:])))
    with torch.inference_mode():
        parts = [
            encode(part.to(device).permute(0, 3, 1, 2).contiguous()).to(torch.float16).cpu()
            for part in pictures.split(together)
        ]
    found = torch.cat(parts).numpy()
    return found.reshape(*picked.shape[:2], *found.shape[1:]) if frame == "all" else found


def resized(pictures: Tensor, size: int, *, squash: bool = False) -> Tensor:
    """(n, 3, height, width) uint8 to (n, 3, size, size), bicubic with antialiasing, as CLIP prepares its pictures.

    The shorter edge is brought to ``size`` and the centre cut out; ``squash`` brings both edges to it.
    """
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2.functional import center_crop, resize

    edges = [size, size] if squash else [size]
    if pictures.shape[-2:] != (size, size):
        pictures = resize(pictures, edges, InterpolationMode.BICUBIC, antialias=True)
    return center_crop(pictures, [size, size])
