"""Captions of reconstructions, made from what was reconstructed and never from what was shown.

Describing the stimuli themselves is another operation with another name: a feature of the data set
(`cineray features`), for training. Nothing here is given a stimulus that was not in training.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from cineray.core.config import Config
from cineray.core.pretrained import Part, locate
from cineray.serving.library import Library

__all__ = ["BlipCaptionsConfig", "Captioner", "CaptionsConfig", "NearestCaptionsConfig"]

INSTEAD = "without it captions.name=nearest takes the caption of the nearest training stimulus"


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
    """BLIP-2 describes the generated keyframe, greedily (NeuroClips, stage 5)."""

    name: Literal["blip2"] = "blip2"
    part: Part = Part(hub_id="Salesforce/blip2-opt-2.7b")
    max_new_tokens: int = Field(default=30, ge=1)

    def build(self, *, library: Library, device: str) -> "BlipCaptions":
        """Load the model onto the device.

        Raises:
            ConfigError: the pretrained part is missing.
        """
        from transformers import AutoProcessor, Blip2ForConditionalGeneration

        folder = locate(self.part, instead=INSTEAD)
        dtype = torch.float16 if device.startswith("cuda") else torch.float32
        model: Any = Blip2ForConditionalGeneration.from_pretrained(folder, dtype=dtype, local_files_only=True)
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        return BlipCaptions(self, model.to(device).eval(), processor)


@dataclass(frozen=True)
class NearestCaptions:
    """`Captioner` over a `Library`."""

    library: Library

    def caption_reconstructions(self, tokens: Tensor, keyframes: NDArray[np.uint8]) -> list[str]:
        """Looked up by the tokens; the pictures are not looked at."""
        return [self.library.caption(int(row)) for row in self.library.nearest(tokens)[0]]


@dataclass(frozen=True)
class BlipCaptions:
    """`Captioner` over transformers' BLIP-2."""

    config: BlipCaptionsConfig
    model: Any
    processor: Any

    @torch.inference_mode()
    def caption_reconstructions(self, tokens: Tensor, keyframes: NDArray[np.uint8]) -> list[str]:
        """Generated one by one from the pictures, so that no caption depends on the clips beside it."""
        return [self._describe(picture) for picture in keyframes]

    def _describe(self, picture: NDArray[np.uint8]) -> str:
        given = self.processor(images=picture, return_tensors="pt").to(self.model.device, self.model.dtype)
        words = self.model.generate(**given, max_new_tokens=self.config.max_new_tokens, do_sample=False)
        return self.processor.batch_decode(words, skip_special_tokens=True)[0].strip()


CaptionsConfig = Annotated[NearestCaptionsConfig | BlipCaptionsConfig, Field(discriminator="name")]
