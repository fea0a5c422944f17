"""How every subject's scans enter a space that all subjects share."""

from collections.abc import Mapping
from typing import Literal, cast

import torch
from torch import Tensor, nn

from cineray.training.models.base import Sizes, subject_key

__all__ = ["BrainReader", "Reading", "Residual"]

Reading = Literal["window", "scan"]
"""What a subject's layer reads: the whole window at once, or every scan by itself; a shared linear layer then joins the
scans. ``scan`` has as many times fewer parameters per subject as the window has scans, and what it learns about the
haemodynamic response serves everybody."""

READ_IN_SD = 1e-3
"""Of the first weights of layers that read scan by scan: what a subject's rows do not teach, adds nothing. With few
minutes of data the usual start (0.06 for 300 voxels) is noise that training never removes."""


class BrainReader(nn.Module):
    """Base of models that begin with one linear layer per subject."""

    def __init__(self, reading: Reading, dim: int, sizes: Sizes) -> None:
        super().__init__()
        by_scan = reading == "scan"
        per_voxel = 1 if by_scan else sizes.scans
        self.read_in = nn.ModuleDict({subject_key(s): nn.Linear(per_voxel * v, dim) for s, v in sizes.voxels.items()})
        self.join = nn.Linear(sizes.scans * dim, dim) if by_scan else None
        if by_scan:
            for own in self.read_in.values():
                nn.init.normal_(cast(nn.Linear, own).weight, std=READ_IN_SD)

    def read(self, brain: Mapping[str, Tensor]) -> Tensor:
        """Subject -> (rows, scans, voxels) to (batch, dim), rows in the order of ``brain``.

        Every subject layer runs, in that order, with zero rows if need be.
        """
        return torch.cat([self._read(s, rows) for s, rows in brain.items()])

    def _read(self, subject: str, rows: Tensor) -> Tensor:
        own = self.read_in[subject_key(subject)]
        return own(rows.flatten(1)) if self.join is None else self.join(own(rows).flatten(1))


class Residual(nn.Module):
    """x + MLP(norm(x))."""

    def __init__(self, dim: int, expansion: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, dim * expansion),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(dim * expansion, dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(batch, dim) to the same."""
        return x + self.body(x)
