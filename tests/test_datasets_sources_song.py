"""The song layout with other names, sizes and people than the published folder, then the published folder itself."""

import numpy as np
import pytest

from cineray.core.errors import DataError
from cineray.datasets.dataset import Dataset
from cineray.datasets.ingest import ingest
from cineray.datasets.sources.song import SongConfig

RNG = np.random.default_rng(3)
PEOPLE = ["anna", "ben", "cleo", "dora"]


@pytest.fixture
def folder(tmp_path):
    """Two films (one without Ben, rows in another order), one with own sequences, one rest run; 6 parcels, 3 PCs."""
    runs = {"left": (["anna", "cleo", "dora"], 50), "right": (["dora", "ben", "anna", "cleo"], 40)}
    runs |= {"own": (PEOPLE, 30), "quiet": (PEOPLE, 20)}
    for run, (people, scans) in runs.items():
        z = RNG.normal(size=(len(people), scans, 6)).astype(np.float16)
        np.savez(tmp_path / f"bold_{run}.npz", z=z, subjects=np.array(people))
        if run in ("left", "right"):
            np.save(tmp_path / f"stim_{run}.npy", RNG.normal(size=(scans, 3)).astype(np.float32))
    np.save(tmp_path / "stim_own_per_subject.npy", RNG.normal(size=(4, 30, 3)))
    return tmp_path


def source(folder, **settings):
    return SongConfig.parse({"folder": str(folder), **settings})


def test_everything_comes_from_the_files(folder):
    config = source(folder, tr_s=1.5, group_s=6)
    recordings = list(config.recordings())
    assert {(r.run, r.subject) for r in recordings} == {
        *((run, s) for run in ("right", "own", "quiet") for s in PEOPLE),
        *(("left", s) for s in ("anna", "cleo", "dora")),
    }
    stimuli = {s.stimulus_id: s for s in config.stimuli()}
    assert len(stimuli) == 50 + 40 + 4 * 30
    assert config.targets()["features"].shape == (3,)
    for r in recordings:
        saved = np.load(folder / f"bold_{r.run}.npz")
        row = saved["subjects"].tolist().index(r.subject)
        np.testing.assert_array_equal(r.brain, saved["z"][row])
        np.testing.assert_allclose(r.onset_s, [1.5 * i for i in range(len(r.brain))])
        if r.run == "quiet":
            assert r.stimulus_id == [None] * 20
            assert np.isnan(r.offset_s).all()
            continue
        shared = r.run != "own"
        features = np.load(folder / f"stim_{r.run}{'' if shared else '_per_subject'}.npy")
        features = features if shared else features[row]
        for scan, name in enumerate(r.stimulus_id):
            assert stimuli[name].film == (r.run if shared else f"own/{r.subject}")
            assert stimuli[name].onset_s == r.onset_s[scan]
            np.testing.assert_array_equal(stimuli[name].targets["features"], features[scan].astype(np.float32))
    by_group = [s.group for s in config.stimuli() if s.film == "left"]
    assert by_group == [f"left-block-{i // 4:03d}" for i in range(50)]


def test_runs_and_people_can_be_chosen(folder):
    config = source(folder, runs=["left", "right"], subjects=["ben", "anna"])
    assert [(r.run, r.subject) for r in config.recordings()] == [("left", "anna"), ("right", "ben"), ("right", "anna")]
    assert {s.film for s in config.stimuli()} == {"left", "right"}
    assert source(folder, runs=["quiet"]).targets() == {}


def rewrite(folder, run, **arrays):
    old = dict(np.load(folder / f"bold_{run}.npz"))
    np.savez(folder / f"bold_{run}.npz", **{k: v for k, v in (old | arrays).items() if v is not None})


@pytest.mark.parametrize(
    ("breaking", "message"),
    [
        (lambda f: np.save(f / "stim_left.npy", np.zeros((49, 3))), r"stim_left.npy has shape \(49, 3\).*\(50, "),
        (lambda f: np.save(f / "stim_left.npy", np.zeros((50, 2))), r"components \(left 2, own 3, right 3\)"),
        (lambda f: np.save(f / "stim_own.npy", np.zeros((30, 3))), "has both stim_own.npy and"),
        (lambda f: np.save(f / "stim_own_per_subject.npy", np.zeros((3, 30, 3))), r"has shape \(3, 30, 3\)"),
        (lambda f: np.save(f / "stim_left.npy", np.full((50, 3), np.nan)), "150 values that are not finite"),
        (lambda f: np.save(f / "stim_left.npy", np.full((50, 3), None)), "holds object, expected real numbers"),
        (lambda f: rewrite(f, "left", z=None), "bold_left.npz holds only subjects, expected an array z"),
        (lambda f: rewrite(f, "left", z=np.zeros((50, 6))), r"holds z of shape \(50, 6\)"),
        (lambda f: rewrite(f, "left", z=np.zeros((3, 50, 5))), r"parcels \(left 5, own 6"),
        (lambda f: rewrite(f, "left", z=np.zeros((2, 50, 6))), "3 different subjects, expected one name a row"),
        (lambda f: rewrite(f, "left", subjects=np.array(["a", "a", "b"])), "2 different subjects"),
        (lambda f: rewrite(f, "left", subjects=None), "no array 'subjects'"),
        (lambda f: rewrite(f, "left", subjects=np.array(["a", "b", "c"], object)), "holds object, expected words"),
    ],
)
def test_a_broken_folder_is_refused(folder, breaking, message):
    breaking(folder)
    with pytest.raises(DataError, match=message):
        [*source(folder).stimuli(), *source(folder).recordings()]


def test_unknown_names_are_refused(folder, tmp_path_factory):
    with pytest.raises(DataError, match=r"no run 'up' in .*; it has left, own, quiet, right"):
        source(folder, runs=["up"]).targets()
    with pytest.raises(DataError, match="no subject 'zoe'"):
        next(source(folder, subjects=["zoe"]).recordings())
    with pytest.raises(DataError, match=r"no bold_\*.npz"):
        source(tmp_path_factory.mktemp("empty")).targets()


def through_shards(config, out, runs):
    """Every value of the files comes back bit by bit, with the features of its own scan."""
    ingest(config, out)
    dataset = Dataset.open(out)
    for info in dataset.runs:
        rows = np.arange(info.first_row, info.first_row + info.num_rows)
        saved = np.load(runs / f"bold_{info.run}.npz")
        row = saved["subjects"].tolist().index(info.subject)
        np.testing.assert_array_equal(dataset.gather_samples(rows), saved["z"][row])
        stimulus_rows = dataset.gather_stimulus_rows(rows)
        if (runs / f"stim_{info.run}.npy").is_file():
            features = np.load(runs / f"stim_{info.run}.npy")
        elif (runs / f"stim_{info.run}_per_subject.npy").is_file():
            features = np.load(runs / f"stim_{info.run}_per_subject.npy")[row]
        else:
            assert (stimulus_rows == -1).all()
            continue
        np.testing.assert_array_equal(dataset.gather_stimuli("features", stimulus_rows), features.astype(np.float32))
    return dataset


def test_through_the_shards(folder, tmp_path):
    dataset = through_shards(source(folder), tmp_path / "out", folder)
    assert len(dataset.runs) == 3 + 4 + 4 + 4
    assert dataset.manifest.notes["norm"] == "run", "the leak check must know that upstream scaled whole runs"


def test_the_published_folder_through_the_shards(data_folder, tmp_path):
    folder = data_folder("song")
    config = source(folder, runs=["gradCPTscene", "rest1"], subjects=["sub-001", "sub-027"])
    assert len(through_shards(config, tmp_path / "out", folder).runs) == 4


def test_the_published_folder(data_folder):
    folder = data_folder("song")
    config = source(folder)
    recordings = {(r.run, r.subject): r for r in config.recordings()}
    assert len(recordings) == 26 + 5 * 27
    assert ("sitcomep1", "sub-026") not in recordings
    assert config.targets()["features"].shape == (100,)
    films = [s.film for s in config.stimuli()]
    assert films.count("sitcomep1") == 1486
    assert films.count("gradCPTscene/sub-027") == 443
    assert not any(film.startswith("rest") for film in films)
    # sub-027 stands in another row of episode 1 than of episode 2
    for run, row in (("sitcomep1", 25), ("sitcomep2", 26)):
        np.testing.assert_array_equal(recordings[run, "sub-027"].brain, np.load(folder / f"bold_{run}.npz")["z"][row])
