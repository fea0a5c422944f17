"""Mean absolute error."""

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from cineray.datasets.batch import Batch
from cineray.training.losses.base import Loss
from cineray.training.world import World

__all__ = ["L1Config"]


class L1Config(Loss):
    """Mean absolute error between a prediction and its target; of what is unsure it learns the median."""

    name: Literal["l1"] = "l1"

    def share(self, outputs: Mapping[str, Tensor], batch: Batch, world: World) -> Tensor:
        """Mean over the values of a row, share over rows."""
        error = (outputs[self.target].float() - batch.targets[self.target]).abs()
        return error.flatten(1).mean(1).sum() / batch.global_rows
