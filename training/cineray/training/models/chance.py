"""Chance: white noise with the targets' mean and spread, which knows nothing of the stimulus.

The noise of a row is a hash of the row's own bits: the same scan always gives the same prediction, alone or in a batch,
on any number of workers. A random *linear map* would not do: it keeps what is in the brain and, with few targets, some
maps decode well by luck.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from cineray.core.config import Config
from cineray.training.models.base import Sizes, Trial
from cineray.training.models.linear import count_values, flat_targets, split_targets

__all__ = ["ChanceConfig", "ChanceDecoder"]

GOLDEN, FIRST, SECOND = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15
"""Constants of splitmix64 (Steele, Lea & Flood 2014) as signed 64-bit integers; products wrap."""


class ChanceConfig(Config):
    """Settings of the chance baseline."""

    name: Literal["chance"] = "chance"
    seed: int = 0

    def build(self, sizes: Sizes) -> "ChanceDecoder":
        """Standard normal until `ChanceDecoder.fit` sets mean and spread."""
        return ChanceDecoder(self, sizes)


class ChanceDecoder(nn.Module):
    """A subject without training rows is guessed at like everybody else."""

    def __init__(self, config: ChanceConfig, sizes: Sizes) -> None:
        super().__init__()
        self.seed = config.seed
        self.shapes = dict(sizes.targets)
        self.mean = nn.Parameter(torch.zeros(count_values(self.shapes)))
        self.sd = nn.Parameter(torch.ones(count_values(self.shapes)))

    def forward(self, brain: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Noise for every row, in the order of ``brain``."""
        hashes = torch.cat([_hashed(rows.flatten(1)) for rows in brain.values()])
        return split_targets(self.mean + self.sd * _noise(hashes, len(self.mean), self.seed), self.shapes)

    @torch.no_grad()
    def fit(self, trials: Iterable[Trial]) -> None:
        """Mean and deviation of the training targets."""
        target = np.concatenate([flat_targets(t, self.shapes) for t in trials])
        self.mean.copy_(torch.from_numpy(target.mean(0)))
        self.sd.copy_(torch.from_numpy(target.std(0)))


def _hashed(rows: Tensor) -> Tensor:
    """(rows, values) float32 to (rows,) int64; sums of integers do not depend on their order."""
    bits = rows.float().contiguous().view(torch.int32).to(torch.int64)
    odd = 2 * torch.arange(bits.shape[1], device=bits.device) + 1
    return (bits * (odd * GOLDEN)).sum(1)


def _noise(hashes: Tensor, num: int, seed: int) -> Tensor:
    """(rows,) to (rows, num) standard normal numbers, a splitmix64 sequence for each row.

    Rows start at mixed hashes: the raw ones may differ by a step of the sequence and would give each other's numbers.
    """
    start = _mixed(hashes + seed)[:, None]
    bits = _mixed(start + GOLDEN * torch.arange(1, num + 1, device=hashes.device))
    return torch.special.ndtri((_shifted(bits, 11).double() + 0.5) / 2**53).float()


def _mixed(z: Tensor) -> Tensor:
    z = (z ^ _shifted(z, 30)) * FIRST
    z = (z ^ _shifted(z, 27)) * SECOND
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, places: int) -> Tensor:
    """Logical shift to the right, zeros coming in."""
    return (z >> places) & ((1 << (64 - places)) - 1)
