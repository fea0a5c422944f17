"""The figure pictures of Miyawaki et al. (2008): one person's V1, 119 blocks, 20 pictures in four conditions.

Each run shows only the five pictures of one condition. A run-wide offset of the signal therefore predicts size and
thickness of the picture; permutations that stay within a condition keep this confound and are the null that counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cineray.core.errors import DataError
from cineray.datasets.sources.files import read_array

__all__ = ["Plan", "Study", "load", "permuted"]

Array = NDArray[np.float64]
Numbers = NDArray[np.int64]

FILE = "miyawaki_structured_28x28.mat"


@dataclass(frozen=True)
class Study:
    """What was shown and measured."""

    responses: Array
    """(blocks, voxels) as the file holds them."""
    pictures: Array
    """(pictures, pixels) in [0, 1]."""
    shown: Numbers
    """(blocks,) picture of each block."""
    condition: Numbers
    """(pictures,) which pictures are shown in the same runs."""

    @property
    def by_picture(self) -> list[tuple[int, ...]]:
        """One picture at a time."""
        return [(number,) for number in range(len(self.pictures))]

    @property
    def by_condition(self) -> list[tuple[int, ...]]:
        """The pictures of one condition at a time."""
        return [tuple(np.flatnonzero(self.condition == c).tolist()) for c in np.unique(self.condition)]


@dataclass(frozen=True)
class Plan:
    """Folds, and the blocks that each of them predicts."""

    held: list[tuple[int, ...]]
    """Pictures that a fold does not learn from."""
    fold: Numbers
    """(rows,) fold of each prediction."""
    block: Numbers
    """(rows,) block that is predicted."""

    @classmethod
    def of(cls, study: Study, held: Sequence[tuple[int, ...]]) -> "Plan":
        """Every block of the held-out pictures, fold by fold."""
        blocks = [np.flatnonzero(np.isin(study.shown, pictures)) for pictures in held]
        fold = np.repeat(np.arange(len(held)), [len(rows) for rows in blocks])
        return cls(list(held), fold, np.concatenate(blocks))

    def learnt(self, study: Study, fold: int) -> Numbers:
        """Blocks that a fold learns from."""
        return np.flatnonzero(~np.isin(study.shown, self.held[fold]))


def load(folder: Path) -> Study:
    """Read the published file; ``folder`` holds it."""
    parts = {
        name: np.concatenate([read_array(folder / FILE, f"{name}{part}") for part in ("Trn", "Test")])
        for name in ("fmri", "stim")
    }
    runs = np.concatenate([read_array(folder / FILE, f"label{part}").ravel() for part in ("Trn", "Test")])
    if len(parts["fmri"]) != len(parts["stim"]) or len(runs) != len(parts["stim"]):
        raise DataError(f"{FILE} has {len(parts['fmri'])} responses to {len(parts['stim'])} pictures; fetch it again")
    pictures, shown = np.unique(parts["stim"].round(3), axis=0, return_inverse=True)
    return Study(parts["fmri"], pictures, shown.reshape(-1), _conditions(shown.reshape(-1), runs))


def permuted(study: Study, rng: np.random.Generator) -> Array:
    """The pictures, exchanged at random inside each condition: (pictures, pixels)."""
    order = np.arange(len(study.pictures))
    for members in study.by_condition:
        order[list(members)] = rng.permutation(members)
    return study.pictures[order]


def _conditions(shown: Numbers, runs: NDArray) -> Numbers:
    """Pictures that meet in a run are of one condition, numbered by their first run."""
    first = np.array([runs[shown == number].min() for number in range(shown.max() + 1)])
    for run in np.unique(runs):
        members = np.unique(shown[runs == run])
        first[np.isin(first, first[members])] = first[members].min()
    return np.unique(first, return_inverse=True)[1].astype(np.int64)
