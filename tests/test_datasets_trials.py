"""Trials of stimuli that last several scans."""

import itertools
from collections.abc import Iterator
from typing import Literal

import numpy as np

from cineray.core.config import Config
from cineray.datasets.dataset import Dataset
from cineray.datasets.ingest import ingest
from cineray.datasets.schema import TensorSpec
from cineray.datasets.signal import SignalConfig
from cineray.datasets.sources.base import Recording, Stimulus
from cineray.datasets.split import Selection, SplitConfig, make_split
from cineray.datasets.stream import Stream
from cineray.datasets.view import ViewConfig
from cineray.training.models.linear import align


class Long(Config):
    """Four clips of three scans, which begin .3 TR before a scan; one of two people was asleep in the first scan."""

    name: Literal["long"] = "long"

    def targets(self) -> dict[str, TensorSpec]:
        return {"features": TensorSpec("float32", (1,), "dim", "1")}

    def stimuli(self) -> Iterator[Stimulus]:
        for film, i in itertools.product(("one", "two"), range(4)):
            targets = {"features": np.full(1, i, np.float32)}
            yield Stimulus(f"{film}-{i}", film, 6.0 * i, 6.0, f"{film}-{i}", targets=targets)

    def recordings(self) -> Iterator[Recording]:
        rng = np.random.default_rng(0)
        for subject, film in itertools.product(("sub-b", "sub.a"), ("one", "two")):
            shown: list[str | None] = [f"{film}-{i}" for i in range(4) for _ in range(3)]
            offset_s = np.tile([0.6, 2.6, 4.6], 4)
            if subject == "sub.a":
                shown[0], offset_s[0] = None, np.nan
            brain = rng.normal(size=(12, 5)).astype(np.float16)
            yield Recording(subject, film, 0, 2.0, brain, 2.0 * np.arange(12), shown, offset_s)

    def notes(self) -> dict[str, object]:
        return {}


def test_trials_keep_step_without_the_first_scan_of_a_stimulus(tmp_path):
    ingest(Long(), tmp_path, signal=SignalConfig(zscore="none"))
    dataset = Dataset.open(tmp_path)
    split = SplitConfig(train=Selection(films=("one",)), test=Selection(films=("two",)))
    view = ViewConfig(dataset="x", split=split)
    stream = Stream(dataset, view, make_split(dataset, split).train, batch_size=5, seed=0, normaliser=None)
    trials = {trial.subject: trial for trial in stream.trials()}
    assert trials["sub-b"].scan.tolist() == [0, 1, 2] * 4
    assert trials["sub.a"].scan.tolist() == [1, 2] + [0, 1, 2] * 3
    aligned = align(trials.values())
    common = aligned.common()
    assert sorted(aligned.rows_at("sub-b", common).tolist()) == list(range(1, 12))
    assert (aligned.rows_at("sub-b", common) - aligned.rows_at("sub.a", common)).tolist() == [1] * 11
