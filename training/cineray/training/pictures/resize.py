"""Size and timing: every metric states the pixels and the frames it compares, since both are part of its value."""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator

from cineray.core.config import Config

__all__ = ["FrameRule", "mindeye2_blend", "resized"]


class FrameRule(Config):
    """Which frames of a clip are compared: those at ``fps`` a second from its beginning, 6 of a clip of 2 s.

    Both videos are read at the same moments, each with its nearest frame. A truth with fewer frames a second is read at
    its own frames. Only legacy rules set ``predicted_fps``.
    """

    fps: float = Field(default=3.0, gt=0)
    predicted_fps: float | None = Field(default=None, gt=0)
    """Legacy: the prediction is read at so many frames a second, and of those ``[first::step]`` stand beside the
    truth's, one after another, whatever the moments."""
    first: int = Field(default=0, ge=0)
    step: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _of_the_prediction(self) -> "FrameRule":
        if self.predicted_fps is None and (self.first, self.step) != (0, 1):
            raise ValueError(f"found first={self.first} step={self.step}, expected them only beside predicted_fps")
        return self

    def compared_fps(self, truth_fps: float) -> float:
        """Compared frames a second, of a truth of so many."""
        return min(self.fps, truth_fps)

    def moments_s(self, length_s: float, truth_fps: float) -> NDArray[np.float64]:
        """Seconds from the clip's beginning, at least one."""
        fps = self.compared_fps(truth_fps)
        return np.arange(max(1, round(length_s * fps))) / fps

    def predicted_moments_s(self, moments_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Seconds of the prediction that stand beside the truth's ``moments_s``."""
        if self.predicted_fps is None:
            return moments_s
        return (self.first + self.step * np.arange(len(moments_s))) / self.predicted_fps

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


def mindeye2_blend(refined: NDArray[np.uint8], low_level: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """.75 refined + .25 low-level, pixel by pixel, at the refined frames' size (MindEye2's evaluation).

    Args:
        refined: (frames, height, width, 3).
        low_level: (frames, ...) of any size, resized bilinearly.
    """
    size = refined.shape[2], refined.shape[1]
    low = [cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR).astype(np.float32) for frame in low_level]
    return np.rint(0.75 * refined.astype(np.float32) + 0.25 * np.stack(low)).astype(np.uint8)
