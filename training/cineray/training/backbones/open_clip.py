"""CLIP out of open_clip, by local folder (``open_clip_config.json`` and weights) or hub id."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cineray.core.config import Config
from cineray.core.pretrained import Part, locate
from cineray.datasets.encoders.loading import load_open_clip
from cineray.training.backbones.base import Backbone, Moments, as_pixels
from cineray.training.backbones.hugging_face import INSTEAD

__all__ = ["OpenClipConfig"]


class OpenClipConfig(Config):
    """The projected image embedding."""

    name: Literal["open_clip"] = "open_clip"
    part: Part

    def build(self) -> Backbone:
        """Load the weights; pictures are resized whole, bicubic, and normalised as the folder says."""
        folder = locate(self.part, instead=INSTEAD)
        network = load_open_clip(folder).eval()
        px, moments = network.visual.image_size, Moments(network.visual.image_mean, network.visual.image_std)
        px = px[0] if isinstance(px, tuple) else px

        def judge(pictures: NDArray[np.uint8]) -> dict[str, Any]:
            return {"embedding": network.encode_image(as_pixels(pictures, px, moments, kernel="bicubic"))}

        return Backbone(f"open_clip {self.part.label}", judge)
