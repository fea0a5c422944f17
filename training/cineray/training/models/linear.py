"""What the linear baselines share: one map per subject straight to all targets, and rows aligned across subjects."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cineray.core.errors import DataError
from cineray.training.models.base import Sizes, Trial, subject_key

__all__ = [
    "AlignedRows",
    "LinearDecoder",
    "SubjectMap",
    "align",
    "count_values",
    "flat_brain",
    "flat_targets",
    "split_targets",
]

Array = NDArray[np.float32]


class SubjectMap(nn.Linear):
    """A linear map that knows whether it has been solved; it travels with the checkpoint."""

    known: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("known", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def solve(self, weights: NDArray[np.floating], bias: NDArray[np.floating]) -> None:
        """Set (outputs, inputs) weights and (outputs,) bias."""
        self.weight.copy_(torch.as_tensor(weights))
        self.bias.copy_(torch.as_tensor(bias))
        self.known.fill_(1)


class LinearDecoder(nn.Module):
    """(rows, scans, voxels) per subject to every target, through one map per subject."""

    advice = "train on scans of this subject"
    """What to do about a subject without a map."""

    def __init__(self, sizes: Sizes, outputs: int | None = None) -> None:
        super().__init__()
        self.shapes = dict(sizes.targets)
        self.num_values = count_values(self.shapes)
        self.read_in = nn.ModuleDict(
            {subject_key(s): SubjectMap(sizes.scans * v, outputs or self.num_values) for s, v in sizes.voxels.items()}
        )

    def forward(self, brain: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every subject's map runs, in the order of ``brain``, with zero rows if need be."""
        return split_targets(torch.cat([self.mapped(s, rows) for s, rows in brain.items()]), self.shapes)

    def map_of(self, subject: str) -> SubjectMap:
        """One subject's own map."""
        return cast(SubjectMap, self.read_in[subject_key(subject)])

    def mapped(self, subject: str, rows: Tensor) -> Tensor:
        """One subject's rows through its own map."""
        own = self.map_of(subject)
        if len(rows) and not own.known:
            raise DataError(f"found {len(rows)} rows of {subject}, which had no training rows; {self.advice}")
        return own(rows.flatten(1))


def count_values(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Values of all targets of one row."""
    return sum(math.prod(s) for s in shapes.values())


def split_targets(values: Tensor, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """(batch, all values) to target -> (batch, ...)."""
    parts = values.split([math.prod(s) for s in shapes.values()], dim=1)
    return {name: part.unflatten(1, shapes[name]) for name, part in zip(shapes, parts, strict=True)}


def flat_brain(trial: Trial) -> Array:
    """(rows, scans * voxels)."""
    return trial.brain.flatten(1).float().cpu().numpy()


def flat_targets(trial: Trial, names: Iterable[str]) -> Array:
    """(rows, values): all targets side by side."""
    return torch.cat([trial.targets[n].flatten(1).float().cpu() for n in names], dim=1).numpy()


@dataclass(frozen=True)
class AlignedRows:
    """Rows of several subjects on one axis: what was on the screen, and the how-manieth scan of it."""

    place: dict[str, NDArray[np.int64]]
    """Subject -> (rows,): where each of its rows stands on the common axis."""
    size: int

    def common(self) -> NDArray[np.int64]:
        """Places that every subject has."""
        count = np.sum([np.bincount(p, minlength=self.size) for p in self.place.values()], axis=0)
        return np.flatnonzero(count == len(self.place))

    def rows_at(self, subject: str, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The subject's row at each place; it must have them all."""
        row = np.full(self.size, -1)
        row[self.place[subject]] = np.arange(len(self.place[subject]))
        return row[places]


def align(trials: Iterable[Trial]) -> AlignedRows:
    """Number the rows so that equal numbers saw the same stimulus at the same time.

    A stimulus longer than a scan covers several rows, and a repeat shows it again: a row meets those of everybody else
    that are as many scans into the same stimulus, shown as many times before. Rows may be missing anywhere.
    """
    numbers: dict[tuple[int, int, int], int] = {}
    place = {}
    for trial in trials:
        last: dict[int, tuple[int, int]] = {}
        own = []
        for stimulus, scan in zip(trial.stimulus_row.tolist(), trial.scan.tolist(), strict=True):
            before, showing = last.get(stimulus, (-1, 0))
            showing += scan <= before  # inside one showing, scans only go up
            last[stimulus] = (scan, showing)
            own.append(numbers.setdefault((stimulus, showing, scan), len(numbers)))
        place[trial.subject] = np.array(own, np.int64)
    return AlignedRows(place, len(numbers))
