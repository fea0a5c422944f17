"""What the stream makes and every model eats: one step's rows on one rank, or one subject's rows for a fit."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Batch", "Trial"]


@dataclass(frozen=True)
class Batch:
    """Rows of one step, grouped by subject.

    ``brain`` names **every** subject of the run, always in the same order, with zero rows for a subject that is
    absent here: all ranks then run the same subject layers and issue the same collectives (docs/adr/0005).
    """

    brain: Mapping[str, Tensor]
    """Subject -> (rows, scans, voxels) float32; voxels differ between subjects, scans do not."""
    targets: Mapping[str, Tensor]
    """Target -> (batch, ...) float32, rows in the order of ``brain``: all of the first subject, then the next."""
    example: Tensor
    """(batch,) int64: number of the example in its split; ties a prediction to its row."""
    stimulus_row: Tensor
    """(batch,) int64: row of the stimulus table, -1 at rest. Equal rows saw the same stimulus."""
    global_rows: int
    """Rows of this step over all ranks; the last step of an epoch may be short."""

    def __post_init__(self) -> None:
        rows = sum(len(x) for x in self.brain.values())
        assert rows == len(self.example) == len(self.stimulus_row), "brain and example disagree on the rows"
        assert all(len(t) == rows for t in self.targets.values()), "brain and targets disagree on the rows"

    def __len__(self) -> int:
        return len(self.example)

    @property
    def subjects(self) -> list[str]:
        """Subject of each row."""
        return [name for name, x in self.brain.items() for _ in range(len(x))]

    def to(self, device: torch.device | str) -> "Batch":
        """The same rows on another device."""
        return Batch(
            {k: v.to(device, non_blocking=True) for k, v in self.brain.items()},
            {k: v.to(device, non_blocking=True) for k, v in self.targets.items()},
            self.example.to(device, non_blocking=True),
            self.stimulus_row.to(device, non_blocking=True),
            self.global_rows,
        )


@dataclass(frozen=True)
class Trial:
    """All training rows of one subject, in time order inside each run: what a closed-form fit reads."""

    subject: str
    brain: Tensor
    """(rows, scans, voxels)."""
    targets: Mapping[str, Tensor]
    stimulus_row: Tensor
    """(rows,): equal across subjects where they saw the same thing."""
    scan: Tensor
    """(rows,) int64: whole TRs since the row's stimulus began, 0 in its first scan, whichever rows are left out."""
