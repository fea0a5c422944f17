"""Contrastive losses of the perception reconstructor (NeuroClips, arXiv 2410.19452).

`SoftContrastConfig` is what the released code computes, over the tokens of all frames of the batch;
`FrameContrastConfig` what the paper writes (equation 1), over the frames of one clip.
"""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from cineray.core.errors import ConfigError
from cineray.datasets.batch import Batch
from cineray.training.losses.info_nce import Contrastive
from cineray.training.losses.tiles import TILE, contrastive, travel
from cineray.training.world import World

__all__ = ["FrameContrastConfig", "LikenessTargets", "SoftContrastConfig"]


class SoftContrastConfig(Contrastive):
    """Tokens P are to be as like the tokens T' as the true tokens T are.

    Cross-entropy, both directions, between softmax(T T'ᵀ / temperature) and softmax(P T'ᵀ / temperature) over all
    tokens of the global batch, mean over tokens. The last axis of the target holds a token, the others number them.
    """

    name: Literal["soft_contrast"] = "soft_contrast"
    temperature: float = Field(default=0.2, gt=0)
    augmented: str | None = None
    """Target with the tokens T' of the same frames, augmented; None compares with the true tokens themselves."""

    def share(self, outputs: Mapping[str, Tensor], batch: Batch, world: World) -> Tensor:
        """See `Loss`."""
        seen = batch.stimulus_row >= 0
        true = batch.targets[self.target]
        keys = batch.targets[self.augmented or self.target]
        p, t, k = (self._tokens(x[seen]) for x in (outputs[self.output or self.target], true, keys))
        if not p.shape == t.shape == k.shape:
            raise ConfigError(
                f"loss '{self.name}' compares {p.shape[0]} predicted tokens of {p.shape[1]} values with {t.shape[0]} "
                f"of {t.shape[1]} and {k.shape[0]} of {k.shape[1]}; set losses.N.output and losses.N.augmented to fit"
            )
        targets = LikenessTargets(t, k, self.temperature, world)
        return contrastive(p, k, targets, self.temperature, world) / (batch.global_rows * math.prod(true.shape[1:-1]))

    def _tokens(self, x: Tensor) -> Tensor:
        """(rows, ..., dim) to unit tokens (rows · ..., dim)."""
        return normalize(x.float().flatten(0, -2), dim=1)


class LikenessTargets:
    """Soft targets softmax(anchors keysᵀ / temperature), within rows and within columns (`tiles.Targets`)."""

    def __init__(self, anchors: Tensor, keys: Tensor, temperature: float, world: World, tile: int = TILE) -> None:
        """(rows, dim) both; row i of the anchors stands for query i."""
        self.anchors = anchors.detach() / temperature
        lse = keys.new_full((len(anchors),), -torch.inf)

        def visit(payload: list[Tensor]) -> None:
            column_lse, columns = payload
            for row in range(0, len(anchors), tile):
                rows = slice(row, row + tile)
                for col in range(0, len(columns), tile):
                    cols = slice(col, col + tile)
                    likeness = self.anchors[rows] @ columns[cols].T
                    lse[rows] = torch.logaddexp(lse[rows], likeness.logsumexp(1))
                    column_lse[cols] = torch.logaddexp(column_lse[cols], likeness.logsumexp(0))

        start = keys.new_full((len(keys),), -torch.inf)
        self.lse = lse
        self.columns = [travel([start], [keys.detach()], visit, world)[0]]

    def tile(self, rows: slice, keys: Tensor, columns: list[Tensor]) -> tuple[Tensor, Tensor]:
        """See `Targets`."""
        likeness = self.anchors[rows] @ keys.T
        return (likeness - self.lse[rows, None]).exp_(), (likeness - columns[0]).exp_()


class FrameContrastConfig(Contrastive):
    """Every predicted frame chooses its own among the frames of its clip, and the reverse: symmetric InfoNCE.

    The second axis of output and target numbers the frames. Clips do not meet, so ranks have nothing to exchange.
    """

    name: Literal["frame_contrast"] = "frame_contrast"
    temperature: float = Field(default=0.1, gt=0)

    def share(self, outputs: Mapping[str, Tensor], batch: Batch, world: World) -> Tensor:
        """See `Loss`; mean over the frames of a row, share over rows."""
        seen = batch.stimulus_row >= 0
        p, t = (_frames(x[seen]) for x in (outputs[self.output or self.target], batch.targets[self.target]))
        if p.shape != t.shape:
            raise ConfigError(
                f"loss '{self.name}' compares {p.shape[1]} predicted frames of {p.shape[2]} values with {t.shape[1]} "
                f"of {t.shape[2]}; set losses.N.output to what predicts '{self.target}'"
            )
        logits = p @ t.mT / self.temperature
        own = torch.arange(p.shape[1], device=p.device).expand(len(p), -1)
        both = (cross_entropy(x, own, reduction="sum") for x in (logits, logits.mT))
        return sum(both) / (2 * p.shape[1] * batch.global_rows)  # type: ignore[return-value]


def _frames(x: Tensor) -> Tensor:
    """(rows, frames, ...) to unit vectors (rows, frames, values)."""
    return normalize(x.float()[..., None].flatten(2), dim=2)
