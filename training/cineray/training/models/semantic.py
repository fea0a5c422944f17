"""The semantic reconstructor: brains to the image tokens of what was on the screen.

MindEye2 (arXiv 2403.11207, section 2.2) and NeuroClips (arXiv 2410.19452, section 3.2; specs/neuroclips.md, sections 2
and 9): a ridge per subject, a mixer, a head that makes *backbone* tokens, and a projector that makes of each of them
the token that is compared with the image's.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from cineray.core.config import Config
from cineray.core.errors import ConfigError
from cineray.training.models.base import Sizes, Trial
from cineray.training.models.mixers import Mixer, make_mixer
from cineray.training.models.published_config import PublishedConfig
from cineray.training.models.read_in import BrainReader, Reading
from cineray.training.models.token_heads import TokenHead, make_projector, make_token_head

__all__ = ["Decoded", "SemanticConfig", "SemanticDecoder", "tokens_shape"]


class SemanticConfig(Config):
    """Settings of the semantic reconstructor; the defaults are the published network without its inert half."""

    name: Literal["semantic"] = "semantic"
    target: str = "clip_tokens"
    """What is reconstructed: (tokens, dim), or one vector (dim,), which counts as one token."""
    text_target: str | None = None
    """The caption's embedding (dim,), predicted from the mean of the reconstructed tokens by one matrix."""
    train_text: bool = True
    """False keeps the matrix as it is loaded (``published``), as NeuroClips does."""
    read_in: Reading = "window"
    """What a subject's layer reads (`cineray.training.models.read_in.Reading`)."""
    dim: int = Field(default=4096, ge=1)
    """Width of the shared space."""
    mixer: Mixer = "none"
    depth: int = Field(default=4, ge=1)
    """Blocks of the mixer."""
    dropout: float = Field(default=0.15, ge=0, lt=1)
    """In the blocks of the mixer."""
    head_dropout: float = Field(default=0.0, ge=0, lt=1)
    """On the vector that the heads read; none in public code, useful where data are few."""
    head: TokenHead = "full"
    rank: int = Field(default=256, ge=1)
    """Of the heads ``low_rank`` and ``tokenwise``."""
    published: tuple[PublishedConfig, ...] = ()
    """Weights of others to begin with, file after file."""

    @model_validator(mode="after")
    def _each_setting_acts(self) -> Self:
        """A value that is not the default must change the network: a search or an ablation over it compares nothing."""
        inert = {"mixer": ("none", ("depth", "dropout")), "head": ("full", ("rank",))}
        for choice, (value, names) in inert.items():
            for name in names if getattr(self, choice) == value else ():
                found, default = getattr(self, name), type(self).model_fields[name].default
                if found != default:
                    raise ValueError(
                        f"found {name}={found} beside {choice}={value}, where it does nothing; leave {name} at "
                        f"{default}, or set another {choice}"
                    )
        return self

    def build(self, sizes: Sizes) -> "SemanticDecoder":
        """Make the network for these subjects and targets."""
        return SemanticDecoder(self, sizes)


@dataclass(frozen=True)
class Decoded:
    """What the reconstructor makes of a batch."""

    vector: Tensor
    """(batch, dim): the shared space, behind the mixer."""
    backbone: Tensor
    """(batch, tokens, width)."""
    projected: Tensor
    """(batch, tokens, width): the reconstructed tokens."""


class SemanticDecoder(BrainReader):
    """(rows, scans, voxels) per subject to tokens, the caption's embedding and what else the view asks for."""

    def __init__(self, config: SemanticConfig, sizes: Sizes) -> None:
        super().__init__(config.read_in, config.dim, sizes)
        tokens, width = tokens_shape(sizes, config.target)
        self.shape = sizes.targets[config.target]
        self.target, self.text_target = config.target, config.text_target
        self.published = config.published
        self.mixer = make_mixer(config.mixer, config.dim, config.depth, config.dropout)
        self.dropout = nn.Dropout(config.head_dropout)
        self.head = make_token_head(config.head, config.dim, tokens, width, config.rank)
        self.projector = make_projector(width)
        self.text = None
        if config.text_target is not None:
            self.text = nn.Linear(width, *target_shape(sizes, config.text_target, "dim"), bias=False)
            self.text.requires_grad_(config.train_text)
        others = {t: s for t, s in sizes.targets.items() if t not in (config.target, config.text_target)}
        self.shapes = others
        self.others = nn.ModuleDict({t: nn.Linear(config.dim, math.prod(s)) for t, s in others.items()})

    def forward(self, brain: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every subject layer runs, in the order of ``brain``, with zero rows if need be."""
        found = self.decode(brain)
        return {self.target: found.projected.reshape(len(found.projected), *self.shape), **self.beside(found)}

    def fit(self, trials: Iterable[Trial]) -> None:
        """See `ClosedForm`: not solved, but loaded."""
        for weights in self.published:
            weights.load(self)

    def decode(self, brain: Mapping[str, Tensor]) -> Decoded:
        """Tokens before and behind the projector."""
        vector = self.dropout(self.mixer(self.read(brain)))
        backbone = self.head(vector)
        return Decoded(vector, backbone, self.projector(backbone))

    def beside(self, found: Decoded) -> dict[str, Tensor]:
        """Predictions of the targets other than the tokens."""
        out = {name: head(found.vector).unflatten(1, self.shapes[name]) for name, head in self.others.items()}
        if self.text is not None and self.text_target is not None:
            out[self.text_target] = self.text(found.projected.mean(1))
        return out


def tokens_shape(sizes: Sizes, target: str) -> tuple[int, ...]:
    """(tokens, dim) of a target; a vector (dim,) is one token.

    Raises:
        ConfigError: the view does not have the target, or it has more axes.
    """
    if len(sizes.targets.get(target, ())) == 1:
        return (1, *target_shape(sizes, target, "dim"))
    return target_shape(sizes, target, "tokens", "dim")


def target_shape(sizes: Sizes, target: str, *axes: str) -> tuple[int, ...]:
    """Shape of one row of a target that has these axes.

    Raises:
        ConfigError: the view does not have the target, or it has other axes.
    """
    if target not in sizes.targets:
        raise ConfigError(
            f"the view has the targets {', '.join(sizes.targets)}, the model predicts '{target}'; "
            "add it to view.targets (`cineray features` computes it) or name another in the model's settings"
        )
    shape = sizes.targets[target]
    if len(shape) != len(axes):
        raise ConfigError(
            f"target '{target}' has shape {shape}, the model expects ({', '.join(axes)}); "
            "name another target in the model's settings"
        )
    return shape
