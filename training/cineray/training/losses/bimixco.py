"""BiMixCo: InfoNCE on blended brains (MindEye, arXiv 2305.18274, eq. 2).

The released code overwrites targets where a row is its own partner and points the partners of later subjects into the
first subject's rows (specs/mindeye2.md, section 1, facts 3 and 4); here the two targets are added, and partners are
rows of the batch.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from cineray.datasets.batch import Batch
from cineray.training.losses.info_nce import Contrastive
from cineray.training.losses.tiles import StimulusTargets, contrastive
from cineray.training.mixing import MixedBatch
from cineray.training.world import World

__all__ = ["BiMixCoConfig"]


class BiMixCoConfig(Contrastive):
    """A blended row chooses both its stimuli, in the proportion of the blend; an unmixed batch makes this InfoNCE."""

    name: Literal["bimixco"] = "bimixco"
    temperature: float = Field(default=0.006, gt=0)

    @property
    def mixes(self) -> bool:
        """See `Loss`."""
        return True

    def share(self, outputs: Mapping[str, Tensor], batch: Batch, world: World) -> Tensor:
        """See `Loss`."""
        brain, stimulus, seen = self.pairs(outputs, batch)
        numbers = batch.stimulus_row[seen]
        partners, kept = numbers, torch.ones_like(brain[:, 0])
        if isinstance(batch, MixedBatch):
            partners, kept = batch.stimulus_row[batch.partner[seen]], batch.kept[seen]
        targets = StimulusTargets(numbers, partners, kept, world)
        return contrastive(brain, stimulus, targets, self.temperature, world) / batch.global_rows
