"""The runs behind `benchmarks.results_synthetic`: for each seed new films, new brains, new weights.

A run's folder bears its fingerprint, and so does the data's: what is finished is not done again, and changed settings
never meet old results.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from benchmarks.known_parameter_decoder import ceiling
from numpy.typing import NDArray
from pydantic import Field

from cineray.core.config import Config
from cineray.core.storage import Store
from cineray.datasets.dataset import Dataset
from cineray.datasets.ingest import ingest
from cineray.datasets.manifest import MANIFEST_KEY
from cineray.datasets.sources.synthetic import SyntheticConfig
from cineray.training.cuts import tabulate
from cineray.training.evaluate import evaluate, parts_of, scoring
from cineray.training.feed import open_feed
from cineray.training.loop import train
from cineray.training.metrics import RETRIEVAL_METRICS
from cineray.training.predict import Predictions, predict, read_run
from cineray.training.recipes import synthetic
from cineray.training.run import Run
from cineray.training.scores import per_clip
from cineray.training.world import World

__all__ = ["METRIC", "Plan", "Scored", "Seed", "finish", "scored"]

METRIC = "retrieve_image@50"
Array = NDArray[np.float64]


class Plan(Config):
    """How much of everything."""

    out: str = "runs/results-synthetic"
    seeds: tuple[int, ...] = Field(default=(0, 1, 2, 3, 4), min_length=1)
    num_known: int = 4
    """Subjects of the shared model ..."""
    minutes: float = 480.0
    """... and how long each of them watches."""
    num_crowd: int = 24
    """Subjects of whom there are but a few minutes and who are scored, the known ones first."""
    together: tuple[tuple[float, int], ...] = ((1, 256), (2, 128), (5, 51), (10, 26))
    """Minutes of each, and of how many people, who train together: the fewer minutes, the more people it takes."""
    num_new: int = 2
    """Of these, the last ones: they join the shared model."""
    few: tuple[float, ...] = (1, 2, 5, 10, 20)
    """Minutes of each subject where data is scarce."""
    test_minutes: float = 10.0


@dataclass(frozen=True)
class Seed:
    """One repetition: its data and its runs."""

    plan: Plan
    seed: int

    @property
    def source(self) -> SyntheticConfig:
        """Much of few subjects. Everybody watches films of their own; only the test film is common."""
        return self._source(self.plan.num_known, self.plan.minutes)

    @property
    def crowd(self) -> SyntheticConfig:
        """Little of many; whoever is in both has the same brain in both."""
        return self._source(self.plan.num_crowd, max(self.plan.few))

    def many(self, minutes: float) -> SyntheticConfig:
        """The crowd and whoever else trains together with so many minutes of each."""
        return self._source(max(self.plan.num_crowd, dict(self.plan.together)[minutes]), minutes)

    @property
    def known(self) -> list[str]:
        """Subjects of the shared model."""
        return self.source.subjects

    @property
    def new(self) -> list[str]:
        """Subjects it knows nothing of."""
        return self.crowd.subjects[-self.plan.num_new :]

    @property
    def _folder(self) -> Path:
        return Path(self.plan.out) / f"seed-{self.seed}"

    def folder(self, run: Run) -> str:
        """Where a run of this seed lives."""
        minutes = run.view.split.train.minutes
        amount = "all" if minutes is None else f"{minutes:g}min"
        who = f"-{run.view.subjects[0]}" if len(run.view.subjects) == 1 else ""
        return str(self._folder / f"{run.name}{who}-{amount}-{run.fingerprint()[:8]}")

    def alone(self, minutes: float) -> list[str]:
        """Subjects who also have a decoder to themselves."""
        return self.crowd.subjects if minutes in dict(self.plan.together) else self.new

    def make_data(self) -> None:
        """Ingest what is not there."""
        together = (self.many(minutes) for minutes, _ in self.plan.together)
        for source in (self.source, self.crowd, *together):
            if not Store.at(self.data(source)).exists(MANIFEST_KEY):
                ingest(source, self.data(source))

    def ceiling(self) -> dict[str, float]:
        """Subject of the shared model -> top-1 of the decoder that knows the brain."""
        store, key = Store.at(self._folder), f"ceiling-{self.source.fingerprint()[:8]}.json"
        if not store.exists(key):
            store.put(key, json.dumps(ceiling(self.source, self.known)).encode())
        return json.loads(store.get(key))

    def shared(self) -> Run:
        """The shared model."""
        return self._own(synthetic.shared(subjects=self.known, dataset=self.data(self.source)))

    def ridge(self) -> Run:
        """The baseline with as much data."""
        return self._own(synthetic.ridge(subjects=self.known, dataset=self.data(self.source)))

    def together(self, minutes: float) -> Run:
        """A model shared by the crowd and whoever else is in it."""
        many = self.many(minutes)
        return self._own(synthetic.shared(subjects=many.subjects, dataset=self.data(many), minutes=minutes))

    def scratch(self, subject: str, minutes: float) -> Run:
        """One subject, trained on nobody else."""
        return self._own(synthetic.scratch(subject=subject, dataset=self.data(self.crowd), minutes=minutes))

    def ridge_alone(self, minutes: float) -> Run:
        """The baseline with as little data."""
        subjects = self.alone(minutes)
        return self._own(synthetic.ridge(subjects=subjects, dataset=self.data(self.crowd), minutes=minutes))

    def adapt(self, subject: str, minutes: float) -> Run:
        """One subject who joins the finished shared model."""
        start = self.folder(self.shared())
        return self._own(synthetic.adapt(from_=start, subject=subject, minutes=minutes, dataset=self.data(self.crowd)))

    def first_runs(self) -> Iterator[Run]:
        """What depends on no other run, the longest first."""
        yield self.shared()
        yield self.ridge()
        for minutes in sorted(self.plan.few, reverse=True):
            if minutes in dict(self.plan.together):
                yield self.together(minutes)
            yield from (self.scratch(subject, minutes) for subject in self.alone(minutes))
            yield self.ridge_alone(minutes)

    def later_runs(self) -> Iterator[Run]:
        """What starts from the shared model."""
        yield from (self.adapt(subject, minutes) for minutes in self.plan.few for subject in self.new)

    def data(self, source: SyntheticConfig) -> str:
        """Folder of a data set."""
        return str(self._folder / f"data-{source.fingerprint()[:8]}")

    def _source(self, num_subjects: int, minutes: float) -> SyntheticConfig:
        size = {"num_subjects": num_subjects, "minutes": minutes, "test_minutes": self.plan.test_minutes}
        return SyntheticConfig(films="own", frame_px=16, frames=False, seed=self.seed, **size)

    def _own(self, run: Run) -> Run:
        return run.override({"seed": self.seed})


def finish(run: Run, folder: str) -> None:
    """Train, predict the test film, score it; nothing where that is done."""
    store = Store.at(folder)
    if store.exists("evaluation/test.json"):
        return
    torch.set_num_threads(1)
    train(run, World(), lambda normaliser: open_feed(run, normaliser), store)
    predict(folder)
    evaluate(folder)


@dataclass(frozen=True)
class Scored:
    """Top-1 of every clip (an expectation over the 49 others) of a finished run."""

    subjects: list[str]
    blocks: list[tuple[str, int]]
    """Block of each clip: clips of one block are resampled together."""
    values: Array
    """(subjects, clips)."""
    null: Array
    """(subjects, clips), mean over shuffles."""

    def of(self, subjects: list[str]) -> Array:
        """(subjects, clips) of some."""
        return self.values[[self.subjects.index(s) for s in subjects]]


def scored(folder: str) -> Scored:
    """Read back the predictions and score each clip."""
    store = Store.at(folder)
    run, predictions = read_run(store), Predictions.read(store, "test")
    how = scoring(run.evaluation, run.seed)
    shown, row = np.unique(predictions.stimulus_row, return_inverse=True)
    mean, sd = predictions.scale["features"]
    truth = ((Dataset.open(run.view.dataset).gather_stimuli("features", shown) - mean) / sd)[row]
    table = tabulate(list(parts_of(predictions, "features", truth)), how)
    metric = RETRIEVAL_METRICS[METRIC]
    nulls = [per_clip(metric, table, number + 1) for number in range(table.num_null)]
    blocks = [(clip_run, int(start // how.block_s)) for _, clip_run, start in table.clips]
    return Scored(table.subjects, blocks, per_clip(metric, table), np.mean(nulls, axis=0))
