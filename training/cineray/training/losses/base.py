"""What every loss has: a weight, a target, and the part of training in which it counts."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Self

from pydantic import Field, model_validator
from torch import Tensor

from cineray.core.config import Config
from cineray.core.errors import ConfigError
from cineray.datasets.batch import Batch
from cineray.training.world import World

__all__ = ["Loss"]


class Loss(Config):
    """Base of the members of the union; each adds its ``name``."""

    name: str
    target: str = "features"
    weight: float = Field(default=1.0, ge=0)
    phase: tuple[float, float] = (0.0, 1.0)
    """First and last fraction of the epochs in which it counts, e.g. (0, .33) for MindEye2's BiMixCo."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not 0 <= self.phase[0] < self.phase[1] <= 1:
            raise ConfigError(f"phase of loss '{self.name}' is {self.phase}, expected 0 <= start < end <= 1")
        return self

    @property
    def label(self) -> str:
        """Its name in the log."""
        return f"{self.name}/{self.target}"

    @property
    def mixes(self) -> bool:
        """Whether it wants rows blended before the model sees them (`cineray.training.mixing`)."""
        return False

    def at(self, epoch: int, epochs: int) -> Self | None:
        """This loss as it stands in an epoch, or None where it does not count."""
        first, end = (int(fraction * epochs) for fraction in self.phase)
        return self if first <= epoch < end else None

    @abstractmethod
    def share(self, outputs: Mapping[str, Tensor], batch: Batch, world: World) -> Tensor:
        """Scalar: this rank's share of the global mean."""
