"""What every model has in common.

A model is an ``nn.Module`` written for one device. Its layers that belong to one subject stand below a
``ModuleDict`` called ``read_in``, keyed by `subject_key`; everything else is shared.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from cineray.datasets.batch import Trial

__all__ = ["ClosedForm", "Decoder", "Generative", "Sizes", "Trial", "subject_key", "subject_of"]


@dataclass(frozen=True)
class Sizes:
    """What the data decides, handed to every model's ``build``."""

    voxels: Mapping[str, int]
    """Subject -> number of voxels, in the order of `Batch.brain`."""
    scans: int
    """Scans in one window."""
    targets: Mapping[str, tuple[int, ...]]
    """Target -> shape of one row."""


class Decoder(Protocol):
    """Brain in, named predictions out."""

    def __call__(self, brain: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Subject -> (rows, scans, voxels) to output -> (batch, ...), rows in the order of ``brain``.

        An output that predicts a target bears the target's name; others (``embedding``) are for losses.
        """
        ...


class Generative(nn.Module):
    """A model that learns to make its targets out of noise: while it trains it is also given them.

    Called with ``targets`` it predicts them from noised ones, by torch's global generator; without, it samples, and
    always from the same noise, so that a row is decoded alike whoever stands beside it.
    """

    def forward(self, brain: Mapping[str, Tensor], targets: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Subject -> (rows, scans, voxels), target -> (batch, ...) to output -> (batch, ...)."""
        raise NotImplementedError


@runtime_checkable
class ClosedForm(Protocol):
    """A model (or part of one) solved rather than descended; runs once, before any gradient step."""

    def fit(self, trials: Iterable[Trial]) -> None:
        """Set parameters and buffers from the training rows; ``trials`` can be iterated more than once."""
        ...


def subject_key(subject: str) -> str:
    """A subject's key in a ``ModuleDict`` (which allows no dots)."""
    return subject.replace(".", "·")


def subject_of(parameter: str) -> str | None:
    """Subject that a parameter name belongs to, None for shared ones."""
    parts = parameter.split(".")
    below = parts.index("read_in") + 1 if "read_in" in parts else len(parts)
    return parts[below].replace("·", ".") if below < len(parts) - 1 else None


def parameter_table(model: nn.Module) -> dict[str, int]:
    """Parameter counts: ``shared`` and each subject."""
    table: dict[str, int] = {"shared": 0}
    for name, parameter in model.named_parameters():
        owner = subject_of(name) or "shared"
        table[owner] = table.get(owner, 0) + parameter.numel()
    return table
