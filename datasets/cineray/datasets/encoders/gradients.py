"""Outlines and colours of a picture in a grid: light image tokens that need no weights."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from skimage.feature import hog

from cineray.core.config import Config
from cineray.core.errors import ConfigError
from cineray.datasets.dataset import Dataset
from cineray.datasets.encoders.base import FrameChoice, chosen, frame_axes, frames_spec
from cineray.datasets.schema import TensorSpec

__all__ = ["Gradients", "GradientsConfig"]

COLOURS = 3


class GradientsConfig(Config):
    """Settings of the light image tokens.

    The last token is the mean of the others: what is seen, wherever it is. Histograms of oriented gradients are those
    of Dalal & Triggs (2005, doi:10.1109/CVPR.2005.177), each cell normalised by itself.
    """

    reads_frames: ClassVar[bool] = True
    version: ClassVar[int] = 1
    name: Literal["gradients"] = "gradients"
    target: str = "tokens"
    cells: int = Field(default=4, ge=1)
    """Along each side of the picture."""
    orientations: int = Field(default=9, ge=1)
    frame: FrameChoice = "middle"

    def spec(self, dataset: Dataset) -> TensorSpec:
        """([frames,] tokens, dim)."""
        frames = frames_spec(dataset)
        if min(frames.shape[1:3]) < 2 * self.cells:
            raise ConfigError(
                f"found frames of {frames.shape[1]} x {frames.shape[2]}, expected {2 * self.cells} pixels a side for "
                f"cells={self.cells}; lower cells"
            )
        lead, axes = frame_axes(frames, self.frame)
        shape = (*lead, self.cells**2 + 1, self.orientations + COLOURS)
        return TensorSpec("float16", shape, f"{axes}tokens dim", "share of gradients, sRGB -1 to 1")

    def build(self, device: torch.device | str) -> "Gradients":
        """Nothing to load."""
        return Gradients(self)


class Gradients:
    """Histograms of oriented gradients and mean colours of cells."""

    def __init__(self, config: GradientsConfig) -> None:
        self._config = config

    def encode(self, frames: NDArray[np.uint8], captions: Sequence[str]) -> NDArray[np.float16]:
        """(rows, frames, height, width, 3) to (rows, [frames,] tokens, dim)."""
        pictures = chosen(frames, self._config.frame)
        tokens = np.stack([[self._tokens(picture) for picture in clip] for clip in pictures])
        return (tokens if self._config.frame == "all" else tokens[:, 0]).astype(np.float16)

    def _tokens(self, picture: NDArray[np.uint8]) -> NDArray[np.float64]:
        """(height, width, 3) to (cells + 1, orientations + 3); what does not fill a cell is cut off at the edge."""
        n = self._config.cells
        height, width = (side // n for side in picture.shape[:2])
        cut = picture[: n * height, : n * width] / 255
        outlines = hog(
            cut,
            orientations=self._config.orientations,
            pixels_per_cell=(height, width),
            cells_per_block=(1, 1),
            block_norm="L2-Hys",
            feature_vector=False,
            channel_axis=-1,
        ).reshape(n * n, -1)
        colours = 2 * cut.reshape(n, height, n, width, 3).mean((1, 3)).reshape(n * n, 3) - 1
        cells = np.concatenate([outlines, colours], axis=1)
        return np.concatenate([cells, cells.mean(0, keepdims=True)])
