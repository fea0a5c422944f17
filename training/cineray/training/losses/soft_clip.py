"""SoftCLIP: the stimuli's own likeness as the target (MindEye, arXiv 2305.18274, eq. 3)."""

import math
from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field
from torch import Tensor

from cineray.datasets.batch import Batch
from cineray.training.losses.info_nce import Contrastive
from cineray.training.losses.tiles import SoftTargets, contrastive
from cineray.training.world import World

__all__ = ["SoftCLIPConfig"]


class SoftCLIPConfig(Contrastive):
    """Cross-entropy, both directions, against softmax(stimuli stimuliᵀ / temperature)."""

    name: Literal["soft_clip"] = "soft_clip"
    temperature: float = Field(default=0.004, gt=0)
    last_temperature: float | None = Field(default=None, gt=0)
    """Where a cosine over the loss's own epochs ends (MindEye2: .004 to .0075); None keeps it fixed."""

    def at(self, epoch: int, epochs: int) -> Self | None:
        """See `Loss`; the temperature moves with the epoch."""
        if super().at(epoch, epochs) is None or self.last_temperature is None:
            return super().at(epoch, epochs)
        first, end = (int(fraction * epochs) for fraction in self.phase)
        done = (epoch - first) / max(end - first - 1, 1)
        blend = (1 + math.cos(math.pi * done)) / 2
        temperature = self.last_temperature + (self.temperature - self.last_temperature) * blend
        return self.model_copy(update={"temperature": temperature})

    def share(self, outputs: Mapping[str, Tensor], batch: Batch, world: World) -> Tensor:
        """See `Loss`."""
        brain, stimulus, _ = self.pairs(outputs, batch)
        targets = SoftTargets(stimulus, self.temperature, world)
        return contrastive(brain, stimulus, targets, self.temperature, world) / batch.global_rows
