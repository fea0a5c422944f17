"""Pictures to latents and back, by Stable Diffusion's autoencoder or a tiny one of the same latents."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cineray.core.errors import ConfigError
from cineray.core.pretrained import Part
from cineray.serving.generators.parts import Precision, class_name, load, part_folder

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, AutoencoderTiny

__all__ = ["Autoencoder", "load_autoencoder"]

CLASSES = ("AutoencoderKL", "AutoencoderTiny")
DECODED_TOGETHER = 16
"""Frames; more only costs memory."""


@dataclass(frozen=True)
class Autoencoder:
    """Either class behind one pair of functions; its latents are scaled as the diffusion model expects them."""

    model: "AutoencoderKL | AutoencoderTiny"

    @property
    def factor(self) -> int:
        """Pixels a side of one latent."""
        return 2 ** (
            len(self._config.block_out_channels if self._full else self._config.encoder_block_out_channels) - 1
        )

    @property
    def channels(self) -> int:
        """Channels of the latents."""
        return self._config.latent_channels

    def encode(self, pictures: Tensor) -> Tensor:
        """Pictures (n, 3, height, width), -1 to 1, to float32 latents: the posterior's mean, no noise of its own."""
        coded: Any = self.model.encode(pictures.to(self.model.device, self.model.dtype))
        latents = coded.latent_dist.mode() if self._full else coded.latents
        return (latents.float() - self._shift) * self._config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (n, channels, height, width) to float32 pictures, about -1 to 1."""
        scaled = (latents / self._config.scaling_factor + self._shift).to(self.model.dtype)
        decoded: list[Any] = [self.model.decode(part) for part in scaled.split(DECODED_TOGETHER)]
        return torch.cat([part.sample.float() for part in decoded])

    @property
    def _shift(self) -> float:
        """Of the latents' mean; Stable Diffusion's autoencoders have none."""
        return self._config.shift_factor or 0.0

    @property
    def _full(self) -> bool:
        from diffusers import AutoencoderKL

        return isinstance(self.model, AutoencoderKL)

    @property
    def _config(self) -> Any:
        return self.model.config


def load_autoencoder(part: Part, subfolder: str, *, device: torch.device, precision: Precision) -> Autoencoder:
    """The autoencoder of a part, of whichever class its folder names."""
    import diffusers

    name = class_name(part_folder(part, subfolder))
    if name not in CLASSES:
        raise ConfigError(f"the pretrained part {part.label} is a {name}, expected one of {', '.join(CLASSES)}")
    return Autoencoder(load(getattr(diffusers, name), part, subfolder, device=device, precision=precision))
