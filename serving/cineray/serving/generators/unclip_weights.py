"""The unCLIP UNet: its full-size shape, and its weights from a folder or from the published checkpoint."""

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cineray.core.errors import ConfigError
from cineray.core.pretrained import Part, locate
from cineray.serving.generators.parts import PRECISIONS, Precision, load

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

__all__ = ["CHECKPOINT", "FULL_SIZE", "load_unclip", "read_checkpoint"]

CHECKPOINT = "unclip6_epoch0_step110000.ckpt"
FULL_SIZE: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),  # numbers of heads, each 64 wide
    "use_linear_projection": True,
    "cross_attention_dim": 1664,
    "class_embed_type": "projection",
    "projection_class_embeddings_input_dim": 1024,
    "sample_size": 96,
}
"""Arguments of the published engine's UNet."""


def load_unclip(part: Part, *, device: torch.device, precision: Precision) -> "UNet2DConditionModel":
    """The UNet of a part, from whichever of the two forms its folder holds."""
    from diffusers import UNet2DConditionModel

    folder = locate(part)
    if not (folder / CHECKPOINT).is_file():
        return load(UNet2DConditionModel, part, device=device, precision=precision)
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel(**FULL_SIZE)
    try:
        unet.load_state_dict(read_checkpoint(folder / CHECKPOINT, dict(unet.config)), assign=True)
    except RuntimeError as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"{folder / CHECKPOINT} does not fit the published unCLIP engine: {text:.200}") from error
    return unet.to(device=device, dtype=PRECISIONS[precision]).eval().requires_grad_(False)


def read_checkpoint(path: Path, config: dict[str, Any]) -> dict[str, Tensor]:
    """A published checkpoint's UNet under diffusers' names; loads nothing but tensors."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    try:
        whole: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ConfigError(f"{path} holds more than tensors, which is not loaded; save its state_dict alone") from error
    state = whole.get("state_dict", whole)
    if not any(name.startswith("model.diffusion_model.") for name in state):
        raise ConfigError(f"{path} holds no model.diffusion_model, expected the published unCLIP checkpoint")
    return convert_ldm_unet_checkpoint(state, config)
