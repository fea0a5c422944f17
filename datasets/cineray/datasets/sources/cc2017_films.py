"""The films of cc2017, their clips and their runs: the numbers that every layout of the data set shares."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cineray.datasets.drift import drift_basis, remove_drift
from cineray.datasets.sources.base import Recording

__all__ = [
    "BAD_RUN",
    "CLIP_S",
    "DETREND",
    "FILMS",
    "FLAT",
    "NUM_CLIPS",
    "TEST",
    "TRAIN",
    "Place",
    "peak_lags",
    "place",
    "recording",
    "time_course",
]

CLIP_S = 2.0
"""Length of a clip, and the TR."""

NUM_CLIPS = 240
"""Clips of a film of eight minutes, and volumes of a run once trimmed."""

TRAIN = tuple(f"seg{number}" for number in range(1, 19))
TEST = tuple(f"test{number}" for number in range(1, 6))
FILMS = TRAIN + TEST

BAD_RUN = (3, "test2", 9)
"""Subject, film and repeat of the run whose recording and film are about ten seconds out of step."""


DETREND = 4
"""Order of the polynomial removed before showings are compared, as published."""

FLAT = 1e-7
"""A voxel that varies by less than this share of its largest value holds rounding error (float32 has 6e-8)."""

REACH = 10
"""Volumes by which a recording may be out of step and still be found so."""


class Place(NamedTuple):
    """Where a film stands in the released arrays."""

    part: str
    """``train`` or ``test``."""
    rows: slice
    """Of its part's 4320 or 1200 rows: row = segment · 240 + clip."""
    repeats: int
    """Showings to each subject."""


def place(film: str) -> Place:
    """Part, rows and number of showings of a film."""
    part, films, repeats = ("train", TRAIN, 2) if film in TRAIN else ("test", TEST, 10)
    first = films.index(film) * NUM_CLIPS
    return Place(part, slice(first, first + NUM_CLIPS), repeats)


def recording(
    subject: int, film: str, repeat: int, brain: NDArray[np.floating], onset_s: NDArray[np.float64]
) -> Recording:
    """One run on the clock of its film: ``onset_s`` counts from the film's first picture, ``repeat`` from 1.

    The log tells of every clip, also of those shown before the first volume.
    """
    clip = np.floor(onset_s / CLIP_S).astype(int)
    shown = clip < NUM_CLIPS
    return Recording(
        subject=f"subj{subject:02d}",
        run=f"{film}_{repeat}",
        repeat=repeat - 1,
        tr_s=CLIP_S,
        brain=brain,
        onset_s=onset_s,
        stimulus_id=[f"{film}-{c:03d}" if on else None for c, on in zip(clip, shown, strict=True)],
        offset_s=np.where(shown, onset_s - clip * CLIP_S, np.nan),
        showings=tuple((CLIP_S * c, f"{film}-{c:03d}") for c in range(NUM_CLIPS)),
    )


def time_course(brain: NDArray[np.floating]) -> NDArray[np.float64]:
    """(volumes,) mean over the voxels of a run, freed of drift and z-scored; those without signal have no say."""
    basis = drift_basis(np.arange(len(brain), dtype=np.float64), CLIP_S, DETREND, None)
    left = remove_drift(brain, basis)
    spread = left.std(0)
    answers = spread > FLAT * np.abs(brain).max(0)
    return (left[:, answers] / spread[answers]).mean(1)


def peak_lags(courses: Sequence[NDArray[np.float64]]) -> list[int]:
    """Volumes by which each of several showings of one film comes late: 0 where all are in step.

    The lag, up to 10 volumes either way, at which a run's `time_course` (volumes,) correlates most with the mean of
    the other runs'.
    """
    lags = range(-REACH, REACH + 1)
    found = []
    for index, course in enumerate(courses):
        others = np.delete(np.stack(courses), index, axis=0).mean(0)[REACH:-REACH]
        alike = [np.corrcoef(course[REACH + lag : len(course) - REACH + lag], others)[0, 1] for lag in lags]
        found.append(lags[int(np.argmax(alike))])
    return found
