"""Diffusion over image tokens: how they are noised, and how clean ones are drawn with a network that estimates them.

The cosine schedule of Nichol and Dhariwal (arXiv 2102.09672, eq. 17) over 100 steps; the network estimates the clean
tokens themselves.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

__all__ = ["NUM_STEPS", "Denoise", "Sampler", "alpha_bar", "legacy_times", "noised", "sample"]

NUM_STEPS = 100
OFFSET, MAX_BETA = 0.008, 0.999

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(batch, ...) noisy and (batch,) times to (batch, ...) estimates of the clean."""

Sampler = Literal["ddim", "dalle2-legacy"]
"""``ddim``: the textbook's, from the last step in equal strides (Song et al., arXiv 2010.02502, eq. 12).
``dalle2-legacy``: the one that MindEye2's and NeuroClips' scores were made with: 20 steps are 19 evaluations at t = 94,
89, …, 4, and strides count with the noise of the step before each."""


def betas() -> Tensor:
    """(steps,) float64."""
    turn = (torch.arange(NUM_STEPS + 1, dtype=torch.float64) / NUM_STEPS + OFFSET) / (1 + OFFSET)
    signal = (turn * torch.pi / 2).cos() ** 2
    return (1 - signal[1:] / signal[:-1]).clamp(max=MAX_BETA)


def alpha_bar() -> Tensor:
    """(steps,) float64: share of the signal's variance that is left at each step."""
    return (1 - betas()).cumprod(0)


def noised(clean: Tensor, times: Tensor, noise: Tensor) -> Tensor:
    """(batch, ...) clean rows as they are at their (batch,) times."""
    signal = alpha_bar().to(clean.device, torch.float32)[times].view(-1, *[1] * (clean.ndim - 1))
    return signal.sqrt() * clean + (1 - signal).sqrt() * noise


def sample(denoise: Denoise, noise: Tensor, *, sampler: Sampler, eta: float) -> Tensor:
    """Draw clean rows.

    Args:
        denoise: the network.
        noise: (1 + steps, batch, ...) standard normal: where to start, and what each step adds.
        sampler: which grid and rule.
        eta: how much of the noise is drawn anew at each step, 0 (none) to 1.
    """
    return (_ddim if sampler == "ddim" else _legacy)(denoise, noise, eta)


def _ddim(denoise: Denoise, noise: Tensor, eta: float) -> Tensor:
    from diffusers import DDIMScheduler  # takes a second, and other models do without

    scheduler = DDIMScheduler(
        num_train_timesteps=NUM_STEPS,
        trained_betas=betas().numpy(),
        clip_sample=False,
        prediction_type="sample",
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(len(noise) - 1)
    x = noise[0]
    for time, fresh in zip(scheduler.timesteps.tolist(), noise[1:], strict=True):
        clean = denoise(x, _times(time, x))
        x = scheduler.step(clean, time, x, eta=eta, variance_noise=fresh, return_dict=False)[0]
    return x


def legacy_times(steps: int) -> list[int]:
    """Where DALLE2-pytorch's sampler stands; at the last, -1, it is done."""
    return torch.linspace(-1, NUM_STEPS, steps + 1)[:-1].int().tolist()[::-1]


def _legacy(denoise: Denoise, noise: Tensor, eta: float) -> Tensor:
    signal = alpha_bar()
    before = torch.cat([torch.ones(1), signal[:-1]])
    times = legacy_times(len(noise) - 1)
    x = clean = noise[0]
    for time, after, fresh in zip(times, times[1:], noise[1:], strict=False):
        clean = denoise(x, _times(time, x))
        if after < 0:
            break
        error = (x - signal[time].sqrt() * clean) / (1 - signal[time]).sqrt()
        now, then = before[time], before[after]
        drawn = eta * ((1 - now / then) * (1 - then) / (1 - now)).sqrt()
        x = then.sqrt() * clean + drawn * fresh + (1 - then - drawn**2).sqrt() * error
    return clean


def _times(time: int, x: Tensor) -> Tensor:
    return torch.full((len(x),), time, device=x.device)
