"""Predictions beside truths, cut into clips that everybody shares, with wrong pairs for the null."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cineray.core.errors import DataError
from cineray.training.bootstrap import Draws, draw
from cineray.training.metrics.nulls import circular_shift, far_pairs
from cineray.training.metrics.similarity import clips_of, pearson_matrix

__all__ = ["Cut", "Part", "Scoring", "Table", "tabulate"]

Array = NDArray[np.float64]
Key = tuple[str, str, float]
"""A clip, the same for everybody who saw it: film, run, where it starts in the run (seconds)."""


@dataclass(frozen=True)
class Part:
    """One run of one subject, rows in time order."""

    subject: str
    film: str
    run: str
    time_s: NDArray[np.floating]
    """(rows,) seconds; a step longer than 1.5 times the usual one is a gap that no clip spans."""
    stimulus_row: NDArray[np.integer]
    predicted: NDArray[np.floating]
    """(rows, ...)."""
    truth: NDArray[np.floating]
    """(rows, ...)."""


@dataclass(frozen=True)
class Scoring:
    """How to score; `EvaluationConfig` of a run holds the same names."""

    clip_s: float = 20.0
    num_bootstrap: int = 2000
    num_null: int = 7
    """Shuffles per run for the null."""
    min_shift_s: float = 60.0
    min_gap_s: float = 10.0
    block_s: float = 20.0
    """Clips that start within one block are resampled together."""
    seed: int = 0


@dataclass(frozen=True)
class Cut:
    """A part cut into clips."""

    subject: str
    keys: list[Key]
    predicted: NDArray[np.floating]
    """(rows of the run, values)."""
    places: list[NDArray[np.int64]]
    """(clips, rows): which predicted row stands where; first the true pairing, then one for each null draw."""
    truth: NDArray[np.floating]
    """(clips, rows, values)."""

    def pairing(self, number: int) -> NDArray[np.floating]:
        """(clips, rows, values): predictions in their own places (0) or beside wrong clips."""
        return self.predicted[self.places[number]]

    @cached_property
    def similarity(self) -> list[Array]:
        """(predicted clip, true clip) for every pairing."""
        return [pearson_matrix(self.pairing(i), self.truth) for i in range(len(self.places))]


@dataclass(frozen=True)
class Table:
    """All cuts and the axes they share."""

    cuts: list[Cut]
    subjects: list[str]
    clips: list[Key]
    draws: Draws

    @property
    def num_null(self) -> int:
        """Null draws, the same number for every cut."""
        return len(self.cuts[0].places) - 1

    def columns(self, cut: Cut) -> NDArray[np.int64]:
        """Where this cut's clips stand among all clips."""
        place = {key: i for i, key in enumerate(self.clips)}
        return np.array([place[key] for key in cut.keys])

    def of(self, subject: str) -> list[Cut]:
        """One subject's cuts."""
        return [c for c in self.cuts if c.subject == subject]


def tabulate(parts: Sequence[Part], how: Scoring) -> Table:
    """Cut the parts into clips, shuffle them for the null, and draw the bootstrap's weights."""
    if not parts:
        raise DataError("found no predictions to score, expected at least one run; check the split's selection")
    rng = np.random.default_rng(how.seed)
    cuts = [cut(part, how, rng) for part in parts]
    subjects = sorted({c.subject for c in cuts})
    clips = sorted({key for c in cuts for key in c.keys})
    blocks = [(film, int(start // max(how.block_s, how.clip_s))) for film, _, start in clips]
    return Table(cuts, subjects, clips, draw(len(subjects), blocks, num=how.num_bootstrap, seed=how.seed))


def cut(part: Part, how: Scoring, rng: np.random.Generator) -> Cut:
    """Consecutive clips of ``clip_s``, none across a gap in time."""
    steps = np.diff(part.time_s)
    step_s = float(np.median(steps)) if len(steps) else how.clip_s
    length = max(1, round(how.clip_s / step_s))
    runs = np.split(np.arange(len(part.time_s)), np.flatnonzero(steps > 1.5 * step_s) + 1)
    rows = np.concatenate([clips_of(run[:, None], length).reshape(-1, length) for run in runs])
    if len(rows) < 2:
        raise DataError(
            f"{part.subject}, film '{part.film}': {len(part.time_s)} rows of {step_s:g} s make {len(rows)} clips of "
            f"{how.clip_s:g} s, expected at least 2; choose a shorter evaluation.clip_s"
        )
    predicted, truth = (np.asarray(x).reshape(len(part.time_s), -1) for x in (part.predicted, part.truth))
    keys = [(part.film, part.run, round(float(part.time_s[r[0]]), 3)) for r in rows]
    margin = round(how.min_shift_s / step_s)
    places = [rows, *_wrong_places(part, rows, how, rng, shift_rows=margin if len(runs) == 1 else None)]
    return Cut(part.subject, keys, predicted, places, truth[rows])


def _wrong_places(
    part: Part, rows: NDArray[np.int64], how: Scoring, rng: np.random.Generator, shift_rows: int | None
) -> Iterator[NDArray[np.int64]]:
    """Null draws: the whole run shifted in a circle where it is long enough and unbroken, else a far clip for each.

    A shift keeps the autocorrelation across clips, drawn clips keep it only within them.
    """
    num, starts = len(part.time_s), part.time_s[rows[:, 0]]
    clip_span_s = float((part.time_s[rows[:, -1]] - starts).max())
    for _ in range(how.num_null):
        if shift_rows is not None and num > 2 * shift_rows:
            yield (rows - circular_shift(num, shift_rows, rng)) % num
        else:
            yield rows[far_pairs(starts, part.stimulus_row[rows[:, 0]], clip_span_s + how.min_gap_s, rng)]
