"""Masks and concepts: metrics against scikit-learn, and predicted targets of a run scored by loops over their rows."""

import json
from collections.abc import Iterator
from typing import Literal

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, recall_score

from cineray.core.config import Config
from cineray.core.storage import Store
from cineray.datasets.ingest import ingest
from cineray.datasets.schema import TensorSpec
from cineray.datasets.sources.base import Recording, Stimulus
from cineray.training.evaluate import evaluate, format_table
from cineray.training.feed import open_feed
from cineray.training.loop import train
from cineray.training.metrics import presence
from cineray.training.predict import predict
from cineray.training.report import report
from cineray.training.run import Run
from cineray.training.world import World

NUM, CONCEPTS, PX = 120, 4, 5


def marks(rng, *shape, share=0.3):
    return rng.random(shape) < share


def test_dice_is_the_f1_of_pixels():
    rng = np.random.default_rng(0)
    said, true = marks(rng, 7, 30), marks(rng, 7, 30)
    said[:2], true[1:3] = False, False
    expected = [f1_score(t, p, zero_division=1.0) for p, t in zip(said, true, strict=True)]
    expected[0] = 0.0 if true[0].any() else 1.0
    np.testing.assert_allclose(presence.dice(said, true), expected)
    assert presence.dice(said, true)[1] == 1, "neither marks anything"
    share = true.mean(-1)
    np.testing.assert_allclose(presence.dice_of_all(said, true), 2 * share / (1 + share))


def test_counts_give_what_scikit_learn_gives():
    rng = np.random.default_rng(1)
    said, true = marks(rng, 3, 40, 5), marks(rng, 3, 40, 5)
    true[..., 4] = False
    total = presence.Counts.of(said, true).weighted(np.ones((1, 3)))
    p, t = said.reshape(-1, 5), true.reshape(-1, 5)
    for k in range(5):
        assert presence.accuracy(total)[0, k] == pytest.approx(accuracy_score(t[:, k], p[:, k]))
        always = np.full(120, t[:, k].mean() > 0.5)
        assert presence.usual(total)[0, k] == pytest.approx(accuracy_score(t[:, k], always))
    for k in range(4):
        assert presence.recall(total)[0, k] == pytest.approx(recall_score(t[:, k], p[:, k]))
        assert presence.balanced_accuracy(total)[0, k] == pytest.approx(balanced_accuracy_score(t[:, k], p[:, k]))
        assert presence.said_rate(total)[0, k] == pytest.approx(p[:, k].mean())
    for undefined in (presence.recall, presence.balanced_accuracy, presence.said_rate):
        assert np.isnan(undefined(total)[0, 4]), "no row has the concept"


def test_draws_weigh_clips():
    rng = np.random.default_rng(2)
    said, true = marks(rng, 4, 6, 3), marks(rng, 4, 6, 3)
    drawn = presence.Counts.of(said, true).weighted(np.array([[2.0, 0, 1, 0]]))
    by_hand = presence.Counts.of(said[[0, 0, 2]], true[[0, 0, 2]]).weighted(np.ones((1, 3)))
    for found, expected in zip(drawn, by_hand, strict=True):
        np.testing.assert_array_equal(found, expected)


class Scenes(Config):
    """Two people, two films of 120 s; brains are a linear code of concepts and masks, plus noise."""

    name: Literal["scenes"] = "scenes"

    def targets(self) -> dict[str, TensorSpec]:
        return {
            "concepts": TensorSpec("uint8", (CONCEPTS,), "concepts", "0 or 1"),
            "mask": TensorSpec("uint8", (PX, PX), "height width", "0 or 1"),
        }

    def stimuli(self) -> Iterator[Stimulus]:
        rng = np.random.default_rng(0)
        for film in ("one", "two"):
            for i in range(NUM):
                shown = {
                    "concepts": (rng.random(CONCEPTS) < [0.1, 0.3, 0.5, 0.9]).astype(np.uint8),
                    "mask": marks(rng, PX, PX, share=0.4).astype(np.uint8),
                }
                yield Stimulus(f"{film}-{i}", film, float(i), 1.0, f"{film}-{i}", targets=shown)

    def recordings(self) -> Iterator[Recording]:
        code = np.random.default_rng(1).normal(size=(CONCEPTS + PX * PX, 60))
        for number, (subject, film) in enumerate((s, f) for s in ("sub-a", "sub-b") for f in ("one", "two")):
            shown = [s.targets for s in self.stimuli() if s.film == film]
            drive = np.stack([np.concatenate([x["concepts"], x["mask"].ravel()]) for x in shown]) @ code
            brain = drive + 2 * np.random.default_rng(number).normal(size=drive.shape)
            ids: list[str | None] = [f"{film}-{k}" for k in range(NUM)]
            clock = np.arange(NUM, dtype=float)
            yield Recording(subject, film, 0, 1.0, brain.astype(np.float16), clock, ids, np.zeros(NUM))

    def notes(self) -> dict[str, object]:
        return {}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Raw or z-scored targets -> an evaluated run."""
    data = tmp_path_factory.mktemp("scenes")
    ingest(Scenes(), data)
    made = {}
    for name, raw in (("raw", ["concepts", "mask"]), ("scaled", [])):
        view = {
            "dataset": str(data),
            "targets": ["concepts", "mask"],
            "raw_targets": raw,
            "split": {"train": {"films": ["one"]}, "test": {"films": ["two"]}},
        }
        how = {"clip_s": 5, "num_bootstrap": 200, "num_null": 4}
        model = {"name": "ridge", "penalties": [10.0]}
        losses = [{"name": "mse", "target": "concepts"}, {"name": "mse", "target": "mask"}]
        run = Run.parse(
            {"name": name, "view": view, "model": model, "losses": losses, "optim": {"epochs": 0}, "evaluation": how}
        )
        store = Store.at(tmp_path_factory.mktemp(name))
        store.put("run.yaml", run.dump().encode())
        train(run, World(), lambda normaliser, run=run: open_feed(run, normaliser), store)
        predict(store.url)
        made[name] = (store.url, evaluate(store.url))
    return made


@pytest.mark.parametrize("name", ["raw", "scaled"])
def test_predicted_targets_of_a_run_by_loops(trained, name):
    folder, found = trained[name]
    predictions = predict(folder)
    truths = {
        target: np.stack([s.targets[target] for s in Scenes().stimuli() if s.film == "two"]).reshape(NUM, -1)
        for target in ("concepts", "mask")
    }
    expected: dict[str, list[float]] = {"concept_accuracy": [], "concept_balanced": [], "dice": [], "recall": []}
    for subject in ("sub-a", "sub-b"):
        own = {}
        for target, values in predictions.predicted.items():
            mean, sd = predictions.scale.get(target, (0.0, 1.0))
            own[target] = (values * sd + mean)[predictions.subject == subject].reshape(NUM, -1) > 0.5
        pairs = [(truths["concepts"][:, k], own["concepts"][:, k]) for k in range(CONCEPTS)]
        expected["concept_accuracy"].append(np.mean([accuracy_score(*pair) for pair in pairs]))
        expected["concept_balanced"].append(np.mean([balanced_accuracy_score(*pair) for pair in pairs]))
        expected["recall"].append(np.mean([recall_score(*pair) for pair in pairs]))
        rows = zip(truths["mask"], own["mask"], strict=True)
        expected["dice"].append(np.mean([f1_score(t, p, zero_division=1.0) for t, p in rows]))
    concepts, mask = (found["targets"][target]["metrics"] for target in ("concepts", "mask"))
    for metric in ("concept_accuracy", "concept_balanced"):
        assert list(concepts[metric]["per_subject"].values()) == pytest.approx(expected[metric])
    assert concepts["concept_recall@neurons"]["value"] == pytest.approx(np.mean(expected["recall"]))
    assert list(mask["dice"]["per_subject"].values()) == pytest.approx(expected["dice"])
    base = truths["concepts"].mean(0)
    assert concepts["concept_accuracy"]["chance"] == pytest.approx(np.maximum(base, 1 - base).mean())
    assert [each["base_rate"] for each in found["targets"]["concepts"]["concepts"]] == pytest.approx(base.tolist())
    assert not {"dice", "concepts"} & set(concepts)
    assert "concept_accuracy" not in mask


def test_a_decoder_beats_chance_and_wrong_clips_do_not(trained):
    _, found = trained["scaled"]
    balanced = found["targets"]["concepts"]["metrics"]["concept_balanced"]
    assert balanced["low"] > balanced["chance"] == 0.5
    assert balanced["null"] == pytest.approx(0.5, abs=0.06)
    recall = found["targets"]["concepts"]["metrics"]["concept_recall@neurons"]
    assert recall["null"] == pytest.approx(recall["chance"], abs=0.06)
    dice = found["targets"]["mask"]["metrics"]["dice"]
    assert dice["low"] > dice["chance"]
    assert dice["null"] < dice["chance"], "marking everything is better than marking the wrong picture"


def test_tables_and_pages_list_each_concept(trained):
    folder, found = trained["raw"]
    text = format_table(found, "concepts")
    for number, each in enumerate(found["targets"]["concepts"]["concepts"]):
        assert f"concept {number}" in text
        assert f"base rate {each['base_rate']:.3f}" in text
    assert "concept" not in format_table(found, "mask")
    json.dumps(found, allow_nan=False)
    with open(report(folder), encoding="utf-8") as page:
        assert f"Concept by concept ({CONCEPTS})" in page.read()
