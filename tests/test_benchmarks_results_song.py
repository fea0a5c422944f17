"""`make results-song` on a folder of the same layout with other names and sizes, and on the published one."""

import json

import numpy as np
import pytest
from benchmarks import results_song
from benchmarks.results_song_data import Song
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter1d
from sklearn.linear_model import Ridge

from cineray.core.storage import Store
from cineray.training.cuts import Scoring
from cineray.training.feed import open_feed
from cineray.training.loop import train
from cineray.training.predict import predict
from cineray.training.protocols.segments import match_all, pairs_in_srm, standardise
from cineray.training.recipes import song as recipes
from cineray.training.world import World
from film_protocol import compare_film, ridge_unseen, ridge_within, score_film

PEOPLE = ["anna", "ben", "cleo", "dora", "emil", "finn"]
PARCELS, COMPONENTS = 12, 5
LENGTHS = {"left": 240, "right": 220}
B_KEYS = {
    *(f"{row}_{metric}" for row in ("within", "ridge_within") for metric in ("top1", "2afc")),
    *("unseen_top1", "unseen_2afc", "ridge_unseen_2afc", "unseen_aligned_2afc"),
    *("within_diff_ci", "unseen_diff_ci", "n_subjects", "n_clips"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder that holds ``song``: slow stimuli, brains that carry them, one person who missed a film."""
    folder = tmp_path_factory.mktemp("data")
    write(folder / "song")
    return folder


def write(folder, seed=0):
    folder.mkdir()
    rng = np.random.default_rng(seed)
    code = rng.standard_normal((COMPONENTS, PARCELS))

    def brains(labels, people):
        z = np.stack([standardise(y @ code + 4 * rng.standard_normal((len(y), PARCELS))) for y in labels])
        return {"z": z.astype(np.float16), "subjects": np.array(people)}

    for run, length in LENGTHS.items():
        y = slow(rng, length)
        people = PEOPLE if run == "left" else PEOPLE[::-1][:5]  # Anna missed it; rows in another order
        np.save(folder / f"stim_{run}.npy", 3 * y.astype(np.float32) + 1)
        np.savez(folder / f"bold_{run}.npz", **brains([y] * len(people), people))
    own = np.stack([slow(rng, 90) for _ in PEOPLE])
    np.save(folder / "stim_pictures_per_subject.npy", own.astype(np.float32))
    np.savez(folder / "bold_pictures.npz", **brains(own, PEOPLE))
    np.savez(folder / "bold_quiet.npz", **brains([rng.standard_normal((100, COMPONENTS)) for _ in PEOPLE], PEOPLE))


def slow(rng, length):
    return standardise(np.apply_along_axis(np.convolve, 0, rng.standard_normal((length + 4, COMPONENTS)), np.ones(5),
                                           "valid"))  # fmt: skip


def rows_of(data, run, people):
    """Straight from the files."""
    with np.load(data / "song" / f"bold_{run}.npz") as found:
        brains = dict(zip(found["subjects"].tolist(), found["z"].astype(np.float64), strict=True))
    return {s: brains[s] for s in people}, standardise(np.load(data / "song" / f"stim_{run}.npy").astype(np.float64))


@pytest.fixture(scope="module")
def found(data):
    return results_song.results(data / "song", [("left", "right")], ())


def test_every_key_is_there_and_the_last_line_is_json(data, monkeypatch, capsys):
    for name, value in {
        "TRAIN": "right",
        "TEST": "left",
        "SUBJECTS": "ben,cleo emil,finn",
        "CINERAY_DATA": data,
    }.items():
        monkeypatch.setenv(name, str(value))
    results_song.main([])
    out, err = capsys.readouterr()
    found = json.loads(out.splitlines()[-1])
    assert set(found) == {"A", "B", "C", "null", "seconds"}
    assert set(found["A"]) == set(found["B"]) == {"left"}
    assert set(found["A"]["left"]) >= {"top1", "percentile", "srm_top1", "ci"}
    assert set(found["B"]["left"]) >= B_KEYS
    assert set(found["C"]) >= {"top1", "mispaired"}
    assert (found["B"]["left"]["n_subjects"], found["B"]["left"]["n_clips"]) == (4, 12)
    assert found["C"]["n_subjects"] == 4
    assert set(found["null"]["A"]["left"]) == {"quiet"}
    assert "chosen on right" in err + out
    assert "| within |" in out


def test_the_baselines_are_those_of_the_plain_arrays(data, found):
    people = PEOPLE[1:]
    (x, y), (xt, yt) = (rows_of(data, run, people) for run in ("left", "right"))
    how = Scoring(num_bootstrap=4000)
    within, unseen = ridge_within(x, y, xt), ridge_unseen(x, y, xt)
    b = found["B"]["right"]
    assert b["n_subjects"] == 5
    for name, predicted in (("ridge_within", within), ("ridge_unseen", unseen)):
        expected = score_film(predicted, yt, tr_s=1.0, how=how)
        for metric in ("top1", "2afc"):
            assert b[f"{name}_{metric}"] == pytest.approx(expected[metric].value, abs=2e-3)
            between = [expected[metric].low, expected[metric].high]
            assert b[f"{name}_{metric}_ci"] == pytest.approx(between, abs=0.02)
    srm = match_all(pairs_in_srm(x, xt, dim=12), 10)
    assert found["A"]["right"]["srm_top1"] == pytest.approx(np.mean([m.top1.mean() for m in srm.values()]), abs=5e-3)


@pytest.mark.parametrize(
    "row", ["pooled_unseen", "pooled_unseen_high_pass", "pooled_within", "pooled_within_high_pass"]
)
def test_the_pooled_baselines_are_scikit_learns(data, found, row):
    people = PEOPLE[1:]
    (x, y), (xt, yt) = (rows_of(data, run, people) for run in ("left", "right"))
    b, c = found["B"]["right"], found["B"]["right"]["chosen"][row]
    assert (c["own"] > 0) == ("within" in row)
    assert c["high_pass"] == 0 or row.endswith("high_pass")
    predicted = {}
    for held in people:
        weights = np.repeat([c["own"] if s == held else 1 / 4 for s in people], len(y))
        pool = np.concatenate([x[s] for s in people])
        out = Ridge(alpha=c["penalty"]).fit(pool, np.tile(y, (5, 1)), sample_weight=weights).predict(xt[held])
        predicted[held] = out - c["high_pass"] * gaussian_filter1d(out, 4, axis=0, mode="nearest")
    expected = score_film(predicted, yt, tr_s=1.0, how=Scoring(num_bootstrap=10))
    for metric in ("top1", "2afc"):
        assert b[f"{row}_{metric}"] == pytest.approx(expected[metric].value, abs=2e-3)
    ours = "within" if "within" in row else "unseen"
    for metric in ("top1", "2afc"):
        mean, low, high = b[f"{ours}_minus_{row}_{metric}"]
        assert mean == pytest.approx(b[f"{ours}_{metric}"] - b[f"{row}_{metric}"])
        assert low <= mean <= high


def test_whitened_parcels_hold_nothing_of_the_person(data, found):
    people = PEOPLE[1:]
    (x, _), (xt, _) = (rows_of(data, run, people) for run in ("left", "right"))
    share, pairs = found["A"]["right"]["whitened_chosen"]["shrinkage"], []
    for held in people:
        others = [s for s in people if s != held]
        stack = np.stack([x[s] for s in others])
        scatter = np.einsum("stv,stw->vw", stack - stack.mean(0), stack - stack.mean(0)) / 3
        white = np.linalg.inv(sqrtm(scatter + share * np.trace(scatter) / PARCELS * np.eye(PARCELS)).real)
        pairs.append((held, xt[held] @ white, np.mean([xt[s] for s in others], axis=0) @ white))
    matches = match_all(pairs, 10)
    a = found["A"]["right"]
    assert a["whitened_top1"] == pytest.approx(np.mean([m.top1.mean() for m in matches.values()]), abs=5e-3)
    assert a["minus_whitened"][0] == pytest.approx(a["top1"] - a["whitened_top1"])


def test_what_the_brains_carry_is_found_and_what_they_do_not_is_not(found):
    b, null = found["B"]["right"], found["null"]["B"]["right"]
    assert min(b[f"{row}_2afc"] for row in ("within", "unseen", "unseen_aligned")) > 0.8
    assert null["within"]["2afc"] == pytest.approx(0.5, abs=0.1)
    assert found["A"]["right"]["top1"] > 0.3
    quiet = found["null"]["A"]["right"]["quiet"]
    assert quiet["percentile"] == pytest.approx(0.5, abs=0.1)
    candidates = [1 + sum(abs(i - j) >= 10 for j in range(91)) for i in range(91)]  # 91 windows of 10 in 100 scans
    assert quiet["nominal_chance"] == pytest.approx(np.mean([1 / n for n in candidates]))
    assert found["C"]["top1"] == 1
    assert found["C"]["top1_ci"] == pytest.approx([0.025 ** (1 / 6), 1])  # of six right out of six, Clopper & Pearson
    assert found["C"]["top1_by_penalty"]["10000"] == 1
    assert found["C"]["mispaired"] < 0.5


def test_nothing_is_chosen_on_the_test_film(data, found, tmp_path):
    """Other test brains and labels: other scores, the same settings."""
    write(tmp_path / "song")
    _, y = rows_of(data, "right", PEOPLE[1:])
    with np.load(tmp_path / "song" / "bold_right.npz") as old:
        np.savez(tmp_path / "song" / "bold_right.npz", z=old["z"][:, ::-1], subjects=old["subjects"])
    np.save(tmp_path / "song" / "stim_right.npy", np.roll(y, 17, axis=1).astype(np.float32))
    other = results_song.results(tmp_path / "song", [("left", "right")], ())
    for protocol in "AB":
        assert other[protocol]["right"]["chosen"] == found[protocol]["right"]["chosen"]
    assert other["B"]["right"]["within_2afc"] != found["B"]["right"]["within_2afc"]


@pytest.fixture(scope="module")
def song(data, tmp_path_factory):
    return Song.ingest(data / "song", tmp_path_factory.mktemp("shards") / "films", ["left", "right"], ())


def decoded(run, folder, subject):
    train(run, World(), lambda normaliser: open_feed(run, normaliser), Store.at(folder))
    predictions = predict(folder)
    return predictions.predicted["features"][predictions.subject == subject]


@pytest.mark.parametrize("recipe", [recipes.matched_filter_unseen, recipes.ridge_unseen, recipes.pooled_ridge])
def test_unseen_predicts_what_a_run_without_that_person_predicts(song, tmp_path, recipe):
    run = recipe(dataset=song.url, train="left", test="right", subjects=tuple(PEOPLE[1:]))
    without = run.override({"view.split.train.except_subjects": ["cleo"]})
    together, apart = decoded(run, tmp_path / "a", "cleo"), decoded(without, tmp_path / "b", "cleo")
    np.testing.assert_allclose(together, apart, atol=2e-3 * together.std())  # float16 z-scores are off by 1e-4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--train=up", "--test=left"],
            "TRAIN is 'up', expected a run with stimulus features that all saw: left, right",
        ),
        (["--train=pictures", "--test=left"], "TRAIN is 'pictures', expected"),
        (["--train=left", "--test=quiet"], "TEST is 'quiet', expected a run with stimulus features: left, right, pic"),
        (["--train=left", "--test=left"], "TRAIN and TEST are both 'left'"),
        (["--train=left"], "found TRAIN='left' and TEST='', expected both or one of sitcomep1 and sitcomep2"),
        (["--train=left", "--test=right", "--subjects=zoe"], "there is no subject 'zoe'"),
        (["--train=left", "--test=right", "--subjects=ben,cleo"], "found 2 subjects with both left and right"),
        (["--data=", "--train=left", "--test=right"], "found no CINERAY_DATA"),
        (["--data=/nowhere", "--train=left", "--test=right"], r"holds no bold_"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_sentence(data, words, message, capsys, monkeypatch):
    monkeypatch.setenv("CINERAY_DATA", str(data))
    with pytest.raises(SystemExit) as stopped:
        results_song.main(words)
    assert stopped.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("results-song: ")
    assert message in last


def test_directions():
    assert results_song.directions("", "") == [("sitcomep2", "sitcomep1"), ("sitcomep1", "sitcomep2")]
    assert results_song.directions("sitcomep1", "") == [("sitcomep1", "sitcomep2")]
    assert results_song.directions("", "sitcomep1") == [("sitcomep2", "sitcomep1")]
    assert results_song.directions("a", "b") == [("a", "b")]


@pytest.mark.slow
def test_the_recipes_reach_their_scores_on_real_brains(data_folder, tmp_path):
    song = Song.ingest(data_folder("song"), tmp_path / "films", ["sitcomep1", "sitcomep2"], ())
    people = song.subjects("sitcomep1", "sitcomep2")
    about = {"dataset": song.url, "train": "sitcomep2", "test": "sitcomep1", "subjects": people}
    truth = song.labels("sitcomep1", people)["sub-001"]
    predicted = {}
    for recipe in (recipes.matched_filter, recipes.matched_filter_unseen, recipes.ridge_within):
        run = recipe(**about)
        train(run, World(), lambda normaliser, run=run: open_feed(run, normaliser), Store.at(tmp_path / run.name))
        found = predict(tmp_path / run.name)
        predicted[recipe] = {s: found.predicted["features"][found.subject == s] for s in people}
    how = Scoring(num_bootstrap=500, num_null=1)
    within, unseen, ridge = (score_film(p, truth, tr_s=1.0, how=how)["2afc"] for p in predicted.values())
    assert within.value > 0.8
    assert unseen.value > 0.78
    assert ridge.value == pytest.approx(0.734, abs=0.001)
    gain = compare_film(predicted[recipes.matched_filter], predicted[recipes.ridge_within], truth, tr_s=1.0, how=how)
    assert gain["2afc"].low > 0.02
