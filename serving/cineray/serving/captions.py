"""Captions of reconstructions, made from what was reconstructed and never from what was shown.

Describing the stimuli themselves is another operation with another name: a feature of the data set
(`cineray features`), for training. Nothing here is given a stimulus that was not in training.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from cineray.core.config import Config
from cineray.datasets.encoders.captions import Blip, BlipConfig, as_text
from cineray.serving.library import Library

__all__ = ["BlipCaptionsConfig", "Captioner", "CaptionsConfig", "NearestCaptionsConfig"]


class Captioner(Protocol):
    """Says what a clip is believed to show."""

    def caption_reconstructions(self, tokens: Tensor, keyframes: NDArray[np.uint8]) -> list[str]:
        """One sentence a clip.

        Args:
            tokens: (clips, tokens, dim) predicted image tokens.
            keyframes: (clips, height, width, 3) generated from them.
        """
        ...


class NearestCaptionsConfig(Config):
    """The caption of the training stimulus whose tokens are nearest; needs no weights."""

    name: Literal["nearest"] = "nearest"

    def build(self, *, library: Library, device: str) -> "NearestCaptions":
        """Over these training clips."""
        return NearestCaptions(library)


class BlipCaptionsConfig(Config):
    """BLIP describes the generated keyframe (NeuroClips uses BLIP-2)."""

    name: Literal["blip"] = "blip"
    encoder: BlipConfig

    def build(self, *, library: Library, device: str) -> "BlipCaptions":
        """Load the model onto the device.

        Raises:
            ConfigError: the pretrained part is missing.
        """
        return BlipCaptions(self.encoder.build(device))


@dataclass(frozen=True)
class NearestCaptions:
    """`Captioner` over a `Library`."""

    library: Library

    def caption_reconstructions(self, tokens: Tensor, keyframes: NDArray[np.uint8]) -> list[str]:
        """Looked up by the tokens; the pictures are not looked at."""
        return [self.library.caption(int(row)) for row in self.library.nearest(tokens)[0]]


@dataclass(frozen=True)
class BlipCaptions:
    """`Captioner` over BLIP."""

    encoder: Blip

    def caption_reconstructions(self, tokens: Tensor, keyframes: NDArray[np.uint8]) -> list[str]:
        """Generated one by one from the pictures, so that no caption depends on the clips beside it."""
        return [as_text(self.encoder.encode(picture[None, None], [""]))[0] for picture in keyframes]


CaptionsConfig = Annotated[NearestCaptionsConfig | BlipCaptionsConfig, Field(discriminator="name")]
