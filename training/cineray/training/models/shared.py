"""The shared-subject decoder: a linear read-in per subject, a residual trunk and a head per target for all.

MindEye2 (arXiv 2403.11207, section 2.2) without the mixer's inert half (specs: the released one carries 134 M
parameters that never get gradient).
"""

import math
from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

from cineray.core.config import Config
from cineray.training.models.base import Sizes
from cineray.training.models.read_in import BrainReader, Reading, Residual

__all__ = ["SharedConfig", "SharedDecoder"]


class SharedConfig(Config):
    """Settings of the shared-subject decoder."""

    name: Literal["shared"] = "shared"
    read_in: Reading = "window"
    """What a subject's layer reads (`cineray.training.models.read_in.Reading`)."""
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


class SharedDecoder(BrainReader):
    """(rows, scans, voxels) per subject to one prediction per target."""

    def __init__(self, config: SharedConfig, sizes: Sizes) -> None:
        super().__init__(config.read_in, config.dim, sizes)
        self.shapes = dict(sizes.targets)
        blocks = [Residual(config.dim, config.expansion, config.dropout) for _ in range(config.depth)]
        self.trunk = nn.Sequential(*blocks)
        self.heads = nn.ModuleDict({t: nn.Linear(config.dim, math.prod(s)) for t, s in sizes.targets.items()})
        self.retrieval = nn.Linear(config.dim, config.embedding_dim) if config.embedding_dim else None

    def forward(self, brain: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every subject layer runs, in the order of ``brain``, with zero rows if need be."""
        x = self.trunk(self.read(brain))
        out = {name: head(x).unflatten(1, self.shapes[name]) for name, head in self.heads.items()}
        return out if self.retrieval is None else out | {"embedding": self.retrieval(x)}
