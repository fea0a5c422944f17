"""Sessions of betas, one row a trial, scaled by their training trials alone."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cineray.core.errors import DataError
from cineray.datasets.sources.base import Recording

__all__ = ["NORM_RULES", "Moments", "Session", "recordings"]

NORM_RULES = {
    "session": "mean 0, sd 1 (ddof 1) per voxel by the training trials of its session, applied to all its trials",
    "train": "mean 0, sd 1 (ddof 1) per voxel by the training trials of all sessions taken, applied to all trials",
    "none": "as the files hold it",
}
"""What each setting of ``norm`` does, for the manifest."""


@dataclass(frozen=True)
class Session:
    """Trials of one subject that are stored together."""

    run: str
    repeat: int
    stimulus: NDArray[np.int64]
    """(trials,) number of what was shown, as the data set counts its stimuli."""
    is_test: NDArray[np.bool_]
    """(trials,)."""
    load: Callable[[], NDArray[np.floating]]
    """The betas, (trials, voxels)."""


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


def recordings(
    subject: str,
    sessions: Callable[[], Iterable[Session]],
    norm: str,
    *,
    trial_s: float,
    name: Callable[[int], str],
) -> Iterator[Recording]:
    """A subject's sessions, scaled; ``sessions`` is called twice if all of them decide (``train``).

    Args:
        norm: one of `NORM_RULES`; test trials are never among the rows that decide.
        trial_s: seconds from trial to trial, which stand for a TR.
        name: number of a stimulus to its id.
    """
    overall = Moments()
    for session in sessions() if norm == "train" else ():
        overall = overall.with_rows(session.load()[~session.is_test])
    for session in sessions():
        brain, num_trials, where = session.load(), len(session.stimulus), f"{subject}, {session.run}"
        if len(brain) != num_trials:
            raise DataError(f"{where} has {len(brain)} betas for {num_trials} trials; fetch it again")
        if norm != "none":
            moments = overall if norm == "train" else Moments().with_rows(brain[~session.is_test])
            brain = moments.scaled(brain, where)
        yield Recording(
            subject=subject,
            run=session.run,
            repeat=session.repeat,
            tr_s=trial_s,
            brain=brain,
            onset_s=np.arange(num_trials, dtype=np.float64) * trial_s,
            stimulus_id=[name(number) for number in session.stimulus.tolist()],
            offset_s=np.zeros(num_trials),
        )
