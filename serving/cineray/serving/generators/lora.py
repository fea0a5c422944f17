"""Low-rank adapters (arXiv 2106.09685), folded into the weights that they adapt."""

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from cineray.core.errors import ConfigError
from cineray.core.pretrained import Part, locate

__all__ = ["fold_adapter"]

DOWN, UP = ".lora_A.weight", ".lora_B.weight"


@torch.no_grad()
def fold_adapter(unet: nn.Module, part: Part, scale: float) -> None:
    """Add ``scale`` · up · down to every weight that a part adapts, as ``load_lora_weights`` and ``fuse_lora`` do.

    Those need a library more, which keeps adapters apart from the weights; here nobody takes one out again. Names are
    any that diffusers reads, with or without ``unet.`` before them.

    Raises:
        ConfigError: The part is missing, its folder does not hold one safetensors file, or that does not fit.
    """
    weights = unet.state_dict()
    for layer, (down, up) in _pairs(part).items():
        weight = weights.get(f"{layer}.weight")
        found, expected = (up.shape[0], down.shape[1]), None if weight is None else tuple(weight.shape)
        if weight is None or found != expected:
            raise ConfigError(
                f"the pretrained part {part.label} adapts {layer} by {found}, the UNet has {expected or 'none'} there; "
                "name an adapter of Stable Diffusion 1.5"
            )
        weight += (scale * (up.float() @ down.float())).to(weight)


def _pairs(part: Part) -> dict[str, tuple[Tensor, Tensor]]:
    """Layer -> (rank, in) and (out, rank)."""
    from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft

    files = sorted(locate(part).glob("*.safetensors"))
    if len(files) != 1:
        raise ConfigError(
            f"the pretrained part {part.label} holds {len(files)} safetensors files, expected one adapter"
        )
    state = {name.removeprefix("unet."): x for name, x in convert_unet_state_dict_to_peft(load_file(files[0])).items()}
    layers = [name.removesuffix(DOWN) for name in state if name.endswith(DOWN)]
    strange = state.keys() - {layer + half for layer in layers for half in (DOWN, UP)}
    lone = [n for n in layers if n + UP not in state or state[n + UP].shape[1:] != state[n + DOWN].shape[:1]]
    if strange or lone or not layers:
        raise ConfigError(
            f"{files[0]} holds {min(strange or lone or {'nothing'})}, expected pairs of matrices, down and up, of "
            "one rank and nothing else; name the adapter's own file"
        )
    return {layer: (state[layer + DOWN], state[layer + UP]) for layer in layers}
