"""Means and standard deviations of training trials, the only rows that may decide how betas are scaled."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cineray.core.errors import DataError

__all__ = ["NORM_RULES", "Moments"]

NORM_RULES = {
    "session": "mean 0, sd 1 (ddof 1) per voxel by the training trials of its session, applied to all its trials",
    "train": "mean 0, sd 1 (ddof 1) per voxel by the training trials of all sessions taken, applied to all trials",
    "none": "as the files hold it",
}
"""What each setting of ``norm`` does, for the manifest."""


@dataclass(frozen=True)
class Moments:
    """Count, mean and summed squared deviation of each voxel."""

    num_rows: int = 0
    mean: NDArray[np.float64] | float = 0.0
    squares: NDArray[np.float64] | float = 0.0

    def with_rows(self, rows: NDArray[np.floating]) -> "Moments":
        """These moments and those of (rows, voxels) together (Chan, Golub & LeVeque 1983, eq. 2.1)."""
        if not len(rows):
            return self
        mean = rows.mean(0, dtype=np.float64)
        squares = np.square(rows - mean).sum(0)
        total, step = self.num_rows + len(rows), mean - self.mean
        return Moments(
            num_rows=total,
            mean=self.mean + step * (len(rows) / total),
            squares=self.squares + squares + np.square(step) * (self.num_rows * len(rows) / total),
        )

    def scaled(self, brain: NDArray[np.floating], where: str) -> NDArray[np.float32]:
        """Betas less the mean over the sd (ddof 1); a voxel that never varied becomes not finite."""
        if self.num_rows < 2:
            raise DataError(
                f"{where} is scaled by {self.num_rows} training trials, expected at least 2; set source.norm=train or "
                "none"
            )
        with np.errstate(divide="ignore", invalid="ignore"):
            return ((brain - self.mean) / np.sqrt(self.squares / (self.num_rows - 1))).astype(np.float32)
