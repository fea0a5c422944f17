"""From shards to a scored run: predictions tied to their rows, scores equal to those of plain arrays."""

import itertools
import json
from collections.abc import Iterator
from typing import Literal

import numpy as np
import pytest
import torch

from cineray.core.config import Config
from cineray.core.errors import ConfigError, DataError
from cineray.core.storage import Store
from cineray.datasets.dataset import Dataset
from cineray.datasets.ingest import ingest
from cineray.datasets.schema import TensorSpec
from cineray.datasets.sources.base import Recording, Stimulus
from cineray.training.cuts import Part, Scoring, tabulate
from cineray.training.evaluate import compare_runs, evaluate, format_table
from cineray.training.feed import open_feed
from cineray.training.loop import train
from cineray.training.metrics import FEATURE_METRICS, RETRIEVAL_METRICS
from cineray.training.predict import Predictions, predict, restore
from cineray.training.run import Run
from cineray.training.scores import compare, score
from cineray.training.world import World

SUBJECTS = ("sub-a", "sub-b", "sub-c")
NUM_STIMULI, NUM_VOXELS, NUM_FEATURES = 160, 12, 5


class Films(Config):
    """Three people, two films of 160 s; every brain is an own linear code of the features, plus noise."""

    name: Literal["films"] = "films"

    def targets(self) -> dict[str, TensorSpec]:
        return {"features": TensorSpec("float32", (NUM_FEATURES,), "features", "1")}

    def stimuli(self) -> Iterator[Stimulus]:
        rng = np.random.default_rng(0)
        for film, i in itertools.product(("one", "two"), range(NUM_STIMULI)):
            features = rng.normal(3, 5, NUM_FEATURES).astype(np.float32)
            yield Stimulus(f"{film}-{i}", film, float(i), 1.0, f"{film}-{i}", targets={"features": features})

    def recordings(self) -> Iterator[Recording]:
        shown = {f: np.stack([s.targets["features"] for s in self.stimuli() if s.film == f]) for f in ("one", "two")}
        for i, (subject, film) in enumerate(itertools.product(SUBJECTS, shown)):
            code = np.random.default_rng(7).normal(size=(NUM_FEATURES, NUM_VOXELS))
            own = np.random.default_rng(i)
            brain = shown[film] @ code + 12 * own.normal(size=(NUM_STIMULI, NUM_VOXELS))
            ids: list[str | None] = [f"{film}-{k}" for k in range(NUM_STIMULI)]
            clock = np.arange(NUM_STIMULI, dtype=float)
            yield Recording(subject, film, 0, 1.0, brain.astype(np.float16), clock, ids, np.zeros(NUM_STIMULI))

    def notes(self) -> dict[str, object]:
        return {}


@pytest.fixture(scope="module")
def dataset_url(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    ingest(Films(), folder)
    return str(folder)


@pytest.fixture(scope="module")
def trained(dataset_url, tmp_path_factory):
    """Model name -> run folder, fitted on film one, to be tested on film two."""
    made: dict[str, str] = {}

    def folder_of(model: str) -> str:
        if model not in made:
            split = {"train": {"films": ["one"]}, "test": {"films": ["two"]}}
            run = Run.parse(
                {
                    "name": model,
                    "view": {"dataset": dataset_url, "split": split},
                    "model": {"name": model, "penalties": [10.0]} if model != "chance" else {"name": model},
                    "optim": {"epochs": 0},
                    "evaluation": {"clip_s": 5, "num_bootstrap": 300, "num_null": 5},
                }
            )
            folder = tmp_path_factory.mktemp(model)
            store = Store.at(folder)
            store.put("run.yaml", run.dump().encode())
            train(run, World(), lambda normaliser: open_feed(run, normaliser), store)
            made[model] = str(folder)
        return made[model]

    return folder_of


def test_predictions_stand_beside_their_own_rows(trained, dataset_url):
    """Every stored prediction, computed again one row at a time from the data set's own bytes."""
    folder = trained("ridge")
    found = predict(folder, "test")
    again = Predictions.read(Store.at(folder), "test")
    for name, value in vars(found).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, getattr(again, name))
    np.testing.assert_array_equal(found.predicted["features"], again.predicted["features"])
    restored, dataset = restore(Store.at(folder)), Dataset.open(dataset_url)
    samples = dataset.samples().to_pylist()
    assert len(found.example) == 3 * NUM_STIMULI
    for i in range(0, len(found.example), 37):
        row = int(found.sample_row[i])
        meta = samples[row]
        assert (meta["subject"], meta["run"]) == (found.subject[i], found.run[i])
        assert (meta["onset_s"], meta["stimulus_row"]) == (found.time_s[i], found.stimulus_row[i])
        moments = restored.normaliser.brain[meta["subject"]]
        brain = moments.scale(torch.from_numpy(dataset.gather_samples(np.array([row]))))
        own = {s: torch.zeros(0, 1, NUM_VOXELS) for s in SUBJECTS} | {meta["subject"]: brain[:, None]}
        expected = restored.model(own)["features"][0].detach().numpy()
        np.testing.assert_allclose(found.predicted["features"][i], expected, atol=1e-5)


def test_windows_keep_the_gap_wherever_a_run_is_split(dataset_url, tmp_path):
    """Validation is the second quarter of film one: 10 s of gap and 8 scans of window lie on both sides of it."""
    view = {
        "dataset": dataset_url,
        "window": {"first": -8, "last": 8},
        "split": {
            "train": {"films": ["one"]},
            "val": {"films": ["one"], "blocks": {"num": 4, "take": [1]}},
            "test": {"films": ["two"]},
        },
    }
    run = Run.parse({"name": "wide", "view": view, "model": {"name": "chance"}, "optim": {"epochs": 0}})
    train(run, World(), lambda normaliser: open_feed(run, normaliser), Store.at(tmp_path))
    expected = [*range(40 - 18), *range(80 + 18, NUM_STIMULI)]
    feed = open_feed(run)
    starts = [feed.train.dataset.runs[i].first_row for i in feed.train.examples.run_index(np.arange(len(expected)))]
    assert (feed.train.examples.rows(np.arange(len(expected))) - starts).tolist() == expected
    assert predict(tmp_path, "train").time_s.tolist() == expected * len(SUBJECTS)


def test_scores_equal_those_of_plain_arrays(trained):
    """The truth taken from the source and scaled by hand, not through the data set."""
    folder = trained("ridge")
    predictions = predict(folder, "test")
    table = evaluate(folder, "test")["targets"]["features"]["metrics"]
    assert json.loads(Store.at(folder).get("evaluation/test.json"))["targets"]["features"]["metrics"] == table
    features = {f: np.stack([s.targets["features"] for s in Films().stimuli() if s.film == f]) for f in ("one", "two")}
    truth = (features["two"] - features["one"].mean(0)) / features["one"].std(0)
    expected = {}
    for subject in SUBJECTS:
        p = predictions.predicted["features"][predictions.subject == subject]
        clips = [(p[a : a + 5].ravel(), truth[a : a + 5].ravel()) for a in range(0, NUM_STIMULI, 5)]
        r = np.array([[np.corrcoef(x, y)[0, 1] for _, y in clips] for x, _ in clips])
        expected[subject] = {
            "top1": np.mean(r.argmax(1) == np.arange(len(r))),
            "2afc": np.mean([np.delete(r[i] < r[i, i], i).mean() for i in range(len(r))]),
            "rank": np.median([(r[i] >= r[i, i]).sum() for i in range(len(r))]),
            "pearson": np.mean([np.corrcoef(p[:, k], truth[:, k])[0, 1] for k in range(NUM_FEATURES)]),
            "mse": np.mean((p - truth) ** 2),
        }
    for metric in expected["sub-a"]:
        for subject in SUBJECTS:
            assert table[metric]["per_subject"][subject] == pytest.approx(expected[subject][metric], abs=1e-5)
        assert table[metric]["value"] == pytest.approx(np.mean([e[metric] for e in expected.values()]), abs=1e-5)


def test_every_line_carries_chance_null_interval_and_units(trained):
    folder = trained("ridge")
    predict(folder)
    found = evaluate(folder)
    table = found["targets"]["features"]["metrics"]
    assert set(table) == {m.name for m in RETRIEVAL_METRICS.values() if m.min_candidates <= 32} | set(FEATURE_METRICS)
    for name, line in table.items():
        assert line["low"] <= line["value"] <= line["high"], name
        assert (line["num_subjects"], line["num_clips"]) == (3, 32)
        better = line["value"] > line["chance"] if line["higher_is_better"] else line["value"] < line["chance"]
        assert better, name
    assert table["2afc"]["low"] > 0.7
    assert table["2afc"]["null"] == pytest.approx(0.5, abs=0.06)
    assert table["pearson"]["null"] == pytest.approx(0, abs=0.06)
    text = format_table(found)
    assert all(name in text for name in table)


def test_chance_is_at_chance_and_loses_the_paired_comparison(trained):
    for model in ("chance", "ridge", "mean_of_others"):
        predict(trained(model))
    chance = evaluate(trained("chance"))["targets"]["features"]["metrics"]["2afc"]
    assert abs(chance["value"] - 0.5) < 0.12
    difference = compare_runs(trained("ridge"), trained("chance"))
    assert difference["2afc"].low > 0.1
    own = evaluate(trained("ridge"))["targets"]["features"]["metrics"]["2afc"]["value"]
    assert difference["2afc"].value == pytest.approx(own - chance["value"])
    same = compare_runs(trained("ridge"), trained("ridge"))
    assert all(tuple(x) == (0, 0, 0) for x in same.values())


def test_missing_things_are_named(trained, tmp_path):
    with pytest.raises(ConfigError, match=r"no run\.yaml"):
        predict(tmp_path)
    folder = trained("ridge")
    with pytest.raises(ConfigError, match="the val split"):
        predict(folder, "val")
    with pytest.raises(ConfigError, match="expected one of"):
        predict(folder, "tset")
    with pytest.raises(ConfigError, match=r"predictions/val\.npz"):
        evaluate(folder, "val")
    predict(folder)
    with pytest.raises(ConfigError, match="no predictions of 'other'"):
        compare_runs(folder, folder, target="other")


def a_part(rng, num=100, step_s=1.0, subject="s", signal=1.0, run="r", time_s=None):
    truth = rng.standard_normal((num, 3))
    predicted = signal * truth + rng.standard_normal((num, 3))
    time_s = np.arange(num) * step_s if time_s is None else time_s
    return Part(subject, "film", run, time_s, np.arange(num), predicted, truth)


def test_no_clip_spans_a_gap_in_time():
    rng = np.random.default_rng(0)
    time_s = np.concatenate([np.arange(13), 50 + np.arange(9)]).astype(float)
    table = tabulate([a_part(rng, 22, time_s=time_s)], Scoring(clip_s=4, num_bootstrap=10, num_null=20))
    assert [start for _, _, start in table.clips] == [0, 4, 8, 50, 54]
    for wrong in table.cuts[0].places[1:]:
        assert (np.abs(time_s[wrong][:, :, None] - time_s[table.cuts[0].places[0]][:, None]) >= 10).all()
    spans = time_s[table.cuts[0].places[0]]
    assert (spans[:, -1] - spans[:, 0] == 3).all()


def test_long_runs_are_shifted_and_trials_are_swapped_far_apart():
    rng = np.random.default_rng(0)
    shifted = tabulate([a_part(rng, 200)], Scoring(clip_s=5, num_bootstrap=10, num_null=20)).cuts[0].places
    for wrong in shifted[1:]:
        steps = (shifted[0] - wrong) % 200
        assert len(np.unique(steps)) == 1
        assert 60 <= steps[0, 0] <= 140
    trials = tabulate([a_part(rng, 25, step_s=4)], Scoring(clip_s=4, num_bootstrap=10, num_null=20)).cuts[0].places
    for wrong in trials[1:]:
        assert (np.abs(trials[0] - wrong) * 4 >= 10).all()


def test_two_runs_of_one_subject_are_pooled_and_unequal_ones_weighted_by_clips():
    rng = np.random.default_rng(1)
    a, b = a_part(rng, 40, run="a"), a_part(rng, 80, run="b")
    how = Scoring(clip_s=4, num_bootstrap=50, min_gap_s=4)
    alone = [score([x], how)["top1"] for x in (a, b)]
    both = score([a, b], how)["top1"]
    assert both.num_clips == 30
    assert both.value == pytest.approx((alone[0].value * 10 + alone[1].value * 20) / 30)
    assert both.chance == pytest.approx((1 / 10 * 10 + 1 / 20 * 20) / 30)


def test_a_paired_difference_is_narrower_than_two_intervals():
    """Both methods share the clips' difficulty, which cancels in the pair."""
    rng = np.random.default_rng(2)
    better, worse = [], []
    for subject in "abcd":
        part = a_part(rng, 400, subject=subject, signal=0.35)
        noisy = part.predicted + 0.5 * rng.standard_normal(part.predicted.shape)
        better.append(part)
        worse.append(Part(subject, "film", "r", part.time_s, part.stimulus_row, noisy, part.truth))
    how = Scoring(clip_s=10, num_bootstrap=500)
    pair = compare(better, worse, how)["2afc"]
    one, other = (score(x, how)["2afc"] for x in (better, worse))
    assert pair.value == pytest.approx(one.value - other.value)
    assert pair.high - pair.low < np.hypot(one.high - one.low, other.high - other.low)
    with pytest.raises(DataError, match="same rows"):
        compare(better[:2], worse, how)


def test_one_clip_is_refused_with_advice():
    with pytest.raises(DataError, match=r"evaluation\.clip_s"):
        score([a_part(np.random.default_rng(0), 30)], Scoring(clip_s=20))
