"""The registry of networks that judge reconstructions: each a frozen config, each named by a local folder or hub id."""

from typing import Annotated, Literal

from pydantic import Field

from cineray.core.config import Config
from cineray.training.backbones.base import Backbone, TextBackbone
from cineray.training.backbones.framewise import framewise
from cineray.training.backbones.hugging_face import (
    HFClipConfig,
    HFImageClassifierConfig,
    HFImageEncoderConfig,
    HFVideoClassifierConfig,
)
from cineray.training.backbones.open_clip import OpenClipConfig
from cineray.training.backbones.sentences import HFClipTextConfig, HFSentenceConfig
from cineray.training.backbones.tflite import TFLiteConfig
from cineray.training.backbones.torchvision import TorchvisionConfig
from cineray.training.backbones.trained import TrainedConfig
from cineray.training.backbones.vificlip import ViFiClipConfig

__all__ = ["Backbone", "BackboneConfig", "FrameBackboneConfig", "FramewiseConfig", "TextBackbone"]

FrameBackboneConfig = Annotated[
    TorchvisionConfig
    | HFImageClassifierConfig
    | HFImageEncoderConfig
    | HFClipConfig
    | OpenClipConfig
    | TFLiteConfig
    | TrainedConfig,
    Field(discriminator="name"),
]


class FramewiseConfig(Config):
    """A picture network on every frame of a video."""

    name: Literal["framewise"] = "framewise"
    frames: FrameBackboneConfig

    def build(self) -> Backbone:
        """Build the picture network and wrap it."""
        return framewise(self.frames.build())


BackboneConfig = Annotated[
    FrameBackboneConfig
    | HFVideoClassifierConfig
    | ViFiClipConfig
    | FramewiseConfig
    | HFSentenceConfig
    | HFClipTextConfig,
    Field(discriminator="name"),
]
