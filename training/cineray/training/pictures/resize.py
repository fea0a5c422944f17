"""Size and timing: every metric states the pixels and the frames it compares, since both are part of its value."""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from cineray.core.config import Config

__all__ = ["FrameRule", "resized"]


class FrameRule(Config):
    """Which frames of a clip are compared: ``fps`` a second from its beginning, of those ``[first::step]``.

    Both videos are read at the same moments, each with its nearest frame. A truth with fewer frames a second is read at
    its own frames. The default compares 6 frames of a clip of 2 s.
    """

    fps: float = Field(default=3.0, gt=0)
    first: int = Field(default=0, ge=0)
    step: int = Field(default=1, ge=1)

    def compared_fps(self, truth_fps: float) -> float:
        """Compared frames a second, of a truth of so many."""
        return min(self.fps, truth_fps) / self.step

    def moments_s(self, length_s: float, truth_fps: float) -> NDArray[np.float64]:
        """Seconds from the clip's beginning, at least one."""
        fps = min(self.fps, truth_fps)
        every = np.arange(max(1, round(length_s * fps))) / fps
        return every[self.first :: self.step] if len(every) > self.first else every[-1:]

    @staticmethod
    def frames_at(video: NDArray[np.uint8], fps: float, moments_s: NDArray[np.float64]) -> NDArray[np.uint8]:
        """(frames, ...) to (moments, ...): the nearest frame, the last one where the video has ended."""
        nearest = np.floor(moments_s * fps + 0.5 + 1e-9).astype(np.int64)
        return video[np.minimum(nearest, len(video) - 1)]


def resized(video: NDArray[np.uint8], px: int, *, antialias: bool = True) -> NDArray[np.float32]:
    """(frames, height, width, 3) to (frames, px, px, 3) on the scale 0 to 255, bilinear, not rounded.

    With ``antialias`` as torchvision resizes tensors from 0.17 on, without as before (and as OpenCV does).
    """
    values = np.asarray(video, np.float32)
    if values.shape[1:3] == (px, px):
        return values
    if antialias and max(values.shape[1:3]) > px:
        tensor = torch.from_numpy(values).permute(0, 3, 1, 2)
        tensor = torch.nn.functional.interpolate(tensor, (px, px), mode="bilinear", antialias=True)
        return tensor.permute(0, 2, 3, 1).contiguous().numpy()
    # Where nothing shrinks there is nothing to antialias, and OpenCV does the same sum much faster.
    return np.stack([cv2.resize(frame, (px, px), interpolation=cv2.INTER_LINEAR) for frame in values])
