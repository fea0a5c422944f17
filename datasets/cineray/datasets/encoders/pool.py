"""Frames in small: means over squares of pixels, the light codec that needs no weights."""

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
from cineray.datasets.schema import TensorSpec

__all__ = ["UNIT", "Pool", "PoolConfig"]

UNIT = "sRGB, -1 to 1"


class PoolConfig(Config):
    """Settings of the area pooling."""

    reads_frames: ClassVar[bool] = True
    version: ClassVar[int] = 1
    name: Literal["pool"] = "pool"
    target: str = "latents"
    factor: int = Field(default=8, ge=1)
    """Side in pixels of the squares."""

    def spec(self, dataset: Dataset) -> TensorSpec:
        """(frames, 3, height / factor, width / factor), -1 black, 1 white."""
        num_frames, height, width, _ = frames_spec(dataset).shape
        if height % self.factor or width % self.factor:
            raise ConfigError(f"found frames of {height} x {width}, expected multiples of factor={self.factor}")
        shape = (num_frames, 3, height // self.factor, width // self.factor)
        return TensorSpec("float16", shape, "frames channels height width", UNIT)

    def build(self, device: torch.device | str) -> "Pool":
        """Nothing to load."""
        return Pool(self.factor)


class Pool:
    """Means over squares of ``factor`` x ``factor`` pixels."""

    def __init__(self, factor: int) -> None:
        self._factor = factor

    def encode(self, frames: NDArray[np.uint8], captions: Sequence[str]) -> NDArray[np.float16]:
        """(rows, frames, height, width, 3) to (rows, frames, 3, height / factor, width / factor)."""
        rows, num_frames, height, width, _ = frames.shape
        k = self._factor
        squares = frames.reshape(rows, num_frames, height // k, k, width // k, k, 3)
        means = squares.mean((3, 5), dtype=np.float32) / 127.5 - 1
        return np.moveaxis(means, -1, 2).astype(np.float16)
