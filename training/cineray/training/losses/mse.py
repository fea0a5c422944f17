"""Mean squared error."""

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from cineray.datasets.batch import Batch
from cineray.training.losses.base import Loss
from cineray.training.world import World

__all__ = ["MSEConfig"]


class MSEConfig(Loss):
    """Mean squared error between a prediction and its target."""

    name: Literal["mse"] = "mse"

    def share(self, outputs: Mapping[str, Tensor], batch: Batch, world: World) -> Tensor:
        """Mean over the values of a row, share over rows."""
        error = (outputs[self.target].float() - batch.targets[self.target]).square()
        return error.flatten(1).mean(1).sum() / batch.global_rows
