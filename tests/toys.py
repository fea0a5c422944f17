"""A tiny data set in memory with the face of `cineray.datasets.stream.Stream`, and a run over it."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cineray.datasets.batch import Batch, Trial
from cineray.datasets.normaliser import Moments, Normaliser
from cineray.datasets.order import Schedule, rank_slice
from cineray.training.feed import Feed
from cineray.training.models.base import Sizes
from cineray.training.run import Run

SIZES = Sizes(voxels={"sub-a": 810, "sub.b": 20, "sub-c": 25}, scans=2, targets={"features": (24,)})
"""The first subject's layer of 64 x 1620 weights is above the size (1e5) below which ZeRO-3 does not shard."""


class ToyStream:
    """Rows drawn once; a row's brain is a linear code of its stimulus plus noise. ``owner[i]`` is row i's subject."""

    def __init__(self, num_rows: int = 90, batch_size: int = 16, seed: int = 0, owner: Any = None) -> None:
        chance = np.random.default_rng(seed)
        self.subjects = list(SIZES.voxels)
        self.owner = np.asarray(chance.integers(len(self.subjects), size=num_rows) if owner is None else owner)
        self.schedule = Schedule(seed, num_rows, batch_size)
        stimuli = chance.standard_normal((num_rows // 2, 24)).astype(np.float32)
        self.stimulus_row = chance.integers(len(stimuli), size=num_rows)
        self.features = torch.from_numpy(stimuli[self.stimulus_row])
        codes = np.random.default_rng(99)
        self.brain = [
            torch.from_numpy(
                np.einsum("nf,fsv->nsv", self.features.numpy(), codes.standard_normal((24, SIZES.scans, v)) / 5)
                + chance.standard_normal((num_rows, SIZES.scans, v))
            ).float()
            for v in SIZES.voxels.values()
        ]
        self.examples = range(num_rows)
        self.normaliser: Normaliser | None = None

    @property
    def num_steps(self) -> int:
        return self.schedule.num_steps

    def references(self, epoch: int, first_step: int = 0) -> Iterator[NDArray[np.int64]]:
        return self.schedule.references(epoch, first_step)

    def batch(self, reference: NDArray[np.int64], rank: int = 0, size: int = 1) -> Batch:
        return self.rows(rank_slice(reference, rank, size), len(reference))

    def batches(self, references: Iterable[NDArray[np.int64]], rank: int = 0, size: int = 1) -> Iterator[Batch]:
        return (self.batch(reference, rank, size) for reference in references)

    def rows(self, numbers: NDArray[np.int64], global_rows: int) -> Batch:
        numbers = numbers[np.argsort(self.owner[numbers], kind="stable")]
        brain = {s: self.brain[i][numbers[self.owner[numbers] == i]] for i, s in enumerate(self.subjects)}
        targets = {"features": self.features[numbers]}
        example, stimulus_row = torch.from_numpy(numbers), torch.from_numpy(self.stimulus_row[numbers])
        return Batch(brain, targets, example, stimulus_row, global_rows)

    def trials(self) -> list[Trial]:
        found = []
        for i, subject in enumerate(self.subjects):
            rows = self.rows(np.flatnonzero(self.owner == i), 1)
            scan = torch.zeros(len(rows), dtype=torch.int64)
            found.append(Trial(subject, rows.brain[subject], rows.targets, rows.stimulus_row, scan))
        return found


def toy_feed(*, validate: bool = True, **settings: Any) -> Any:
    """What `train` calls to open its data."""

    def make(normaliser: Normaliser | None = None) -> Feed:
        pair = Moments(torch.zeros(24), torch.ones(24))
        known = normaliser or Normaliser({}, {"features": pair})
        return Feed("0123", SIZES, ToyStream(**settings), ToyStream(num_rows=40, seed=1) if validate else None, known)

    return make


def toy_run(**changes: Any) -> Run:
    """Six steps an epoch, dropout off."""
    run = Run.parse(
        {
            "name": "toy",
            "view": {"dataset": "nowhere", "split": {"val": {}, "test": {}}},
            "model": {"name": "shared", "dim": 64, "depth": 2, "dropout": 0.0, "embedding_dim": 0},
            "optim": {"epochs": 3, "batch_size": 16, "lr": 3e-4},
        }
    )
    return run.override(changes)
