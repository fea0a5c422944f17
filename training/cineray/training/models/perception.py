"""The perception reconstructor: brains to the latents of a blurry video, frame by frame.

NeuroClips (arXiv 2410.19452, section 3.3): one window of scans becomes feature
maps of all frames of the clip, a video decoder makes latents of them, a second head may predict tokens of the frames.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from cineray.core.config import Config
from cineray.core.errors import ConfigError
from cineray.training.models.base import Sizes, subject_key
from cineray.training.models.mixers import ReleasedMixer
from cineray.training.models.read_in import BrainReader, Reading, Residual
from cineray.training.models.video_decoder import Grouping, VideoDecoder

__all__ = ["PerceptionConfig", "PerceptionDecoder", "ReleasedPerceptionDecoder", "TokenHead"]

RELEASED: dict[str, Any] = {"read_in": "window", "dim": 256, "depth": 4, "hidden": 4096}
"""Of the published network; not to be chosen."""
FRAME_SD = 0.5
"""Of the first embeddings of the frames. Where they are small beside the brain's features (0.02), frames stay alike for
long: a moving bar took twice as many steps."""
TOKEN_DIM = 512
"""Width of the layers of the token head."""


class PerceptionConfig(Config):
    """Settings of the perception reconstructor."""

    name: Literal["perception"] = "perception"
    target: str = "latents"
    """What is reconstructed: (frames, channels, height, width)."""
    aux_target: str | None = None
    """What a second head predicts: (dim,) or tokens (tokens, dim) of a clip, or (frames, tokens, dim) of its frames,
    tokens being a square number."""
    expansion: Literal["factorised", "released"] = "factorised"
    """``factorised``: what all subjects share, plus a learned embedding of the frame. ``released``: the published
    network, in which every subject expands V voxels to 256 and these to V for each frame. It carries 134 M parameters
    that never get gradient; ``read_in``, ``dim``, ``depth`` and ``hidden`` are not to be chosen for it."""
    grouping: Grouping = "clip"
    read_in: Reading = "window"
    """What a subject's layer reads (`cineray.training.models.read_in.Reading`)."""
    dim: int = Field(default=256, ge=1)
    """Width of the shared space."""
    depth: int = Field(default=1, ge=0)
    """Residual blocks on the features of a frame."""
    hidden: int = Field(default=1024, ge=1)
    """Width from which a frame's feature map is made (the paper: 4096)."""
    channels: int = Field(default=64, ge=2)
    """Of the feature maps."""
    widths: tuple[int, ...] = Field(default=(32, 64, 128), min_length=1)
    """Of the video decoder; each but one doubles the height and width of the feature maps."""
    dropout: float = Field(default=0.15, ge=0, lt=1)
    map_dropout: float = Field(default=0.3, ge=0, lt=1)
    """On the feature maps."""

    @model_validator(mode="before")
    @classmethod
    def _as_published(cls, values: Any) -> Any:
        """The published network's own sizes where it is chosen, so that they stand in ``run.yaml``."""
        if not isinstance(values, dict) or values.get("expansion") != "released":
            return values
        for name, has in RELEASED.items():
            if (found := values.get(name, has)) not in (has, cls.model_fields[name].default):
                raise ConfigError(
                    f"found {name}={found} beside expansion=released, whose network has {has}; leave {name} out, or "
                    "set expansion=factorised"
                )
        return values | RELEASED

    def build(self, sizes: Sizes) -> "PerceptionDecoder | ReleasedPerceptionDecoder":
        """Make the network for these subjects and targets."""
        return (PerceptionDecoder if self.expansion == "factorised" else ReleasedPerceptionDecoder)(self, sizes)


class PerceptionDecoder(BrainReader):
    """(rows, scans, voxels) per subject to latents, and to tokens where they are asked for."""

    def __init__(self, config: PerceptionConfig, sizes: Sizes) -> None:
        super().__init__(config.read_in, config.dim, sizes)
        frames = video_shape(config.target, sizes)[0]
        self.frame = nn.Parameter(FRAME_SD * torch.randn(frames, config.dim))
        self.trunk = nn.Sequential(
            *[Residual(config.dim, 2, config.dropout) for _ in range(config.depth)],
            nn.Linear(config.dim, config.hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
        )
        self.heads = FrameHeads(config, config.hidden, sizes)

    def forward(self, brain: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rows in the order of ``brain``."""
        return self.heads(self.trunk((self.read(brain)[:, None] + self.frame).flatten(0, 1)))


class ReleasedPerceptionDecoder(nn.Module):
    """The published network; subjects have everything up to the width of 4096 for themselves.

    Exempt from the rule that every tensor gets gradient: see `ReleasedMixer` and `VideoDecoder`.
    """

    def __init__(self, config: PerceptionConfig, sizes: Sizes) -> None:
        super().__init__()
        frames = video_shape(config.target, sizes)[0]
        self.read_in = nn.ModuleDict(
            {
                subject_key(s): InceptionExtension(sizes.scans * v, frames, config.dropout)
                for s, v in sizes.voxels.items()
            }
        )
        self.mixer = ReleasedMixer(RELEASED["hidden"], RELEASED["depth"], config.dropout)
        self.heads = FrameHeads(config, RELEASED["hidden"], sizes)

    def forward(self, brain: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rows in the order of ``brain``."""
        rows = [self.read_in[subject_key(s)](rows.flatten(1)) for s, rows in brain.items()]
        return self.heads(self.mixer(torch.cat(rows)))


class InceptionExtension(nn.Module):
    """A subject's V voxels to 256, these to V for each frame, these to the shared width."""

    def __init__(self, voxels: int, frames: int, dropout: float) -> None:
        super().__init__()
        self.frames, dim = frames, RELEASED["dim"]
        self.squeeze = nn.Sequential(nn.Linear(voxels, dim), nn.GELU(), nn.Dropout(dropout))
        self.mixer = ReleasedMixer(dim, 1, dropout, linears=1)
        self.expand = nn.Sequential(nn.Linear(dim, frames * voxels), nn.GELU(), nn.Dropout(dropout))
        self.ridge = nn.Linear(voxels, RELEASED["hidden"])

    def forward(self, x: Tensor) -> Tensor:
        """(rows, voxels) to (rows · frames, 4096)."""
        x = self.expand(self.mixer(self.squeeze(x)))
        return self.ridge(x.unflatten(1, (self.frames, -1)).flatten(0, 1))


class FrameHeads(nn.Module):
    """Features of every frame to a feature map, and this to latents and tokens."""

    def __init__(self, config: PerceptionConfig, dim: int, sizes: Sizes) -> None:
        super().__init__()
        self.target, self.aux_target = config.target, config.aux_target
        self.frames, out_channels, *self.size = video_shape(config.target, sizes)
        scale = 2 ** (len(config.widths) - 1)
        self.map_shape = (config.channels, *(math.ceil(side / scale) for side in self.size))
        self.to_map = nn.Sequential(nn.Linear(dim, math.prod(self.map_shape)), nn.Dropout(config.map_dropout))
        self.norm = nn.GroupNorm(1, config.channels)
        self.decoder = VideoDecoder(
            config.channels,
            config.widths,
            out_channels,
            grouping=config.grouping,
            released=config.expansion == "released",
        )
        self.aux = aux_head(config, dim, sizes) if config.aux_target else None

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(rows · frames, dim) to outputs by name."""
        maps = self.norm(self.to_map(x).unflatten(1, self.map_shape))
        height, width = self.size
        latents = self.decoder(maps, self.frames)[..., :height, :width]
        out = {self.target: latents.unflatten(0, (len(x) // self.frames, self.frames))}
        if self.aux is not None and self.aux_target:
            out[self.aux_target] = self.aux(x, maps)
        return out


class VectorHead(nn.Module):
    """One linear layer from the frames' mean features to a vector of the clip."""

    def __init__(self, dim: int, frames: int, out: int) -> None:
        super().__init__()
        self.frames, self.layer = frames, nn.Linear(dim, out)

    def forward(self, features: Tensor, maps: Tensor) -> Tensor:
        """Features (rows · frames, dim) to (rows, out)."""
        return self.layer(features.unflatten(0, (len(features) // self.frames, self.frames)).mean(1))


class TokenHead(nn.Module):
    """Three 1x1 convolutions from the feature maps to tokens."""

    def __init__(self, channels: int, frames: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.frames, self.shape = frames, shape
        self.layers = nn.Sequential(
            nn.Conv2d(channels, TOKEN_DIM, 1, bias=False),
            nn.GroupNorm(1, TOKEN_DIM),
            nn.ReLU(),
            nn.Conv2d(TOKEN_DIM, TOKEN_DIM, 1, bias=False),
            nn.GroupNorm(1, TOKEN_DIM),
            nn.ReLU(),
            nn.Conv2d(TOKEN_DIM, shape[-1], 1),
        )

    def forward(self, features: Tensor, maps: Tensor) -> Tensor:
        """Maps (rows · frames, channels, h, w) to (rows, *shape); a clip's tokens are the frames' mean."""
        tokens = adaptive_avg_pool2d(self.layers(maps), math.isqrt(self.shape[-2])).flatten(2).transpose(1, 2)
        tokens = tokens.unflatten(0, (len(maps) // self.frames, self.frames))
        return tokens if len(self.shape) == 3 else tokens.mean(1)


def video_shape(target: str, sizes: Sizes) -> tuple[int, ...]:
    """(frames, channels, height, width) of a target.

    Raises:
        ConfigError: there is no such target, or it is no video.
    """
    shape = sizes.targets.get(target)
    if shape is None or len(shape) != 4:
        found = f"of shape {shape}" if shape else f"not among {', '.join(sizes.targets)}"
        raise ConfigError(
            f"target '{target}' is {found}, expected (frames, channels, height, width); make it with "
            f"`cineray features` and name it in view.targets and model.target"
        )
    return shape


def aux_head(config: PerceptionConfig, dim: int, sizes: Sizes) -> VectorHead | TokenHead:
    """The second head, or a `ConfigError`."""
    shape, frames = sizes.targets.get(config.aux_target or "", ()), video_shape(config.target, sizes)[0]
    if len(shape) == 1:
        return VectorHead(dim, frames, *shape)
    if len(shape) < 2 or shape[:-2] not in ((), (frames,)) or math.isqrt(shape[-2]) ** 2 != shape[-2]:
        raise ConfigError(
            f"aux_target '{config.aux_target}' has shape {shape}, expected (dim,), (tokens, dim) or "
            f"({frames}, tokens, dim) with a square number of tokens; name another in model.aux_target"
        )
    return TokenHead(config.channels, frames, shape)
