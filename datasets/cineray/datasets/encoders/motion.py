"""Where and which way things move, coarsely: what a decoder can learn of optical flow."""

import itertools
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from cineray.core.config import Config
from cineray.core.errors import ConfigError
from cineray.datasets.dataset import Dataset
from cineray.datasets.encoders.base import frames_spec
from cineray.datasets.encoders.flow import FARNEBACK
from cineray.datasets.schema import TensorSpec

__all__ = ["UNIT", "Motion", "MotionConfig", "compressed", "expanded"]

PX = 256
"""Side at which flow is computed, as of the default end-point error: Farneback's windows are in pixels."""
UNIT = "signed square roots of frame widths per frame step"
"""Down in frame heights: every frame is taken as a square."""


class MotionConfig(Config):
    """Settings of the pooled flow: Farneback's (2003), averaged over squares, its components' square roots.

    Speeds are heavy-tailed: most of a film stands still. A squared error between square roots is not ruled by the few
    fastest things, and its best guess of an uncertain speed is a cautious one.
    """

    reads_frames: ClassVar[bool] = True
    version: ClassVar[int] = 1
    name: Literal["motion"] = "motion"
    target: str = "motion"
    places: int = Field(default=8, ge=1, le=PX)
    """Squares along each side of the frame."""
    stretches: int = Field(default=1, ge=1)
    """Equal parts of a clip, each with its mean flow: no more than there are scans in a clip can be told apart."""

    def spec(self, dataset: Dataset) -> TensorSpec:
        """(stretches, 2, places, places): x to the right, then y down."""
        num_frames = frames_spec(dataset).shape[0]
        if num_frames <= self.stretches:
            raise ConfigError(
                f"found clips of {num_frames} frames, expected more than stretches={self.stretches}; take fewer "
                "stretches, and films, not pictures"
            )
        shape = (self.stretches, 2, self.places, self.places)
        return TensorSpec("float16", shape, "frames channels height width", UNIT)

    def build(self, device: torch.device | str) -> "Motion":
        """Nothing to load."""
        return Motion(self.places, self.stretches)


class Motion:
    """Flow from each frame to the next, in few places."""

    def __init__(self, places: int, stretches: int) -> None:
        self.places, self.stretches = places, stretches

    def encode(self, frames: NDArray[np.uint8], captions: Sequence[str]) -> NDArray[np.float16]:
        """(rows, frames, height, width, 3) to (rows, stretches, 2, places, places)."""
        return np.stack([self._clip(clip) for clip in frames])

    def _clip(self, clip: NDArray[np.uint8]) -> NDArray[np.float16]:
        import cv2

        grey = [cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (PX, PX)) for frame in clip]
        flows = [
            cv2.calcOpticalFlowFarneback(one, two, None, **FARNEBACK)  # type: ignore[call-overload]
            for one, two in itertools.pairwise(grey)
        ]
        means = [part.mean(0) for part in np.array_split(np.stack(flows) / PX, self.stretches)]
        pooled = [cv2.resize(flow, (self.places, self.places), interpolation=cv2.INTER_AREA) for flow in means]
        return compressed(np.stack(pooled).transpose(0, 3, 1, 2)).astype(np.float16)


def compressed(flow: NDArray[np.floating]) -> NDArray[np.floating]:
    """Square roots of the components' sizes, with their signs."""
    return np.sign(flow) * np.sqrt(np.abs(flow))


def expanded(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Squares with signs: `compressed`, undone."""
    return values * np.abs(values)
