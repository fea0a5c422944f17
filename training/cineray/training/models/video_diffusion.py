"""A small latent video diffusion model, trained on the ingested films themselves: what sharpens a blurry video.

It denoises the latents of a clip given a blurry version of them and what is seen (a vector or tokens). Brains it does
not read: what was decoded of them comes in when it samples. In training the blurry version is the truth, degraded at
random, as in cascaded diffusion (arXiv 2106.15282), so that imperfect predictions are nothing new to it.
"""

import math
from collections.abc import Mapping
from functools import cached_property
from itertools import pairwise
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from cineray.core.config import Config
from cineray.core.errors import ConfigError
from cineray.training.models.base import Generative, Sizes
from cineray.training.models.perception import video_shape
from cineray.training.models.prior_sampler import NUM_STEPS, alpha_bar, noised
from cineray.training.models.video_transformer import VideoTransformer

__all__ = ["VideoDiffusion", "VideoDiffusionConfig", "smoothed"]


class VideoDiffusionConfig(Config):
    """Settings of the video diffusion model; a minute of one core is enough for 8 frames of 8 x 8 at ``dim`` 96."""

    name: Literal["video_diffusion"] = "video_diffusion"
    target: str = "latents"
    """What is generated: (frames, channels, height, width)."""
    condition: str | None = "clip_tokens"
    """Target that tells what is seen, (dim,) or (tokens, dim)."""
    mean: float = 0.0
    sd: float = Field(default=1.0, gt=0)
    """Mean and deviation of the target's values, so that noise of deviation 1 hides them and no more."""
    dim: int = Field(default=128, ge=4, multiple_of=2)
    depth: int = Field(default=4, ge=1)
    heads: int = Field(default=4, ge=1)
    patch: int = Field(default=2, ge=1)
    """Side of the squares of latents that make a token."""
    drop: float = Field(default=0.1, ge=0, lt=1)
    """How often the condition is left out in training, and, independently, the blurry version."""
    blur: float = Field(default=0.3, ge=0)
    """The blurry version's largest blur (sd of a Gaussian), in heights; over time, in lengths of the clip."""
    fade: float = Field(default=0.9, ge=0, le=1)
    """Largest share of it that is missing: predictions from brains shrink towards the mean."""
    noise: float = Field(default=0.5, ge=0)
    """Largest deviation of what is wrong in it: noise as smooth as the rest."""
    steps: int = Field(default=20, ge=1, le=NUM_STEPS)
    """Of sampling, where nobody says otherwise."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.dim % self.heads:
            raise ConfigError(f"model.dim is {self.dim}, expected a multiple of model.heads={self.heads}")
        return self

    def build(self, sizes: Sizes) -> "VideoDiffusion":
        """Make the network for these targets."""
        return VideoDiffusion(self, sizes)


class VideoDiffusion(Generative):
    """Latents from noise, a blurry version of them, and what is seen."""

    reads_brains = False
    """Rows are counted by the brains it is given; no layer belongs to a subject."""

    def __init__(self, config: VideoDiffusionConfig, sizes: Sizes) -> None:
        super().__init__()
        self.config = config
        self.shape = video_shape(config.target, sizes)
        if any(side % config.patch for side in self.shape[2:]):
            raise ConfigError(
                f"'{config.target}' is {self.shape[2]} x {self.shape[3]}, expected multiples of "
                f"model.patch={config.patch}; set model.patch"
            )
        self.network = VideoTransformer(
            self.shape,
            condition_shape(config.condition, sizes),
            dim=config.dim,
            depth=config.depth,
            heads=config.heads,
            patch=config.patch,
        )

    def forward(self, brain: Mapping[str, Tensor], targets: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """See `Generative`; without targets, what it makes of nothing: one film of its own for all rows."""
        if targets is not None:
            return {self.config.target: self._estimated(targets)}
        rows = next(iter(brain.values()))
        noise = torch.randn(self.shape, generator=torch.Generator().manual_seed(0)).to(rows.device)
        return {self.config.target: self.sample(noise.expand(sum(map(len, brain.values())), *self.shape))}

    @torch.no_grad()
    def sample(
        self,
        noise: Tensor,
        *,
        blurry: Tensor | None = None,
        condition: Tensor | None = None,
        steps: int | None = None,
        guidance: float = 1.0,
        strength: float = 1.0,
    ) -> Tensor:
        """Latents (rows, frames, channels, height, width), in the units of the target.

        Args:
            noise: standard normal, that shape; it alone decides what is left to chance.
            blurry: predicted latents, that shape and in the units of the target.
            condition: (rows, dim) or (rows, tokens, dim).
            steps: how many from pure noise; None takes the setting.
            guidance: away from the estimate without condition by this factor; other than 1 doubles the cost.
            strength: share of the steps that are made, starting from the blurry version under as much noise (SDEdit,
                arXiv 2108.01073); 1 starts from noise alone, 0 gives the blurry version back.
        """
        if blurry is None and strength < 1:
            raise ConfigError(f"strength is {strength} and there is no blurry video to start from; give one, or 1")
        given = torch.zeros_like(noise) if blurry is None else (blurry - self.config.mean) / self.config.sd
        sharp = torch.full((len(noise),), blurry is None, device=noise.device)
        times = _times(steps or self.config.steps, strength)
        x = noise if strength == 1 else noised(given, _filled(times[0], noise), noise) if times else given
        for time, after in pairwise([*times, -1]):
            clean = self._clean(x, _filled(time, noise), given, sharp, condition, guidance)
            now, then = self._alpha_bar[time], self._alpha_bar[after]
            # DDIM without fresh noise (Song et al., arXiv 2010.02502, eq. 12).
            x = then.sqrt() * clean + ((1 - then) / (1 - now)).sqrt() * (x - now.sqrt() * clean)
        return x * self.config.sd + self.config.mean

    def _estimated(self, targets: Mapping[str, Tensor]) -> Tensor:
        """Clean latents from ones noised to a random time, in the units of the target."""
        config = self.config
        clean = (targets[config.target].float() - config.mean) / config.sd
        rows, device = len(clean), clean.device
        times = torch.randint(NUM_STEPS, (rows,), device=device)
        keep, blurry = torch.rand(2, rows, device=device) >= (config.drop if self.training else 0.0)
        condition = None if config.condition is None else _tokens(targets[config.condition])
        x = noised(clean, times, torch.randn_like(clean))
        found = self._estimate(x, times, self.degraded(clean), ~blurry, condition, keep)
        return found * config.sd + config.mean

    def _clean(
        self, x: Tensor, times: Tensor, given: Tensor, sharp: Tensor, condition: Tensor | None, guidance: float
    ) -> Tensor:
        """Guided estimate of clean latents (Ho and Salimans, arXiv 2207.12598)."""
        everybody = torch.ones_like(sharp)
        tokens = None if condition is None else _tokens(condition)
        found = self._estimate(x, times, given, sharp, tokens, everybody)
        if guidance == 1 or condition is None:
            return found
        without = self._estimate(x, times, given, sharp, None, everybody)
        return without + guidance * (found - without)

    def _estimate(
        self, x: Tensor, times: Tensor, given: Tensor, sharp: Tensor, tokens: Tensor | None, keep: Tensor
    ) -> Tensor:
        """Clean latents; the network tells the velocity (Salimans and Ho, arXiv 2202.00512)."""
        velocity = self.network(x, given, times, tokens, keep, sharp).float()
        signal = self._alpha_bar.to(x.device)[times].view(-1, 1, 1, 1, 1)
        return signal.sqrt() * x - (1 - signal).sqrt() * velocity

    def degraded(self, clean: Tensor) -> Tensor:
        """What a prediction of these latents might be like, each row degraded as strongly as chance will."""
        config, (frames, _, height, _) = self.config, self.shape
        fade, noise, space, time = torch.rand(4, len(clean), device=clean.device)
        sds = {1: config.blur * time * frames, 3: config.blur * space * height, 4: config.blur * space * height}
        blurred, wrong = clean, torch.randn_like(clean)
        for axis, sd in sds.items():
            blurred, wrong = smoothed(blurred, axis, sd), smoothed(wrong, axis, sd)
        spread = wrong.flatten(1).std(1)
        left, added = 1 - config.fade * fade, config.noise * noise / spread
        return left.view(-1, 1, 1, 1, 1) * blurred + added.view(-1, 1, 1, 1, 1) * wrong

    @cached_property
    def _alpha_bar(self) -> Tensor:
        """(times + 1,); the last, of time -1, is that of clean latents."""
        return torch.cat([alpha_bar().float(), torch.ones(1)])


def smoothed(x: Tensor, axis: int, sd: Tensor) -> Tensor:
    """Blur (rows, ...) along an axis by a Gaussian of each row's own ``sd`` (rows,), in steps; at an edge, of less."""
    places = torch.arange(x.shape[axis], device=x.device)
    distance = (places[:, None] - places).square() / sd.square().clamp_min(1e-6)[:, None, None]
    weights = (-distance / 2).softmax(2)
    return (weights @ x.movedim(axis, 1).flatten(2)).unflatten(2, x.movedim(axis, 1).shape[2:]).movedim(1, axis)


def condition_shape(condition: str | None, sizes: Sizes) -> tuple[int, int] | None:
    """(tokens, dim) of the target that tells what is seen, or a `ConfigError`."""
    if condition is None:
        return None
    shape = sizes.targets.get(condition)
    if shape is None or len(shape) not in (1, 2):
        raise ConfigError(
            f"condition '{condition}' has shape {shape}, expected a target (dim,) or (tokens, dim) among "
            f"{', '.join(sizes.targets)}; set model.condition or view.targets"
        )
    return (math.prod(shape[:-1]), shape[-1])


def _tokens(condition: Tensor) -> Tensor:
    """(rows, dim) or (rows, tokens, dim) to (rows, tokens, dim)."""
    return condition.float().view(len(condition), -1, condition.shape[-1])


def _filled(time: int, rows: Tensor) -> Tensor:
    return torch.full((len(rows),), time, device=rows.device)


def _times(steps: int, strength: float) -> list[int]:
    """The last ``strength`` of the times of ``steps`` even steps from pure noise; none where that rounds to none."""
    return [round(NUM_STEPS * left / steps) - 1 for left in range(round(steps * strength), 0, -1)]
