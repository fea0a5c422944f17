"""Latents to pixels: the counterparts of the encoders that compute a data set's latents."""

from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from cineray.core.config import Config
from cineray.core.pretrained import Part, locate
from cineray.datasets.encoders import pool, taef2, vae
from cineray.serving.generators.accepts import Accepts
from cineray.serving.generators.autoencoder import Autoencoder, load_autoencoder
from cineray.serving.generators.parts import Precision
from cineray.serving.generators.pictures import to_frames

__all__ = ["AutoencoderCodecConfig", "Codec", "CodecConfig", "PoolCodecConfig", "Taef2CodecConfig"]


class Codec(Protocol):
    """Made for one size of latents and pixels."""

    @property
    def accepts(self) -> Accepts:
        """The latents that it decodes."""
        ...

    def decode(self, latents: Tensor) -> NDArray[np.uint8]:
        """(frames, channels, height, width) latents to sRGB (frames, height, width, 3)."""
        ...


def _latents(codec: str, encoder: str, channels: int, unit: str) -> Accepts:
    return Accepts(
        f"codec.name={codec}",
        (("frames", channels, "height", "width"),),
        (unit,),
        f"name a perception run on what `cineray features DATA {encoder}` computes, or the codec of its latents: "
        "pool of pool, autoencoder of vae, taef2 of taef2",
    )


class PoolCodecConfig(Config):
    """Small pictures, -1 to 1: what the encoder ``pool`` averages over squares."""

    name: Literal["pool"] = "pool"

    def build(self, *, size: tuple[int, int], device: str) -> "PoolCodec":
        """For frames of ``size`` (height, width)."""
        return PoolCodec(size)


class AutoencoderCodecConfig(Config):
    """Latents of a diffusers autoencoder, in the scale that its diffusion models expect."""

    name: Literal["autoencoder"] = "autoencoder"
    part: Part
    subfolder: str = ""
    """Of the part; ``vae`` in whole pipelines."""
    precision: Precision = "float32"

    def build(self, *, size: tuple[int, int], device: str) -> "AutoencoderCodec":
        """Load the autoencoder; its frames have the size its latents say.

        Raises:
            ConfigError: the pretrained part is missing.
        """
        where = torch.device(device)
        return AutoencoderCodec(load_autoencoder(self.part, self.subfolder, device=where, precision=self.precision))


class Taef2CodecConfig(Config):
    """Latents of the tiny autoencoder of FLUX.2 (`cineray.datasets.encoders.taef2`)."""

    name: Literal["taef2"] = "taef2"
    part: Part
    """Holds ``taef2_decoder.safetensors`` or ``.pth``."""

    def build(self, *, size: tuple[int, int], device: str) -> "Taef2Codec":
        """Load the decoder half; its frames have the size its latents say.

        Raises:
            ConfigError: the pretrained part is missing.
        """
        folder = locate(self.part, instead="or make the latents with the encoder pool and set codec.name=pool")
        return Taef2Codec(taef2.read_half(folder, "decoder").to(device), torch.device(device))


@dataclass(frozen=True)
class PoolCodec:
    """`Codec` of area-pooled frames."""

    size: tuple[int, int]

    @property
    def accepts(self) -> Accepts:
        """See `Codec`."""
        return _latents("pool", "pool", 3, pool.UNIT)

    def decode(self, latents: Tensor) -> NDArray[np.uint8]:
        """Bilinear between the centres of the squares."""
        return to_frames(F.interpolate(latents.float(), self.size, mode="bilinear"))


@dataclass(frozen=True)
class AutoencoderCodec:
    """`Codec` of a diffusers autoencoder."""

    autoencoder: Autoencoder

    @property
    def accepts(self) -> Accepts:
        """See `Codec`."""
        return _latents("autoencoder", "vae", self.autoencoder.channels, vae.UNIT)

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> NDArray[np.uint8]:
        """By the autoencoder's decoder."""
        return to_frames(self.autoencoder.decode(latents.to(self.autoencoder.model.device)))


@dataclass(frozen=True)
class Taef2Codec:
    """`Codec` of the tiny autoencoder."""

    decoder: nn.Module
    device: torch.device

    @property
    def accepts(self) -> Accepts:
        """See `Codec`."""
        return _latents("taef2", "taef2", taef2.LATENT_CHANNELS, taef2.UNIT)

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> NDArray[np.uint8]:
        """Frame by frame."""
        return to_frames(2 * self.decoder(latents.to(self.device, torch.float32)) - 1)


CodecConfig = Annotated[PoolCodecConfig | AutoencoderCodecConfig | Taef2CodecConfig, Field(discriminator="name")]
