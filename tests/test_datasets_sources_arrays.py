"""Own data in every array format, with values and pairing known, and every mistake a lab makes."""

import csv

import h5py
import numpy as np
import pytest
import scipy.io

from cineray.core.errors import DataError
from cineray.datasets.sources.arrays import ArraysConfig
from cineray.datasets.sources.events import Event, on_screen

RNG = np.random.default_rng(11)


def table(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(
            file, list(dict.fromkeys(k for r in rows for k in r)), delimiter="\t" if path.suffix == ".tsv" else ","
        )
        writer.writeheader()
        writer.writerows(rows)


def save(path, key, x):
    if path.suffix == ".npy":
        np.save(path, x)
    elif path.suffix == ".npz":
        np.savez(path, **{key: x, "other": np.zeros(2)})
    elif path.suffix == ".mat":
        scipy.io.savemat(path, {key: x})
    else:
        with h5py.File(path, "w") as file:
            file[key] = x


RUNS = [
    ("anna", "one", "a1.npy", "", 30, 8),
    ("anna", "two", "a2.npz", "bold", 24, 8),
    ("ben", "one", "b1.mat", "bold", 30, 5),
    ("ben", "two", "b2.h5", "runs/bold", 24, 5),
]


@pytest.fixture
def study(tmp_path):
    """Two people; run one: a film of ten 3-s clips from 4 s on; run two: four pictures with pauses. TR 2 s."""
    arrays = {}
    for subject, run, file, key, scans, voxels in RUNS:
        arrays[subject, run] = RNG.normal(size=(scans, voxels)).astype(np.float32)
        save(tmp_path / file, key, arrays[subject, run])
    table(
        tmp_path / "recordings.csv",
        [
            {"subject": s, "run": r, "file": f, "key": k, "events": "film.csv" if r == "one" else "pictures.tsv"}
            for s, r, f, k, _, _ in RUNS
        ],
    )
    clips = [{"stimulus_id": f"clip{i}", "film": "walk", "onset_s": 3 * i, "length_s": 3} for i in range(10)]
    clips += [{"stimulus_id": f"pic{i}", "length_s": 4, "caption": "a, picture"} for i in range(4)]
    table(tmp_path / "stimuli.csv", clips)
    table(tmp_path / "film.csv", [{"onset_s": 4, "film": "walk"}])
    log = [{"onset_s": 10 * i + 1, "stimulus_id": f"pic{3 - i}", "key_pressed": "n/a"} for i in range(4)]
    table(tmp_path / "pictures.tsv", log)
    np.save(tmp_path / "features.npy", RNG.normal(size=(14, 6)))
    return tmp_path, arrays


def source(folder, **settings):
    return ArraysConfig.parse({"folder": str(folder), "tr_s": 2.0, **settings})


def test_values_and_pairing(study):
    folder, arrays = study
    config = source(folder)
    stimuli = {s.stimulus_id: s for s in config.stimuli()}
    assert len(stimuli) == 14
    assert (stimuli["clip4"].film, stimuli["clip4"].onset_s, stimuli["pic1"].film) == ("walk", 12, "pic1")
    assert stimuli["pic1"].caption == "a, picture"
    features = np.load(folder / "features.npy").astype(np.float32)
    np.testing.assert_array_equal(np.stack([s.targets["features"] for s in stimuli.values()]), features)
    assert config.targets()["features"].dtype == "float32"
    recordings = list(config.recordings())
    assert len(recordings) == 4
    for r in recordings:
        np.testing.assert_array_equal(r.brain, arrays[r.subject, r.run])
        for scan, name in enumerate(r.stimulus_id):
            t = 2.0 * scan
            if r.run == "one":
                expected = f"clip{int((t - 4) // 3)}" if 4 <= t < 34 else None
                offset = (t - 4) % 3
            else:
                expected = f"pic{3 - int((t - 1) // 10)}" if t >= 1 and (t - 1) % 10 < 4 and t < 41 else None
                offset = (t - 1) % 10
            assert name == expected
            assert np.isnan(r.offset_s[scan]) if name is None else r.offset_s[scan] == offset


def test_axes_turned_round(study):
    folder, arrays = study
    for subject, run, file, key, _, _ in RUNS:
        save(folder / file, key, arrays[subject, run].T)
    for r in source(folder, axes="voxels scans").recordings():
        np.testing.assert_array_equal(r.brain, arrays[r.subject, r.run])
    with pytest.raises(DataError, match=r"a1|a2.*24 voxels \(scans 8\).*source.axes='voxels scans'"):
        list(source(folder).recordings())


def test_a_single_turned_run_is_refused(study):
    """One run alone can be told only by its events: many more 'scans' than they need."""
    folder, _ = study
    np.save(folder / "a1.npy", np.zeros((500, 30)))
    table(folder / "recordings.csv", [{"subject": "anna", "run": "one", "file": "a1.npy", "events": "film.csv"}])
    with pytest.raises(DataError, match=r"\(500, 30\) but its events end at scan 16: it looks like \(voxels, scans\)"):
        list(source(folder).recordings())
    assert next(source(folder, axes="voxels scans").recordings()).brain.shape == (30, 500)
    assert next(source(folder, axes="scans voxels").recordings()).brain.shape == (500, 30)


def test_betas(study):
    folder, arrays = study
    table(folder / "trials.csv", [{"stimulus_id": f"pic{i % 4}" if i != 5 else ""} for i in range(24)])
    rows = [
        {"subject": s, "run": r, "file": f, "key": k, "events": "trials.csv"} for s, r, f, k, n, _ in RUNS if n == 24
    ]
    table(folder / "recordings.csv", rows)
    found = list(ArraysConfig(folder=str(folder), kind="betas").recordings())
    assert found[1].stimulus_id == [f"pic{i % 4}" if i != 5 else None for i in range(24)]
    np.testing.assert_array_equal(found[1].brain, arrays["ben", "two"])
    table(folder / "trials.csv", [{"stimulus_id": "pic1"}] * 23)
    with pytest.raises(DataError, match=r"lists 23 trials, a2\.npz has 24"):
        list(ArraysConfig(folder=str(folder), kind="betas").recordings())


def test_rest_repeats_tr_column_and_other_targets(study):
    folder, _ = study
    row = {"subject": "anna", "run": "one", "file": "a1.npy", "tr_s": "2.0", "events": ""}
    table(folder / "recordings.csv", [row, row | {"run": "again", "repeat": 1, "events": "film.csv"}])
    save(folder / "t.npz", "frames", np.arange(14 * 12, dtype=np.uint8).reshape(14, 2, 2, 3))
    config = source(folder, tr_s=None, target_files={"frames": "t.npz#frames"})
    rest, film = config.recordings()
    assert rest.stimulus_id == [None] * 30
    assert (film.repeat, film.tr_s) == (1, 2.0)
    assert config.targets()["frames"].shape == (2, 2, 3)
    assert list(config.stimuli())[2].targets["frames"].ravel().tolist() == list(range(24, 36))
    assert [r.subject for r in source(folder, subjects=["anna"]).recordings()] == ["anna", "anna"]


def rewrite(folder, name, old, new):
    path = folder / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("breaking", "message"),
    [
        (lambda f: rewrite(f, "recordings.csv", "subject,", "person,"), "recordings.csv has no column 'subject'"),
        (
            lambda f: rewrite(f, "pictures.tsv", "onset_s", "onset"),
            "pictures.tsv has no column 'onset_s'; it has onset",
        ),
        (lambda f: rewrite(f, "pictures.tsv", "11", "soon"), "line 3, column 'onset_s' holds soon, expected a number"),
        (
            lambda f: rewrite(f, "pictures.tsv", "pic3", "pic9"),
            "shows 'pic9', which the table of stimuli does not list",
        ),
        (lambda f: rewrite(f, "film.csv", "walk", "wlak"), "shows film 'wlak'"),
        (
            lambda f: rewrite(f, "film.csv", "4", "40"),
            "'clip7' starts at 61 s.* but 30 scans of 2 s end at 60 s|'clip9'",
        ),
        (lambda f: rewrite(f, "pictures.tsv", "11", "3"), "starts at 3 s while 'pic3' lasts until 5 s"),
        (lambda f: rewrite(f, "stimuli.csv", "clip3", "clip2"), "lists 'clip2' more than once"),
        (lambda f: rewrite(f, "stimuli.csv", "clip3,walk,9,3", "clip3,walk,9,0"), "line 5, column 'length_s' holds 0"),
        (lambda f: rewrite(f, "recordings.csv", "two,b2", "one,b2"), "lists ben, run 'one' twice"),
        (lambda f: rewrite(f, "recordings.csv", "b1.mat", "b3.mat"), "no file .*b3.mat"),
        (lambda f: rewrite(f, "recordings.csv", "a2.npz,bold", "a2.npz,bald"), "a2.npz has no array 'bald'"),
        (lambda f: np.save(f / "a1.npy", np.zeros((30, 7))), "a2.npz has 8 voxels .* has 7"),
        (lambda f: np.save(f / "a1.npy", np.zeros((30, 8, 1))), r"a1.npy has shape \(30, 8, 1\), expected two axes"),
        (lambda f: np.save(f / "a1.npy", np.full((30, 8), None)), "a1.npy holds object, expected real numbers"),
        (lambda f: np.save(f / "features.npy", np.zeros((13, 6))), r"shape \(13, 6\), expected \(14, "),
        (lambda f: np.save(f / "features.npy", np.full((14, 6), np.inf)), "84 values that are not finite"),
        (lambda f: (f / "stimuli.csv").unlink(), "no table .*stimuli.csv"),
        (lambda f: (f / "film.csv").write_bytes(b"\xff\xfe\x00"), "film.csv is not a table of text"),
    ],
)
def test_one_sentence_for_each_mistake(study, breaking, message):
    folder, _ = study
    breaking(folder)
    with pytest.raises(DataError, match=message) as caught:
        [*source(folder).stimuli(), *source(folder).recordings()]
    assert "\n" not in str(caught.value)


def test_tr_must_be_known_and_single(study):
    folder, _ = study
    with pytest.raises(DataError, match=r"set source\.tr_s"):
        next(source(folder, tr_s=None).recordings())
    rows = [
        {"subject": "anna", "run": r, "file": f"a{i}.npy", "events": "", "tr_s": i} for i, r in ((1, "x"), (2, "y"))
    ]
    np.save(folder / "a2.npy", np.zeros((9, 8)))
    table(folder / "recordings.csv", rows)
    with pytest.raises(DataError, match=r"different TRs \(1, 2 s\)"):
        next(source(folder, tr_s=None).recordings())
    with pytest.raises(DataError, match="no subject 'zoe'"):
        next(source(folder, subjects=["zoe"]).recordings())


def test_a_picture_between_two_scans_is_not_lost_silently():
    with pytest.raises(DataError, match="no scan starts while 'x' is shown"):
        on_screen([Event(2.5, 1.0, "x")], np.arange(10) * 2.0, 2.0, "log")
    ids, _ = on_screen([Event(-3.0, 1.0, "early"), Event(2.5, 2.0, "x")], np.arange(10) * 2.0, 2.0, "log")
    assert ids == [None, None, "x"] + [None] * 7
