"""MixCo: brains of one subject blended in pairs (Kim et al., arXiv 2010.06300), the blend remembered for the loss."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cineray.datasets.batch import Batch

__all__ = ["MixedBatch", "mix"]

BETA = 0.15
"""Both parameters of the Beta distribution of the shares (MindEye2): most blends are nearly pure."""
PROBABILITY = 0.5
"""How often a row is blended at all."""


@dataclass(frozen=True)
class MixedBatch(Batch):
    """A batch whose brains were blended."""

    partner: Tensor
    """(batch,) int64: row **of this batch** whose brain was blended in; a row of the same subject."""
    kept: Tensor
    """(batch,) float32: share of the row's own brain; 1 where nothing was blended in."""


def mix(batch: Batch, generator: torch.Generator) -> MixedBatch:
    """Blend v_i <- k_i v_i + (1 - k_i) v_partner(i) within each subject; rows at rest stay as they are.

    Partners are rows on the same rank, so runs that mix are equal only at equal numbers of workers.
    """
    rows = len(batch)
    device = batch.stimulus_row.device
    shares = _beta(rows, generator)
    kept = torch.where(torch.rand(rows, generator=generator) < PROBABILITY, shares, torch.ones(rows)).to(device)
    partner = torch.arange(rows, device=device)
    brain, start = {}, 0
    for subject, x in batch.brain.items():
        own = slice(start, start + len(x))
        seen = start + (batch.stimulus_row[own] >= 0).nonzero()[:, 0]
        partner[seen] = seen[torch.randperm(len(seen), generator=generator).to(device)]
        share = torch.where(partner[own] == torch.arange(start, start + len(x), device=device), 1.0, kept[own])
        kept[own] = share
        share = share.view(-1, *[1] * (x.ndim - 1))
        brain[subject] = share * x + (1 - share) * x[partner[own] - start]
        start += len(x)
    return MixedBatch(
        brain=brain,
        targets=batch.targets,
        example=batch.example,
        stimulus_row=batch.stimulus_row,
        global_rows=batch.global_rows,
        partner=partner,
        kept=kept,
    )


def _beta(rows: int, generator: torch.Generator) -> Tensor:
    """(rows,) from Beta(BETA, BETA); torch's own sampler takes no generator (Jöhnk's method, 1964, in logarithms)."""
    drawn = torch.zeros(rows)
    wanted = torch.ones(rows, dtype=torch.bool)
    while wanted.any():
        log_x, log_y = torch.rand(2, rows, generator=generator, dtype=torch.float64).log() / BETA
        log_sum = torch.logaddexp(log_x, log_y)
        accepted = wanted & (log_sum <= 0)
        drawn[accepted] = (log_x - log_sum).exp().float()[accepted]
        wanted &= ~accepted
    return drawn
