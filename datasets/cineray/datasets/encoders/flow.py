"""Optical flow between neighbouring frames."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from cineray.core.config import Config
from cineray.core.errors import ConfigError
from cineray.datasets.dataset import Dataset
from cineray.datasets.encoders.base import frames_spec
from cineray.datasets.schema import TensorSpec

__all__ = ["Flow", "FlowConfig"]

FARNEBACK = {
    "pyr_scale": 0.5,
    "levels": 3,
    "winsize": 15,
    "iterations": 3,
    "poly_n": 5,
    "poly_sigma": 1.2,
    "flags": 0,
}
"""As the end-point error of NeuroClips (arXiv 2410.19452) uses it."""


class FlowConfig(Config):
    """Settings of the flow: Farneback's method (2003), the grey frames in full size."""

    reads_frames: ClassVar[bool] = True
    version: ClassVar[int] = 1
    name: Literal["flow"] = "flow"
    target: str = "flow"

    def spec(self, dataset: Dataset) -> TensorSpec:
        """(frames - 1, height, width, 2): x to the right and y down."""
        num_frames, height, width, _ = frames_spec(dataset).shape
        if num_frames < 2:
            raise ConfigError("found clips of one frame, expected two or more; flow needs films")
        axes = "frames height width components"
        return TensorSpec("float16", (num_frames - 1, height, width, 2), axes, "pixels per frame step")

    def build(self, device: torch.device | str) -> "Flow":
        """Nothing to load."""
        return Flow()


class Flow:
    """Farneback's flow from each frame to the next."""

    def encode(self, frames: NDArray[np.uint8], captions: Sequence[str]) -> NDArray[np.float16]:
        """(rows, frames, height, width, 3) to (rows, frames - 1, height, width, 2)."""
        import cv2

        rows, num_frames, height, width, _ = frames.shape
        found = np.empty((rows, num_frames - 1, height, width, 2), np.float16)
        for row, clip in enumerate(frames):
            grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip]
            for step in range(num_frames - 1):
                found[row, step] = cv2.calcOpticalFlowFarneback(grey[step], grey[step + 1], None, **FARNEBACK)  # type: ignore[call-overload]
        return found
