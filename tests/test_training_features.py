"""Runs and computed targets: who reads one is tied to it, everybody else is not."""

from typing import ClassVar, Literal

import numpy as np
import pytest

from cineray.core.config import Config
from cineray.core.errors import ConfigError
from cineray.core.storage import Store
from cineray.datasets.dataset import Dataset
from cineray.datasets.extraction import extract
from cineray.datasets.schema import TensorSpec
from cineray.serving.pipeline import Pipeline
from cineray.training.evaluate import evaluate
from cineray.training.feed import open_feed
from cineray.training.launch import launch
from cineray.training.loop import train
from cineray.training.predict import Predictions, predict, read_run
from cineray.training.world import World
from tiny_run import tiny_run


class LettersConfig(Config):
    """How often each vowel is in the caption."""

    reads_frames: ClassVar[bool] = False
    version: ClassVar[int] = 1
    name: Literal["letters"] = "letters"
    target: str = "letters"
    scale: float = 1.0

    def spec(self, dataset):
        return TensorSpec("float32", (5,), "dim", "count")

    def build(self, device):
        return self

    def encode(self, frames, captions):
        return np.array([[self.scale * text.count(vowel) for vowel in "aeiou"] for text in captions], np.float32)


def go_on(folder):
    run, store = read_run(Store.at(f"{folder}/run")), Store.at(f"{folder}/run")
    return train(run, World(), lambda normaliser: open_feed(run, normaliser), store)


USES = {
    "train": go_on,
    "predict": lambda folder: predict(f"{folder}/run", "test"),
    "evaluate": lambda folder: evaluate(f"{folder}/run", "test"),
    "serve": lambda folder: Pipeline.open(f"{folder}/run"),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Reads the ingested target; another one is computed after the training."""
    folder = tmp_path_factory.mktemp("plain")
    predict(tiny_run(folder), "test")
    extract(folder / "data", LettersConfig())
    return folder


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """Reads the computed target, which is computed otherwise after the training."""
    folder = tmp_path_factory.mktemp("reader")
    tiny_run(folder)
    extract(folder / "data", LettersConfig())
    run = read_run(Store.at(folder / "run")).override(
        {"view.targets": ["letters"], "losses": [{"name": "mse", "target": "letters"}]}
    )
    Store.at(folder / "run2").put("run.yaml", run.dump().encode())
    train(run, World(), lambda normaliser: open_feed(run, normaliser), Store.at(folder / "run2"))
    (folder / "run").rename(folder / "unused")
    (folder / "run2").rename(folder / "run")
    predict(folder / "run", "test")
    return folder


@pytest.mark.parametrize("use", USES)
def test_a_feature_that_is_not_read_leaves_the_run_valid(plain, use):
    assert "letters" in Dataset.open(plain / "data").target_specs
    USES[use](plain)


def test_a_run_can_learn_a_computed_target(reader):
    """Its evaluation compares with the stored values."""
    predictions = Predictions.read(Store.at(reader / "run"), "test")
    assert predictions.predicted["letters"].shape == (len(predictions.stimulus_row), 5)
    assert list(evaluate(reader / "run", "test")["targets"]) == ["letters"]
    dataset = Dataset.open(reader / "data")
    captions = dataset.stimuli(["caption"])["caption"].to_pylist()
    stored = dataset.gather_stimuli("letters", predictions.stimulus_row)
    assert stored[:, 1].tolist() == [captions[row].count("e") for row in predictions.stimulus_row]


@pytest.mark.parametrize("use", [*USES, "launch"])
def test_other_values_of_a_feature_that_is_read_are_refused(reader, use):
    before = Dataset.open(reader / "data").fingerprint_of(["letters"])
    extract(reader / "data", LettersConfig(scale=2.0), replace=True)
    uses = USES | {"launch": lambda folder: launch(read_run(Store.at(f"{folder}/run")), f"{folder}/run")}
    with pytest.raises(ConfigError, match=r"has fingerprint \w{16}, .* made from \w{16}; publish"):
        uses[use](reader)
    extract(reader / "data", LettersConfig(), replace=True)
    assert Dataset.open(reader / "data").fingerprint_of(["letters"]) == before
    USES.get(use, go_on)(reader)
