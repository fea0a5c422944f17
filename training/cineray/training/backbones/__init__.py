"""The registry of networks that judge reconstructions: each a frozen config, each named by a local folder or hub id."""

from typing import Annotated, Literal

from pydantic import Field

from cineray.core.config import Config
from cineray.core.content import Local
from cineray.training.backbones.base import Backbone, TextBackbone
from cineray.training.backbones.framewise import framewise
from cineray.training.backbones.hugging_face import (
    HFClipConfig,
    HFImageClassifierConfig,
    HFImageEncoderConfig,
    HFVideoClassifierConfig,
)
from cineray.training.backbones.i3d import I3DConfig
from cineray.training.backbones.linear_encoder import linear_encoder
from cineray.training.backbones.open_clip import OpenClipConfig
from cineray.training.backbones.sentences import HFClipTextConfig, HFSentenceConfig
from cineray.training.backbones.tflite import TFLiteConfig
from cineray.training.backbones.torchvision import TorchvisionConfig
from cineray.training.backbones.trained import TrainedConfig
from cineray.training.backbones.vificlip import ViFiClipConfig

__all__ = [
    "Backbone",
    "BackboneConfig",
    "EncoderConfig",
    "FrameBackboneConfig",
    "FramewiseConfig",
    "LinearEncoderConfig",
    "TextBackbone",
]

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


class LinearEncoderConfig(Config):
    """A linear encoding model: the responses of one brain's voxels to pictures, in place of an embedding."""

    name: Literal["linear_encoder"] = "linear_encoder"
    frames: FrameBackboneConfig
    weights_file: Local
    """``weight`` (voxels, dim) and ``bias`` (voxels,)."""

    def build(self) -> Backbone:
        """Build the picture network and put the voxels on top."""
        return linear_encoder(self.frames.build(), self.weights_file)


EncoderConfig = Annotated[FrameBackboneConfig | LinearEncoderConfig, Field(discriminator="name")]

BackboneConfig = Annotated[
    FrameBackboneConfig
    | HFVideoClassifierConfig
    | ViFiClipConfig
    | I3DConfig
    | FramewiseConfig
    | HFSentenceConfig
    | HFClipTextConfig,
    Field(discriminator="name"),
]
