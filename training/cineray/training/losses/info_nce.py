"""InfoNCE between brains and stimuli, both ways (van den Oord et al., arXiv 1807.03748; CLIP, arXiv 2103.00020)."""

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import normalize

from cineray.core.errors import ConfigError
from cineray.datasets.batch import Batch
from cineray.training.losses.base import Loss
from cineray.training.losses.tiles import StimulusTargets, contrastive
from cineray.training.world import World

__all__ = ["Contrastive", "InfoNCEConfig"]


class Contrastive(Loss):
    """What the contrastive losses share: which output is compared with the target, and how sharply."""

    output: str | None = None
    """Output compared with the target; None takes the prediction of the target itself."""
    temperature: float = Field(default=0.05, gt=0)

    def pairs(self, outputs: Mapping[str, Tensor], batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Unit brains and stimuli, (rows, dim) each, and which rows of the batch they are: those with a stimulus."""
        seen = (batch.stimulus_row >= 0).nonzero()[:, 0]
        output = self.output or self.target
        brain, stimulus = outputs[output].flatten(1), batch.targets[self.target].flatten(1)
        if brain.shape[1] != stimulus.shape[1]:
            raise ConfigError(
                f"loss '{self.name}' compares output '{output}' of {brain.shape[1]} values with target "
                f"'{self.target}' of {stimulus.shape[1]}; give the output the target's size or set losses.N.output"
            )
        if len(seen) < len(brain):  # else no copy of what may be all tokens of an image
            brain, stimulus = brain[seen], stimulus[seen]
        return normalize(brain.float(), dim=1), normalize(stimulus.float(), dim=1), seen


class InfoNCEConfig(Contrastive):
    """Every row chooses its stimulus among those of the global batch, and the reverse.

    Rows are shares of ``batch.global_rows``; rows without a stimulus neither choose nor are chosen.
    """

    name: Literal["info_nce"] = "info_nce"
    same_stimulus: bool = True
    """Rows that saw one stimulus are all right answers; False keeps only a row's own (the others are negatives)."""

    def share(self, outputs: Mapping[str, Tensor], batch: Batch, world: World) -> Tensor:
        """See `Loss`."""
        brain, stimulus, seen = self.pairs(outputs, batch)
        numbers = batch.stimulus_row[seen]
        if not self.same_stimulus:
            numbers = torch.arange(len(seen), device=seen.device) * world.size + world.rank
        targets = StimulusTargets(numbers, numbers, torch.ones_like(brain[:, 0]), world)
        return contrastive(brain, stimulus, targets, self.temperature, world) / batch.global_rows
