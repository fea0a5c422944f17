"""The shared-subject decoder: a linear read-in per subject, a residual trunk and a head per target for all.

MindEye2 (arXiv 2403.11207, section 2.2) without the mixer's inert half (specs: the released one carries 134 M
parameters that never get gradient).
"""

import math
from collections.abc import Mapping
from typing import Literal, cast

import torch
from torch import Tensor, nn

from cineray.core.config import Config
from cineray.training.models.base import Sizes, subject_key

__all__ = ["SharedConfig", "SharedDecoder"]

READ_IN_SD = 1e-3
"""Of the first weights of layers that read scan by scan: what a subject's rows do not teach, adds nothing. With few
minutes of data the usual start (0.06 for 300 voxels) is noise that training never removes."""


class SharedConfig(Config):
    """Settings of the shared-subject decoder."""

    name: Literal["shared"] = "shared"
    read_in: Literal["window", "scan"] = "window"
    """What a subject's layer reads: the whole window at once, or every scan by itself; a shared linear layer then
    joins the scans. ``scan`` has as many times fewer parameters per subject as the window has scans, and what it
    learns about the haemodynamic response serves everybody."""
    dim: int = 256
    """Width of the shared space."""
    depth: int = 1
    """Residual blocks in the trunk; 0 makes the model linear."""
    expansion: int = 2
    dropout: float = 0.15
    embedding_dim: int = 128
    """Width of the retrieval head; 0 leaves it out."""

    def build(self, sizes: Sizes) -> "SharedDecoder":
        """Make the network for these subjects and targets."""
        return SharedDecoder(self, sizes)


class SharedDecoder(nn.Module):
    """(rows, scans, voxels) per subject to one prediction per target."""

    def __init__(self, config: SharedConfig, sizes: Sizes) -> None:
        super().__init__()
        self.shapes = dict(sizes.targets)
        by_scan = config.read_in == "scan"
        per_voxel = 1 if by_scan else sizes.scans
        self.read_in = nn.ModuleDict(
            {subject_key(s): nn.Linear(per_voxel * v, config.dim) for s, v in sizes.voxels.items()}
        )
        self.join = nn.Linear(sizes.scans * config.dim, config.dim) if by_scan else None
        if by_scan:
            for own in self.read_in.values():
                nn.init.normal_(cast(nn.Linear, own).weight, std=READ_IN_SD)
        self.trunk = nn.Sequential(*[Residual(config) for _ in range(config.depth)])
        self.heads = nn.ModuleDict({t: nn.Linear(config.dim, math.prod(s)) for t, s in sizes.targets.items()})
        self.retrieval = nn.Linear(config.dim, config.embedding_dim) if config.embedding_dim else None

    def forward(self, brain: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every subject layer runs, in the order of ``brain``, with zero rows if need be."""
        x = self.trunk(torch.cat([self._read(s, rows) for s, rows in brain.items()]))
        out = {name: head(x).unflatten(1, self.shapes[name]) for name, head in self.heads.items()}
        return out if self.retrieval is None else out | {"embedding": self.retrieval(x)}

    def _read(self, subject: str, rows: Tensor) -> Tensor:
        """(rows, scans, voxels) to (rows, dim)."""
        own = self.read_in[subject_key(subject)]
        return own(rows.flatten(1)) if self.join is None else self.join(own(rows).flatten(1))


class Residual(nn.Module):
    """x + MLP(norm(x))."""

    def __init__(self, config: SharedConfig) -> None:
        super().__init__()
        hidden = config.dim * config.expansion
        self.body = nn.Sequential(
            nn.LayerNorm(config.dim),
            nn.Linear(config.dim, hidden),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(hidden, config.dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(batch, dim) to the same."""
        return x + self.body(x)
