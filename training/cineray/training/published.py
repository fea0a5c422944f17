"""Weights that others published: their names, and where those tensors belong in our models.

MindEye2 (arXiv 2403.11207) and NeuroClips (arXiv 2410.19452) publish one state dict of their whole network; their code
loads it with ``strict=False``, so that what does not fit is left at random without a word. Here a checkpoint has parts,
a caller says which it wants, and of those every tensor must be there, be of our shape, and be known.
"""

import pickle
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from cineray.core.errors import ConfigError, IntegrityError
from cineray.training.models.base import subject_key
from cineray.training.models.mixers import ReleasedMixer
from cineray.training.models.prior_network import ROTARY_DIMS, rotary_angles
from cineray.training.models.prior_sampler import NUM_STEPS, betas

__all__ = ["PARTS", "load_published", "read_published"]

PARTS: dict[str, tuple[str, ...]] = {
    "ridge": ("ridge.linears.",),
    "backbone": (
        "backbone.mixer_blocks1.",
        "backbone.mixer_blocks2.",
        "backbone.backbone_linear.",
        "backbone.clip_proj.",
    ),
    "text": ("clipproj.",),
    "prior": ("diffusion_prior.",),
    "low_level": ("backbone.blin1.", "backbone.bnorm.", "backbone.bupsampler.", "backbone.b_maps_projector."),
}
"""How the names of each part begin; ``low_level`` is MindEye2's blurry branch, which no model here has."""

MIXER_LAYERS = ("0.bias", "1.0.weight", "1.0.bias", "1.3.weight", "1.3.bias")
SCHEDULE = [
    "betas",
    "alphas_cumprod",
    "alphas_cumprod_prev",
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_variance",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
    "p2_loss_weight",
]
"""Tables that DALLE2-pytorch saves with its weights; all of them follow from the first."""

NET = "diffusion_prior.net."
LAYER = rf"{NET}causal_transformer.layers.\1."
RULES: tuple[tuple[str, str, str], ...] = (
    ("backbone", r"mixer\.units\.(\d+)\.0", r"backbone.mixer_blocks1.\1.0"),
    ("backbone", r"mixer\.units\.(\d+)\.1", r"backbone.mixer_blocks1.\1.1.0"),
    ("backbone", r"mixer\.units\.(\d+)\.4", r"backbone.mixer_blocks1.\1.1.3"),
    ("backbone", r"mixer\.tokens\.(\d+)\.0", r"backbone.mixer_blocks2.\1.0"),
    ("backbone", r"mixer\.tokens\.(\d+)\.1", r"backbone.mixer_blocks2.\1.1.0"),
    ("backbone", r"mixer\.tokens\.(\d+)\.4", r"backbone.mixer_blocks2.\1.1.3"),
    ("backbone", r"head\.0", "backbone.backbone_linear"),
    ("backbone", r"projector\.(\d+)", r"backbone.clip_proj.\1"),
    ("prior", r"network\.null_brain", f"{NET}null_brain_embeds"),
    ("prior", r"network\.null_image", f"{NET}null_image_embed"),
    ("prior", r"network\.place", f"{NET}learned_query"),
    ("prior", r"network\.time\.0", f"{NET}to_time_embeds.0.1.net.0.0"),
    ("prior", r"network\.time\.2", f"{NET}to_time_embeds.0.1.net.1.0"),
    ("prior", r"network\.time\.4", f"{NET}to_time_embeds.0.1.net.2"),
    ("prior", r"network\.bias", f"{NET}causal_transformer.rel_pos_bias.relative_attention_bias"),
    ("prior", r"network\.layers\.(\d+)\.attention_norm\.weight", f"{LAYER}0.norm.g"),
    ("prior", r"network\.layers\.(\d+)\.query", f"{LAYER}0.to_q"),
    ("prior", r"network\.layers\.(\d+)\.key_value", f"{LAYER}0.to_kv"),
    ("prior", r"network\.layers\.(\d+)\.null_key_value", f"{LAYER}0.null_kv"),
    ("prior", r"network\.layers\.(\d+)\.attention_out", f"{LAYER}0.to_out.0"),
    ("prior", r"network\.layers\.(\d+)\.attention_out_norm\.weight", f"{LAYER}0.to_out.1.g"),
    ("prior", r"network\.layers\.(\d+)\.forward_norm\.weight", f"{LAYER}1.0.g"),
    ("prior", r"network\.layers\.(\d+)\.forward_in", f"{LAYER}1.1"),
    ("prior", r"network\.layers\.(\d+)\.forward_out", f"{LAYER}1.5"),
    ("prior", r"network\.norm\.weight", f"{NET}causal_transformer.norm.g"),
    ("prior", r"network\.out", f"{NET}causal_transformer.project_out"),
)
"""Part, our name, theirs; ``.weight`` and ``.bias`` behind them stay."""


TEXT = "clipproj.proj"
"""Their matrix is ours turned round."""
MIXER_BLOCKS = 4


@dataclass(frozen=True)
class _Tensor:
    """What one tensor of a checkpoint must be."""

    shape: tuple[int, ...]
    ours: str = ""
    """Where it goes; empty for what we compute (and compare with ``value``) or fold into others."""
    value: Tensor | None = None


def read_published(path: Path) -> dict[str, Tensor]:
    """State dict of a published file, mapped into memory; nothing in it is run.

    Whole training states, bare state dicts and NeuroClips' text matrix by itself are told apart by their keys.

    Raises:
        ConfigError: there is no such file.
        IntegrityError: the file is not one of plain tensors.
    """
    if not path.is_file():
        raise ConfigError(f"there is no file of weights {path}; correct published.N.file")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise IntegrityError(
            f"{path} is not a file of plain tensors ({str(error).splitlines()[0]}); fetch it again from its source"
        ) from error
    state = found.get("model_state_dict", found) if isinstance(found, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise IntegrityError(
            f"{path} holds {type(found).__name__}, expected names and tensors; fetch it again from its source"
        )
    return {TEXT: state["proj"]} if set(state) == {"proj"} else state


def load_published(
    model: nn.Module, state: Mapping[str, Tensor], parts: Collection[str], subjects: Sequence[str] = ()
) -> None:
    """Put parts of a published checkpoint into a semantic reconstructor, or a prior with the reconstructor below it.

    What is not among ``parts`` stays as it is. A model without a mixer takes the released one too: the one number that
    it adds goes into the head's bias, which is the same function.

    Args:
        model: a `SemanticDecoder` with the head ``full``, or a `PriorDecoder` on one.
        state: names and tensors as published (`read_published`).
        parts: some of ridge, backbone, text and prior.
        subjects: whose ``ridge.linears.0``, ``ridge.linears.1``, … are, for the part ``ridge``.

    Raises:
        ConfigError: a tensor is missing, unknown or of another shape, or the model is not of the published kind.
    """
    wanted = _wanted(model, parts, subjects)
    _check_names(state, wanted, parts)
    for name, want in wanted.items():
        _check_tensor(name, state[name], want)
    own = model.state_dict()
    with torch.no_grad():
        for name, want in wanted.items():
            if want.ours:
                own[want.ours].copy_(state[name].T if name == TEXT else state[name])
        head = wanted.get("backbone.backbone_linear.weight")
        if head and not wanted["backbone.mixer_blocks1.0.0.weight"].ours:
            own[head.ours.replace("weight", "bias")].add_(own[head.ours].sum(1) * _added_by_mixer(state))


def _wanted(model: nn.Module, parts: Collection[str], subjects: Sequence[str]) -> dict[str, _Tensor]:
    """Published name -> tensor, of the parts asked for."""
    shapes = {name: tuple(x.shape) for name, x in model.state_dict().items()}
    inside = "semantic." if any(name.startswith("network.") for name in shapes) else ""
    found: dict[str, dict[str, _Tensor]] = {}
    for ours, shape in shapes.items():
        plain = ours.removeprefix(inside)
        if not plain.startswith("others."):
            part, name = _renamed(plain, subjects)
            found.setdefault(part, {})[name] = _Tensor(shape[::-1] if name == TEXT else shape, ours)
    for part in parts:
        if part not in found:
            raise ConfigError(f"found part '{part}', expected one that this model has: {', '.join(sorted(found))}")
    if "backbone" in found and not any(".mixer_blocks" in name for name in found["backbone"]):
        found["backbone"] |= _mixer(shapes[f"{inside}head.0.weight"][1])
    if "prior" in found:
        found["prior"] |= _tables(found["prior"])
    return {name: tensor for part in parts for name, tensor in found[part].items()}


def _renamed(plain: str, subjects: Sequence[str]) -> tuple[str, str]:
    """Part and published name of one of our tensors."""
    if plain == "text.weight":
        return "text", TEXT
    if plain.startswith("read_in."):
        _, key, kind = plain.split(".")
        keys = [subject_key(subject) for subject in subjects]
        return "ridge", f"ridge.linears.{keys.index(key) if key in keys else f'of {key}'}.{kind}"
    for part, pattern, theirs in RULES:
        if match := re.fullmatch(pattern + r"(\.weight|\.bias)?", plain):
            return part, match.expand(theirs) + (match[match.re.groups] or "")
    raise ConfigError(
        f"the model has '{plain}', which published networks have not; set its head to full, its mixer to none or "
        "released and its read_in to window"
    )


def _mixer(dim: int) -> dict[str, _Tensor]:
    """The mixer of a checkpoint whose model here has none."""
    with torch.device("meta"):
        mixer = ReleasedMixer(dim, MIXER_BLOCKS, 0.0)
    return {_renamed(f"mixer.{name}", ())[1]: _Tensor(tuple(x.shape)) for name, x in mixer.state_dict().items()}


def _added_by_mixer(state: Mapping[str, Tensor]) -> Tensor:
    """The number that the released mixer adds to every unit, whatever the brain (`ReleasedMixer`)."""
    added = torch.zeros(1)
    for block in range(MIXER_BLOCKS):
        p = {name: state[f"backbone.mixer_blocks2.{block}.{name}"].float() for name in MIXER_LAYERS}
        hidden = gelu(p["1.0.weight"][0] * p["0.bias"] + p["1.0.bias"])
        added = added + p["1.3.weight"][0] * hidden + p["1.3.bias"]
    return added


def _tables(network: Mapping[str, _Tensor]) -> dict[str, _Tensor]:
    """What DALLE2-pytorch saves beside its weights: they follow from the settings, so they tell whether ours agree."""
    keys = [name for name in network if name.endswith(".0.null_kv")]
    dims = min(ROTARY_DIMS, network[keys[0]].shape[1])
    rates = rotary_angles(2, dims)[1]
    found = {name.replace("null_kv", "rotary_emb.freqs"): _Tensor((dims // 2,), value=rates) for name in keys}
    found |= {f"diffusion_prior.noise_scheduler.{name}": _Tensor((NUM_STEPS,)) for name in SCHEDULE[1:]}
    return found | {"diffusion_prior.noise_scheduler.betas": _Tensor((NUM_STEPS,), value=betas().float())}


def _check_names(state: Mapping[str, Tensor], wanted: Mapping[str, _Tensor], parts: Collection[str]) -> None:
    strange = [name for name in state if _part_of(name) is None]
    extra = [name for name in state if _part_of(name) in parts and name not in wanted]
    if names := strange + extra:
        raise ConfigError(
            f"the checkpoint has {_listed(names)}, which this model has no place for; leave the part out, or build the "
            "model with the depth and subjects of the checkpoint"
        )
    if names := [name for name in wanted if name not in state]:
        raise ConfigError(
            f"the checkpoint lacks {_listed(names)}; leave the part out, or name whose each of its ridges is (subjects)"
        )


def _check_tensor(name: str, found: Tensor, want: _Tensor) -> None:
    if tuple(found.shape) != want.shape:
        raise ConfigError(
            f"'{name}' of the checkpoint is {tuple(found.shape)}, the model expects {want.shape}; "
            "build the model with the sizes of the checkpoint"
        )
    if want.value is not None and not found.is_meta and not torch.allclose(found.float(), want.value, atol=1e-5):
        raise ConfigError(
            f"'{name}' of the checkpoint is not the table of the published prior; its scores would not hold"
        )


def _part_of(name: str) -> str | None:
    return next((part for part, starts in PARTS.items() if name.startswith(starts)), None)


def _listed(names: Sequence[str]) -> str:
    return f"'{names[0]}'" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
