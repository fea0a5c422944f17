"""The published parts' full sizes, for what needs their shape and not their weights: fitting a machine, timing."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    MotionAdapter,
    SparseControlNetModel,
    UNet2DConditionModel,
    UNetMotionModel,
)
from torch import Tensor

from cineray.serving.generators.animatediff import AnimateDiff, AnimateDiffConfig
from cineray.serving.generators.autoencoder import Autoencoder
from cineray.serving.generators.keyframe import Keyframer
from cineray.serving.generators.parts import PRECISIONS

__all__ = ["CONTEXT", "full_size_animatediff", "full_size_autoencoder", "full_size_control", "full_size_unet"]

CONTEXT = (77, 768)
"""Tokens and width of Stable Diffusion 1.5's text."""


def full_size_unet() -> UNetMotionModel:
    """Stable Diffusion 1.5's UNet with the motion layers of AnimateDiff v3, which leave the middle block out."""
    flat = UNet2DConditionModel(cross_attention_dim=CONTEXT[1])
    made: Any = UNetMotionModel.from_unet2d(flat, MotionAdapter(use_motion_mid_block=False))
    return made


def full_size_control() -> SparseControlNetModel:
    """SparseCtrl's RGB variant."""
    return SparseControlNetModel(cross_attention_dim=CONTEXT[1])


def full_size_autoencoder(*, tiny: bool) -> Autoencoder:
    """Stable Diffusion's autoencoder, or the tiny one of the same latents."""
    if tiny:
        return Autoencoder(AutoencoderTiny())
    blocks: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
    }
    return Autoencoder(AutoencoderKL(**blocks))


def full_size_animatediff(
    settings: AnimateDiffConfig,
    *,
    tiny: bool,
    device: torch.device,
    keyframer: Keyframer,
    text: Callable[[Sequence[str]], Tensor],
) -> AnimateDiff:
    """The generator of these settings with random weights, on ``device`` from the start."""
    with torch.device(device):
        parts: list[Any] = [full_size_unet(), full_size_control(), full_size_autoencoder(tiny=tiny)]
    for model in (parts[0], parts[1], parts[2].model):
        model.to(device, PRECISIONS[settings.precision]).eval().requires_grad_(False)
    if settings.compiled:
        parts[0].compile()
        parts[1].compile()
    return AnimateDiff(
        settings=settings, keyframer=keyframer, text=text, autoencoder=parts[2], unet=parts[0], control=parts[1]
    )
