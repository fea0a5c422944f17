"""Low-rank adapters (arXiv 2106.09685), folded into the weights that they adapt."""

from collections.abc import Iterable

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from cineray.core.errors import ConfigError
from cineray.core.pretrained import Part, locate

__all__ = ["fold_adapter"]

DOWN, UP = ".lora_A.weight", ".lora_B.weight"
FLAT = "lora_unet_"
"""Before names whose dots are underscores, as kohya's trainer and the consistency models' authors write them."""


@torch.no_grad()
def fold_adapter(unet: nn.Module, part: Part, scale: float) -> None:
    """Add ``scale`` · up · down to every weight that a part adapts, as ``load_lora_weights`` and ``fuse_lora`` do.

    Those need a library more, which keeps adapters apart from the weights; here nobody takes one out again. Names are
    any that diffusers reads, with or without ``unet.`` before them, or ``lora_unet_`` and underscores, with the
    adapter's own factor alpha / rank; adapted are matrices and convolutions.

    Raises:
        ConfigError: The part is missing, its folder does not hold one safetensors file, or that does not fit.
    """
    weights = unet.state_dict()
    layers = [name.removesuffix(".weight") for name in weights if name.endswith(".weight")]
    for layer, (down, up) in _pairs(part, layers).items():
        weight = weights.get(f"{layer}.weight")
        found, expected = (up.shape[0], *down.shape[1:]), None if weight is None else tuple(weight.shape)
        if weight is None or found != expected:
            raise ConfigError(
                f"the pretrained part {part.label} adapts {layer} by {found}, the UNet has {expected or 'none'} there; "
                "name an adapter of Stable Diffusion 1.5"
            )
        weight += (scale * (up.float().flatten(1) @ down.float().flatten(1))).reshape(weight.shape).to(weight)


def _pairs(part: Part, layers: Iterable[str]) -> dict[str, tuple[Tensor, Tensor]]:
    """Layer -> (rank, in) and (out, rank); of a convolution (rank, in, height, width) and (out, rank, 1, 1)."""
    from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft

    files = sorted(locate(part).glob("*.safetensors"))
    if len(files) != 1:
        raise ConfigError(
            f"the pretrained part {part.label} holds {len(files)} safetensors files, expected one adapter"
        )
    state = load_file(files[0])
    if any(name.startswith(FLAT) for name in state):
        state = _dotted(state, layers)
    else:
        state = {name.removeprefix("unet."): x for name, x in convert_unet_state_dict_to_peft(state).items()}
    adapted = [name.removesuffix(DOWN) for name in state if name.endswith(DOWN)]
    strange = state.keys() - {layer + half for layer in adapted for half in (DOWN, UP)}
    lone = [n for n in adapted if n + UP not in state or not _fit(state[n + DOWN], state[n + UP])]
    if strange or lone or not adapted:
        raise ConfigError(
            f"{files[0]} holds {min(strange or lone or {'nothing'})}, expected pairs of matrices, down and up, of "
            "one rank and nothing else; name the adapter's own file"
        )
    return {layer: (state[layer + DOWN], state[layer + UP]) for layer in adapted}


def _fit(down: Tensor, up: Tensor) -> bool:
    """Whether they have one rank and belong to one kind of layer."""
    return up.ndim == down.ndim and up.shape[1:] == (len(down), *[1] * (down.ndim - 2))


def _dotted(state: dict[str, Tensor], layers: Iterable[str]) -> dict[str, Tensor]:
    """Names as the network's layers have them, and alpha / rank in the up matrix; names of no layer stay."""
    names = {FLAT + layer.replace(".", "_"): layer for layer in layers}
    dotted = {}
    for name, x in state.items():
        flat, _, half = name.partition(".")
        layer = names.get(flat, flat)
        if half == "lora_down.weight":
            dotted[layer + DOWN] = x
        elif half == "lora_up.weight":
            alpha = state.get(f"{flat}.alpha")
            dotted[layer + UP] = x if alpha is None else x.float() * (alpha.float() / x.shape[1])
        elif half != "alpha":
            dotted[name] = x
    return dotted
