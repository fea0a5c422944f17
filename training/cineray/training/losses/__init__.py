"""Losses: pure, named, and meeting in one place.

Every loss returns **this rank's share of the global mean**: summed over its own rows, divided by
``batch.global_rows``. Shares add up over ranks to exactly the single-process loss, short last batch included; engines
sum the shares' gradients (`cineray.training.strategies`).
"""

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field
from torch import Tensor

from cineray.core.errors import ConfigError
from cineray.datasets.batch import Batch
from cineray.training.losses.base import Loss
from cineray.training.losses.bimixco import BiMixCoConfig
from cineray.training.losses.info_nce import InfoNCEConfig
from cineray.training.losses.l1 import L1Config
from cineray.training.losses.mse import MSEConfig
from cineray.training.losses.soft_clip import SoftCLIPConfig
from cineray.training.losses.soft_contrast import FrameContrastConfig, SoftContrastConfig
from cineray.training.world import World

__all__ = [
    "LOSSES",
    "BiMixCoConfig",
    "FrameContrastConfig",
    "InfoNCEConfig",
    "L1Config",
    "Loss",
    "LossConfig",
    "MSEConfig",
    "SoftCLIPConfig",
    "SoftContrastConfig",
    "active",
    "total_loss",
]

LOSSES = (
    MSEConfig,
    L1Config,
    InfoNCEConfig,
    SoftCLIPConfig,
    BiMixCoConfig,
    SoftContrastConfig,
    FrameContrastConfig,
)

LossConfig = Annotated[
    MSEConfig | L1Config | InfoNCEConfig | SoftCLIPConfig | BiMixCoConfig | SoftContrastConfig | FrameContrastConfig,
    Field(discriminator="name"),
]


def active(losses: Sequence[Loss], epoch: int, epochs: int) -> list[Loss]:
    """The losses of one epoch, their schedules resolved; two of one label would hide each other in the log."""
    now = [loss for loss in (loss.at(epoch, epochs) for loss in losses) if loss is not None]
    labels = [loss.label for loss in now]
    twice = {label for label in labels if labels.count(label) > 1}
    if twice or not now:
        found = f"two losses called '{min(twice)}'" if twice else "no loss"
        raise ConfigError(f"epoch {epoch} of {epochs} has {found}, expected different ones; change losses.N.phase")
    return now


def total_loss(
    losses: Sequence[Loss], outputs: Mapping[str, Tensor], batch: Batch, world: World
) -> tuple[Tensor, dict[str, Tensor]]:
    """Weighted sum, and every part by label; the only place where losses meet."""
    parts = {loss.label: loss.share(outputs, batch, world) for loss in losses}
    total = sum((loss.weight * parts[loss.label] for loss in losses), start=outputs_zero(outputs))
    return total, {label: part.detach() for label, part in parts.items()}


def outputs_zero(outputs: Mapping[str, Tensor]) -> Tensor:
    """A zero that hangs on every output, so a rank without rows still takes part in the backward pass."""
    return sum(x.float().sum() * 0.0 for x in outputs.values())  # type: ignore[return-value]
