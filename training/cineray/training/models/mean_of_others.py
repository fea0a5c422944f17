"""Ridge regression learned from the mean of everybody else: what can be decoded from a brain never trained on.

Averaging the others' scans of one moment cancels what is private to each of them. The map of a subject never sees that
subject, so one fit gives the `unseen` row for everybody.
"""

from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cineray.core.config import Config
from cineray.core.errors import DataError
from cineray.training.models.base import Sizes, Trial
from cineray.training.models.linear import AlignedRows, LinearDecoder, align, flat_brain, flat_targets
from cineray.training.models.ridge import choose_penalty, fit_ridge

__all__ = ["MeanOfOthersConfig", "MeanOfOthersDecoder"]

Array = NDArray[np.floating]


class MeanOfOthersConfig(Config):
    """Settings of the mean-of-others baseline."""

    name: Literal["mean_of_others"] = "mean_of_others"
    penalties: tuple[float, ...] = Field(default=(300.0,), min_length=1)
    """One: fixed beforehand. Several: chosen on contiguous blocks of training rows."""

    def build(self, sizes: Sizes) -> "MeanOfOthersDecoder":
        """One map per subject, still unsolved; voxels must mean the same in everybody (parcels)."""
        if len(set(sizes.voxels.values())) > 1:
            found = ", ".join(f"{s} {v}" for s, v in list(sizes.voxels.items())[:4])
            raise DataError(
                f"mean_of_others averages brains voxel by voxel, found {found}; use parcels or model.name=srm"
            )
        return MeanOfOthersDecoder(self, sizes)


class MeanOfOthersDecoder(LinearDecoder):
    """A subject without training rows uses the mean of all who have some."""

    def __init__(self, config: MeanOfOthersConfig, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.penalties = config.penalties
        self.subjects = list(sizes.voxels)

    def fit(self, trials: Iterable[Trial]) -> None:
        """One regression per subject, on the mean of the others at every moment that any of them saw."""
        aligned = align(trials)
        total, count, target = self._sums(trials, aligned)
        for trial in trials:
            own = np.zeros_like(total)
            place = aligned.place[trial.subject]
            own[place] = flat_brain(trial)
            self._solve(trial.subject, total - own, count - np.bincount(place, minlength=aligned.size), target)
        for subject in set(self.subjects) - set(aligned.place):
            self._solve(subject, total, count, target)

    def _sums(self, trials: Iterable[Trial], aligned: AlignedRows) -> tuple[Array, Array, Array]:
        """(places, voxels) summed over subjects, (places,) how many, (places, values)."""
        total, count, target = np.empty(0), np.zeros(aligned.size), np.empty(0)
        for trial in trials:
            brain, place = flat_brain(trial), aligned.place[trial.subject]
            if not total.size:
                total = np.zeros((aligned.size, brain.shape[1]))
                target = np.zeros((aligned.size, self.num_values), np.float32)
            total[place] += brain
            count[place] += 1
            target[place] = flat_targets(trial, self.shapes)
        return total, count, target

    def _solve(self, subject: str, total: Array, count: Array, target: Array) -> None:
        seen = count > 0
        if not seen.any():
            raise DataError(f"{subject} is the only subject with training rows; mean_of_others needs at least two")
        mean = total[seen] / count[seen, None]
        mean = mean - mean.mean(0)
        # Averaging shrinks the signal; the map must expect a single brain's scale. A silent voxel stays at zero.
        sd = mean.std(0)
        mean = np.divide(mean, sd, out=np.zeros_like(mean), where=sd > 0)
        penalty = choose_penalty(mean, target[seen], self.penalties)
        self.map_of(subject).solve(*fit_ridge(mean, target[seen], penalty))
