"""Latents of the autoencoders that diffusion models work in, as diffusers has them."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cineray.core.errors import ConfigError
from cineray.datasets.dataset import Dataset
from cineray.datasets.encoders.base import FrameChoice, PretrainedSettings, frames_spec
from cineray.datasets.encoders.images import by_frame, resized
from cineray.datasets.encoders.loading import load_whole
from cineray.datasets.schema import TensorSpec

__all__ = ["UNIT", "Vae", "VaeConfig"]

UNIT = "scaled latent"

PICTURES_TOGETHER = 16
"""At 512 x 512 the first layers of Stable Diffusion's autoencoder hold 134 MB a picture and activation in float32."""

KINDS = {"AutoencoderKL": "block_out_channels", "AutoencoderTiny": "encoder_block_out_channels"}
"""Class in diffusers -> where its settings list the levels, each but the first at half the size of the last."""


class VaeConfig(PretrainedSettings):
    """Settings of an `AutoencoderKL` or `AutoencoderTiny`; which one, the part's ``config.json`` says."""

    reads_frames: ClassVar[bool] = True
    name: Literal["vae"] = "vae"
    target: str = "latents"
    frame: FrameChoice = "all"
    size: int | None = None
    """Side in pixels to which frames are brought first, the shorter edge resized and the centre cut out; None leaves
    them as they are."""

    def spec(self, dataset: Dataset) -> TensorSpec:
        """(frames, channels, height / factor, width / factor); one frame is a clip of one."""
        settings = self._settings()
        num_frames, *edges, _ = frames_spec(dataset).shape
        edges = [self.size, self.size] if self.size else edges
        factor = 2 ** (len(settings[KINDS[settings["_class_name"]]]) - 1)
        if any(edge % factor for edge in edges):
            raise ConfigError(f"found pictures of {edges[0]} x {edges[1]}, expected multiples of {factor}; set size=…")
        shape = (num_frames if self.frame == "all" else 1, settings["latent_channels"])
        shape += (edges[0] // factor, edges[1] // factor)
        return TensorSpec("float16", shape, "frames channels height width", UNIT)

    def build(self, device: torch.device | str) -> "Vae":
        """Load the autoencoder."""
        import diffusers

        kind = getattr(diffusers, self._settings()["_class_name"])
        model = load_whole(kind, self.folder, torch_dtype=self.dtype)
        return Vae(self, model.eval().to(device), torch.device(device))

    def _settings(self) -> dict[str, Any]:
        from diffusers import AutoencoderKL

        settings: Any = AutoencoderKL.load_config(self.folder, local_files_only=True)
        if settings.get("_class_name") not in KINDS:
            raise ConfigError(f"{self.folder} holds a {settings.get('_class_name')}, expected {' or '.join(KINDS)}")
        return settings


class Vae:
    """The encoder half, frozen: (mode of the posterior - shift) x scaling factor."""

    def __init__(self, config: VaeConfig, model: Any, device: torch.device) -> None:
        self._config, self._model, self._device = config, model, device

    def encode(self, frames: NDArray[np.uint8], captions: Sequence[str]) -> NDArray[np.float16]:
        """(rows, frames, height, width, 3) to (rows, frames, channels, height, width); captions are not read."""
        found = by_frame(frames, self._config.frame, self._encoded, self._device, together=PICTURES_TOGETHER)
        return found if self._config.frame == "all" else found[:, None]

    def _encoded(self, pictures: Tensor) -> Tensor:
        if self._config.size:
            pictures = resized(pictures, self._config.size)
        found = self._model.encode((pictures.float() / 127.5 - 1).to(self._config.dtype))
        latents = found.latent_dist.mode() if "latent_dist" in found else found.latents
        settings = self._model.config
        return (latents - (settings.shift_factor or 0)) * settings.scaling_factor
