"""The SONG folder through the shards: which runs there are, who has them, and their rows."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cineray.core.errors import ConfigError
from cineray.datasets.dataset import Dataset
from cineray.datasets.ingest import ingest
from cineray.datasets.sources.song import SongConfig
from cineray.training.protocols.segments import standardise

Rows = dict[str, NDArray[np.floating]]
"""Subject -> (rows, values)."""


@dataclass(frozen=True)
class Runs:
    """What the folder holds: films that all saw alike, runs in which each saw an own sequence, rest."""

    films: list[str]
    sequences: list[str]
    rest: list[str]

    @classmethod
    def of(cls, folder: Path) -> "Runs":
        """By the files that stand beside each ``bold_<run>.npz``."""
        names = SongConfig(folder=str(folder)).run_names
        films = [run for run in names if (folder / f"stim_{run}.npy").is_file()]
        sequences = [run for run in names if (folder / f"stim_{run}_per_subject.npy").is_file()]
        return cls(films, sequences, [run for run in names if run not in films + sequences])

    def check(self, train: str, test: str) -> None:
        """Refuse a pair of runs that cannot be decoded."""
        if train not in self.films:
            raise ConfigError(
                f"TRAIN is '{train}', expected a run with stimulus features that all saw: {_listed(self.films)}"
            )
        if test not in self.films + self.sequences:
            raise ConfigError(
                f"TEST is '{test}', expected a run with stimulus features: {_listed(self.films + self.sequences)}"
            )
        if train == test:
            raise ConfigError(f"TRAIN and TEST are both '{train}', expected two different runs")


@dataclass(frozen=True)
class Song:
    """An ingested folder, opened."""

    url: str
    dataset: Dataset

    @classmethod
    def ingest(cls, folder: Path, out: Path, runs: list[str], subjects: tuple[str, ...]) -> "Song":
        """Publish some runs of some people (all if none is named) and open them."""
        ingest(SongConfig(folder=str(folder), runs=tuple(runs), subjects=subjects), out)
        return cls(str(out), Dataset.open(out))

    def subjects(self, *runs: str) -> tuple[str, ...]:
        """People who have all of these runs."""
        have = [{r.subject for r in self.dataset.runs if r.run == run} for run in runs]
        return tuple(s for s in self.dataset.subjects if all(s in people for people in have))

    def brains(self, run: str, subjects: tuple[str, ...]) -> Rows:
        """(rows, parcels) float32 of each subject."""
        rows = self._rows(run)
        return {s: self.dataset.gather_samples(rows[s]).astype(np.float32) for s in subjects if s in rows}

    def labels(self, run: str, subjects: tuple[str, ...]) -> Rows:
        """(rows, components) of each subject, z-scored over the run."""
        rows = self._rows(run)
        return {s: self.truth(self.dataset.gather_stimulus_rows(rows[s])) for s in subjects}

    def truth(self, stimulus_row: NDArray[np.int64]) -> NDArray[np.floating]:
        """(rows, components) of one run, z-scored over it."""
        shown, place = np.unique(stimulus_row, return_inverse=True)
        return standardise(self.dataset.gather_stimuli("features", shown).astype(np.float64)[place])

    def _rows(self, run: str) -> dict[str, NDArray[np.int64]]:
        return {r.subject: np.array(r.rows) for r in self.dataset.runs if r.run == run}


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "this folder has none"
