"""Image tokens to a picture, by the SDXL-unCLIP engine of MindEye2 and NeuroClips.

A UNet of SDXL's shape reads 256 tokens of CLIP bigG (1664 wide) as its context; sizes and crop come in as sinusoids.
Its pictures and those whose tokens it was trained on lie in 0..1 where other models have -1..1: tokens of another range
convention do not suit it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from cineray.core.config import Config
from cineray.core.errors import DataError
from cineray.core.pretrained import Part, catalogue
from cineray.datasets.encoders.clip import range_unit
from cineray.serving.generators.accepts import Accepts
from cineray.serving.generators.autoencoder import Autoencoder, load_autoencoder
from cineray.serving.generators.base import Condition
from cineray.serving.generators.inert import refuse_inert
from cineray.serving.generators.parts import Precision
from cineray.serving.generators.pictures import noise, to_frames, to_tensor
from cineray.serving.generators.unclip_weights import load_unclip

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

__all__ = ["SINUSOIDS", "Unclip", "UnclipConfig", "edm_scheduler"]

SINUSOIDS = 256
"""Width of the code of each of the four numbers: height and width of the original, top and left of the crop."""
NAMED = catalogue()


class UnclipConfig(Config):
    """Settings of the unCLIP engine; the defaults are the released ones."""

    name: Literal["unclip"] = "unclip"
    unet: Part = NAMED["mindeye2"].part
    """A folder with the published checkpoint, or with a UNet as `save_pretrained` writes it."""
    vae: Part = NAMED["sdxl-vae"].part
    keyframe_init: Literal["noise", "blurry"] = "noise"
    """Where the first sample starts: at noise (released), or at the blurry video's first frame (paper)."""
    strength: float = Field(default=1.0, gt=0, le=1)
    """Share of the steps that run, from the noisy end, where it starts at the blurry frame."""
    steps: int = Field(default=38, ge=1)
    guidance: float = Field(default=5.0, ge=1)
    """The unconditional branch sees normal random tokens."""
    offset_noise: float = Field(default=0.04, ge=0)
    """Noise common to all pixels of a sample, against grey means."""
    size: int = Field(default=768, ge=8)
    precision: Precision = "float32"
    """Of the UNet; the autoencoder computes in float32."""

    @model_validator(mode="after")
    def _each_setting_acts(self) -> Self:
        refuse_inert(self, ("strength", self.keyframe_init == "noise", "keyframe_init=noise"))
        return self

    def build(self, *, device: torch.device) -> "Unclip":
        """Load UNet and autoencoder; `ConfigError` where one is missing."""
        unet = load_unclip(self.unet, device=device, precision=self.precision)
        # Activations of SDXL's autoencoder overflow in float16.
        return Unclip(self, unet, load_autoencoder(self.vae, "", device=device, precision="float32"))


def edm_scheduler(steps: int) -> Any:
    """Euler on the 1000 discrete noise levels of SDXL, at ``steps`` of them equally spaced from the noisiest down."""
    from diffusers import EulerDiscreteScheduler

    scheduler = EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    levels = np.linspace(999, 0, steps, endpoint=False).astype(int)
    scheduler.set_timesteps(timesteps=levels.tolist())
    return scheduler


@dataclass(frozen=True)
class Unclip:
    """The loaded engine."""

    settings: UnclipConfig
    unet: "UNet2DConditionModel"
    autoencoder: Autoencoder

    @property
    def accepts(self) -> Accepts:
        """See `cineray.serving.generators.keyframe.Keyframer`."""
        return Accepts(
            "generator.keyframe.name=unclip",
            (("tokens", self.unet.config.cross_attention_dim),),
            (range_unit("mindeye2"),),
            "train the semantic run on what `cineray features DATA open_clip image_range=mindeye2` computes with the "
            "engine's own network (the published one: ViT-bigG-14)",
        )

    @torch.inference_mode()
    def __call__(self, conditions: Sequence[Condition]) -> NDArray[np.uint8]:
        """One picture a clip, uint8 (clips, size, size, 3), one after another: alike whoever stands beside it."""
        size = self.settings.size
        pictures = [to_frames(self._picture(condition)) for condition in conditions]
        return np.stack(pictures) if pictures else np.zeros((0, size, size, 3), np.uint8)

    def _picture(self, condition: Condition) -> Tensor:
        """(3, size, size), -1 to 1."""
        s = self.settings
        tokens = self._tokens(condition)
        generator = torch.Generator().manual_seed(condition.seed)
        scheduler = edm_scheduler(s.steps)
        sample, timesteps = self._start(condition, scheduler, generator)
        # Drawn once: every step pulls away from the same unconditional picture.
        unconditional = noise([generator], tokens.shape[1:], self.unet.device).to(tokens.dtype)
        context = torch.cat([unconditional, tokens]) if s.guidance > 1 else tokens
        for t in timesteps:
            predicted = self._predicted(scheduler.scale_model_input(sample, t), t, context)
            sample = scheduler.step(predicted, t, sample, return_dict=False)[0]
        return self.autoencoder.decode(sample)[0].mul(0.8).add(0.2).clamp(0, 1) * 2 - 1

    def _tokens(self, condition: Condition) -> Tensor:
        """(1, tokens, dim)."""
        dim = self.unet.config.cross_attention_dim
        if condition.tokens is None or condition.tokens.ndim != 2 or condition.tokens.shape[1] != dim:
            found = "none" if condition.tokens is None else tuple(condition.tokens.shape)
            raise DataError(f"found image tokens {found}, the unCLIP engine expects (tokens, {dim}); predict those")
        return condition.tokens[None].to(self.unet.device, self.unet.dtype)

    def _start(self, condition: Condition, scheduler: Any, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        s = self.settings
        side = s.size // self.autoencoder.factor
        shape, device = (self.autoencoder.channels, side, side), self.unet.device
        first = 0
        if s.keyframe_init == "noise":
            latents = noise([generator], shape, device)
        else:
            if condition.blurry is None:
                raise DataError("found no blurry video, keyframe_init=blurry starts at its first frame; give one")
            first = s.steps - max(1, int(s.steps * s.strength))
            pictures = to_tensor(condition.blurry[:1], s.size)
            latents = self.autoencoder.encode((pictures + 1) / 2).to(device)  # this engine's range is 0 to 1
        added = noise([generator], shape, device) + s.offset_noise * noise([generator], (1, 1, 1), device)
        return latents + added * scheduler.sigmas[first], scheduler.timesteps[first:]

    def _predicted(self, sample: Tensor, t: Tensor, context: Tensor) -> Tensor:
        """The guided noise estimate."""
        from diffusers.models.embeddings import get_timestep_embedding

        x = torch.cat([sample] * len(context)).to(self.unet.dtype)
        size = self.settings.size
        numbers = torch.tensor([size, size, 0, 0], device=x.device)
        codes = get_timestep_embedding(numbers, SINUSOIDS, flip_sin_to_cos=True, downscale_freq_shift=0)
        vector = codes.flatten()[None].to(x.dtype).expand(len(context), -1)
        out = self.unet(x, t, encoder_hidden_states=context, class_labels=vector).sample.float()
        if len(out) == 1:
            return out
        negative, positive = out.chunk(2)
        return negative + self.settings.guidance * (positive - negative)
