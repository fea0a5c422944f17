"""The clips a prediction is compared with: every stretch of film in a data set's stimulus table."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cineray.core.errors import DataError

__all__ = ["Gallery", "Match", "MatchedClip"]

CLOCK_S = 1e-6
"""Onsets closer than this are the same instant: they come from sums and products of floats."""


@dataclass(frozen=True)
class Match:
    """A candidate clip, named by the stimulus it starts with, and how alike it is (Pearson, -1 to 1)."""

    stimulus_id: str
    film: str
    onset_s: float
    score: float


@dataclass(frozen=True)
class MatchedClip:
    """A stretch of the recording and the candidates most like it, best first."""

    first_scan: int
    num_scans: int
    matches: list[Match]


@dataclass(frozen=True)
class Gallery:
    """The stimulus table with one target; rows in any order, films of any number."""

    stimulus_id: Sequence[str]
    film: Sequence[str]
    onset_s: NDArray[np.float64]
    length_s: NDArray[np.float64]
    features: NDArray[np.floating]
    """(stimuli, ...)."""
    tr_s: float

    def candidates(self, num_scans: int) -> NDArray[np.int64]:
        """(clips, num_scans) stimulus rows on the screen at each scan of every clip that begins with a stimulus.

        A clip that would run into a pause or past the end of its film is left out. Films in the order of their names,
        clips in the order of time.
        """
        film = np.unique(np.asarray(self.film), return_inverse=True)[1]
        order = np.lexsort((self.onset_s, film))
        # One clock for all films, so far apart that no clip reaches the next film.
        first_s = float(self.onset_s.min())
        film_s = float((self.onset_s + self.length_s).max()) - first_s + (num_scans + 1) * self.tr_s
        onset = (film * film_s + self.onset_s - first_s)[order]
        end = onset + self.length_s[order]
        time = onset[:, None] + np.arange(num_scans) * self.tr_s
        shown = np.searchsorted(onset, time + CLOCK_S, side="right") - 1
        covered = (time < end[shown] - CLOCK_S).all(1)
        return order[shown[covered]]

    def rank(self, predicted: NDArray[np.floating], num_scans: int, top: int) -> list[MatchedClip]:
        """Cut (scans, ...) predictions into clips of ``num_scans`` and find each one's ``top`` candidates.

        The ragged tail is dropped. The score is Pearson's r over the clip's ``num_scans`` times all values of the
        target, as in `cineray.training.metrics`; ties keep the order of film and time.
        """
        num = len(predicted) // num_scans
        if not num:
            raise DataError(
                f"the recording has {len(predicted)} scans, fewer than a clip of {num_scans}; send a longer one or "
                "ask for shorter clips"
            )
        candidates = self.candidates(num_scans)
        if not len(candidates):
            raise DataError(f"no film has a stretch of {num_scans} scans without a pause; ask for shorter clips")
        scores = clip_correlations(predicted[: num * num_scans], self._flat, candidates)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
        return [
            MatchedClip(i * num_scans, num_scans, [self._match(candidates[j, 0], scores[i, j]) for j in best[i]])
            for i in range(num)
        ]

    @cached_property
    def _flat(self) -> NDArray[np.float64]:
        return np.asarray(self.features, np.float64).reshape(len(self.features), -1)

    def _match(self, row: int, score: float) -> Match:
        return Match(self.stimulus_id[row], self.film[row], float(self.onset_s[row]), float(score))


def clip_correlations(
    predicted: NDArray[np.floating], features: NDArray[np.floating], candidates: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(clips * num_scans, ...) and (stimuli, ...) to (clips, candidates): Pearson's r; 0 where a side is constant.

    All products come from one (scans, stimuli) product, so no candidate's features are copied.
    """
    num_scans = candidates.shape[1]
    p = np.asarray(predicted, np.float64).reshape(len(predicted), -1)
    t = np.asarray(features, np.float64).reshape(len(features), -1)
    if p.shape[1] != t.shape[1]:
        raise DataError(f"predictions have {p.shape[1]} values a scan, stimuli {t.shape[1]}; serve the matching run")
    dots = (p @ t.T).reshape(-1, num_scans, len(t))
    product = sum(dots[:, k, candidates[:, k]] for k in range(num_scans))
    values = num_scans * p.shape[1]
    mean_p, var_p = _moments(p.sum(1).reshape(-1, num_scans), (p**2).sum(1).reshape(-1, num_scans), values)
    mean_t, var_t = _moments(t.sum(1)[candidates], (t**2).sum(1)[candidates], values)
    scale = np.sqrt(np.outer(var_p, var_t))
    covariance = product / values - np.outer(mean_p, mean_t)
    return np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 0)


def _moments(
    sums: NDArray[np.float64], squares: NDArray[np.float64], values: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and variance per clip from (clips, scans) sums; a constant clip's variance is exactly 0."""
    mean, square = sums.sum(1) / values, squares.sum(1) / values
    variance = square - mean**2
    return mean, np.where(variance > 1e-12 * square, variance, 0.0)
