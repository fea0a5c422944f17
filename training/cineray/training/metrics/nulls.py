"""Wrong pairs on purpose: what the same metric says when prediction and truth have nothing to do with each other."""

import numpy as np
from numpy.typing import NDArray

from cineray.core.errors import DataError

__all__ = ["circular_shift", "far_pairs"]


def circular_shift(num_rows: int, min_rows: int, rng: np.random.Generator) -> int:
    """A shift that keeps every row at least ``min_rows`` from its own place, both ways round."""
    if num_rows < 2 * min_rows + 1:
        raise DataError(f"{num_rows} rows cannot be shifted by {min_rows} both ways; the run needs {2 * min_rows + 1}")
    return int(rng.integers(min_rows, num_rows - min_rows + 1))


def far_pairs(
    time_s: NDArray[np.floating], stimulus: NDArray[np.integer], min_gap_s: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """For every trial, one drawn from those of another stimulus that lie at least ``min_gap_s`` away."""
    far = np.abs(np.subtract.outer(time_s, time_s)) >= min_gap_s
    far &= stimulus[:, None] != stimulus
    if not far.any(1).all():
        raise DataError(
            f"{len(time_s)} clips leave one of them without a wrong clip {min_gap_s:g} s away for the null; "
            "use a longer test run or a shorter evaluation.clip_s"
        )
    return np.array([rng.choice(np.flatnonzero(row)) for row in far])
