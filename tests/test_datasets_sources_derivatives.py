"""Tiny BIDS folders of NIfTI volumes; every value and place is known."""

import json

import nibabel as nib
import numpy as np
import pytest

from bids_folder import AFFINE, SCANS, SHAPE, TR_S, save_nifti, source, write_events
from cineray.core.errors import DataError
from cineray.datasets.dataset import Dataset
from cineray.datasets.ingest import ingest

RNG = np.random.default_rng(17)
LABELS = RNG.integers(0, 4, SHAPE)
LABELS[1, 2, 3] = 3
NAMES = {1: "V1", 2: "V2", 3: "MT"}


@pytest.fixture
def volumes(tmp_path):
    """Two subjects (one with sessions), a film run twice, a rest run; atlas of three labels."""
    data = {}
    for subject, session in (("sub-01", ""), ("sub-02", "ses-a")):
        func = tmp_path / "bids" / subject / session / "func"
        stem = f"{subject}_{session}_" if session else f"{subject}_"
        for task in ("task-film_run-1", "task-film_run-2", "task-rest"):
            x = RNG.normal(100, 5, (*SHAPE, SCANS)).astype(np.float32)
            name = f"{session}_{task}" if session else task
            data[subject, name] = x
            save_nifti(func / f"{stem}{task}_bold.nii.gz", x)
            if task != "task-rest":
                log = [(4.0, 6.0, "cat"), (10.0, 6.02, "dog"), (16, 4, "n/a"), (20.0, 6.0, "cat")]
                write_events(func / f"{stem}{task}_events.tsv", log)
    nib.save(nib.Nifti1Image(LABELS.astype(np.int16), AFFINE), tmp_path / "atlas.nii.gz")
    (tmp_path / "names.tsv").write_text("index\tname\n" + "".join(f"{k}\t{v}\n" for k, v in NAMES.items()))
    return tmp_path, data


def test_volumes(volumes):
    folder, data = volumes
    config = source(folder)
    recordings = list(config.recordings())
    assert {(r.subject, r.run): r.repeat for r in recordings} == {key: int(key[1].endswith("run-2")) for key in data}, (
        "the second run of the same film is its repeat; rest has none"
    )
    inside = [(x, y, z) for x in range(4) for y in range(3) for z in range(5) if LABELS[x, y, z] > 0]
    for r in recordings:
        expected = np.stack([data[r.subject, r.run][place] for place in inside], axis=1)
        np.testing.assert_array_equal(r.brain, expected)
        assert r.tr_s == TR_S
        shown = [None] * 2 + ["cat"] * 3 + ["dog"] * 3 + [None] * 2 + ["cat"] * 3 + [None] * 7
        assert r.stimulus_id == ([None] * SCANS if "rest" in r.run else shown)
        assert "rest" in r.run or r.offset_s[3] == 2.0
    assert {s.stimulus_id: s.length_s for s in config.stimuli()} == {"cat": 6.0, "dog": 6.0}, (
        "a showing ends where the pause begins"
    )
    place = config.notes()["voxels"]["sub-02"]
    flat = [column for first, end in place["columns"] for column in range(first, end)]
    np.testing.assert_array_equal(np.stack(np.unravel_index(flat, SHAPE), 1), inside)
    assert tuple(place["frame"]["volume"][:3]) == SHAPE
    json.dumps(config.notes())


def test_through_the_shards_with_the_lag_that_suits(volumes):
    """By default: high-pass, z-score per run, paired with what was shown 4 s (two scans) earlier."""
    folder, data = volumes
    ingest(source(folder, subjects=["sub-01"]), folder / "out")
    dataset = Dataset.open(folder / "out")
    run = next(info for info in dataset.runs if info.run.endswith("run-1"))
    rows = np.arange(run.first_row, run.first_row + run.num_rows)
    table = dataset.samples(["stimulus_id"])["stimulus_id"].to_pylist()
    shown = [table[row] for row in rows]
    assert shown == [None] * 4 + ["cat"] * 3 + ["dog"] * 3 + [None] * 2 + ["cat"] * 3 + [None] * 5
    x = data["sub-01", "task-film_run-1"][LABELS > 0].T.astype(float)
    expected = (x - x.mean(0)) / x.std(0)  # 40 s are too short for a 128-s drift
    np.testing.assert_allclose(dataset.gather_samples(rows).astype(float), expected, atol=2e-3)


@pytest.mark.parametrize("rois", [["MT", "V1"], [3, 1], ["MT", 1]])
def test_rois_and_parcels(volumes, rois):
    folder, data = volumes
    names = {"atlas_names": str(folder / "names.tsv"), "subjects": ["sub-01"]}
    voxels, *_ = source(folder, rois=rois, **names).recordings()
    x = data["sub-01", voxels.run]
    np.testing.assert_array_equal(voxels.brain, x[(LABELS == 1) | (LABELS == 3)].T)
    parcels, *_ = source(folder, rois=rois, parcels=True, **names).recordings()
    expected = [
        [np.mean([x[i][t] for i in zip(*np.where(v == LABELS), strict=True)]) for v in (1, 3)] for t in range(20)
    ]
    np.testing.assert_allclose(parcels.brain, expected, rtol=1e-6)


def test_film_table_with_targets(volumes):
    folder, _ = volumes
    rows = "".join(f"c{i},walk,{2 * i},2\n" for i in range(6))
    (folder / "stimuli.csv").write_text("stimulus_id,film,onset_s,length_s\n" + rows)
    np.save(folder / "features.npy", np.arange(12.0).reshape(6, 2))
    for path in (folder / "bids").glob("**/*_events.tsv"):
        write_events(path, [(4.0, 12.0, "walk")])
    settings = {"stimuli_file": str(folder / "stimuli.csv"), "target_files": {"features": "features.npy"}}
    config = source(folder, **settings)
    film, *_ = config.recordings()
    assert film.stimulus_id == [None, None, *(f"c{i}" for i in range(6)), *[None] * 12]
    assert [s.targets["features"].tolist() for s in config.stimuli()][4] == [8.0, 9.0]
    with pytest.raises(DataError, match=r"needs source\.stimuli_file"):
        source(folder, target_files={"features": "x.npy"}).targets()


def test_events_from_the_raw_folder_and_choice_of_space(volumes):
    """As fMRIPrep leaves it: two spaces, desc, sidecar with StartTime, events elsewhere; TR in milliseconds."""
    folder, _ = volumes
    x = RNG.normal(size=(*SHAPE, SCANS)).astype(np.float32)
    func = folder / "prep" / "sub-01" / "func"
    for space in ("T1w", "MNI"):
        stem = f"sub-01_task-film_run-1_space-{space}_desc-preproc_bold"
        save_nifti(func / f"{stem}.nii.gz", x if space == "MNI" else x * 0, 2000.0, "msec")
        (func / f"{stem}.json").write_text(json.dumps({"RepetitionTime": 2.0, "StartTime": 0.95}))
    settings = {"folder": str(folder / "prep"), "events_folder": str(folder / "bids")}
    (recording,) = source(folder, match={"space": "MNI"}, **settings).recordings()
    np.testing.assert_array_equal(recording.brain, x[LABELS > 0].T)
    assert recording.onset_s[3] == 6.95
    assert recording.stimulus_id[2] == "cat"
    assert recording.offset_s[2] == pytest.approx(0.95)
    with pytest.raises(DataError, match=r"has 2 files .*source\.match"):
        list(source(folder, **settings).recordings())


FILM = "sub-01/func/sub-01_task-film_run-2"


def events_of(folder):
    return folder / "bids" / f"{FILM}_events.tsv"


def bold_of(folder):
    return folder / "bids" / f"{FILM}_bold.nii.gz"


X = np.ones((*SHAPE, SCANS))


@pytest.mark.parametrize(
    ("breaking", "settings", "message"),
    [
        (
            lambda f: write_events(events_of(f), [], "onset\tlength\ttrial_type\n"),
            {},
            "has no column 'duration'; it has",
        ),
        (lambda f: write_events(events_of(f), [("x", 1, "cat")]), {}, "line 2, column 'onset' holds x"),
        (lambda f: write_events(events_of(f), [(0, 9, "a"), (4, 4, "b")]), {}, "only one stimulus can be on"),
        (lambda f: write_events(events_of(f), [(70, 4, "b")]), {}, "20 scans of 2 s end at 40 s"),
        (lambda f: write_events(events_of(f), [(4.5, 1, "b")]), {}, "no scan starts while 'b' is shown"),
        (lambda f: events_of(f).unlink(), {}, "run-2 has 0 events files in .*set source.events_folder"),
        (lambda f: save_nifti(bold_of(f), X, 1.0), {}, "TR of 1 s, other runs 2 s"),
        (lambda f: save_nifti(bold_of(f), X, 0.0), {}, "in neither its header nor a sidecar"),
        (lambda f: save_nifti(bold_of(f), X, 2000.0), {}, "TR of 2000 s, expected seconds"),
        (
            lambda f: (f / "bids/task-film_bold.json").write_text('{"RepetitionTime": 1}'),
            {},
            "2 s in its header and 1 s",
        ),
        (lambda f: save_nifti(bold_of(f), X[:3]), {}, r"on 45 places of volume \(3, 3, 5\), another run of sub-01"),
        (lambda f: save_nifti(bold_of(f), X, affine=np.eye(4)), {}, "resample them alike"),
        (lambda f: save_nifti(bold_of(f), X[..., 0]), {}, r"shape \(4, 3, 5\), expected four axes"),
        (lambda f: bold_of(f).write_bytes(bold_of(f).read_bytes()[:3000]), {}, "bold.nii.gz cannot be read"),
        (lambda f: bold_of(f).write_bytes(b"no image"), {}, "bold.nii.gz cannot be read"),
        (lambda f: None, {"atlas": []}, "set source.atlas"),
        (lambda f: None, {"atlas": ["gone.nii"]}, "no atlas gone.nii"),
        (lambda f: None, {"rois": ["V9"]}, "no label called 'V9'; it has no names"),
        (lambda f: None, {"rois": [9]}, "no voxel with label 9"),
        (lambda f: None, {"subjects": ["sub-09"]}, "correct folder or match"),
        (lambda f: None, {"subjects": ["sub-01", "sub-09"]}, "no run of 'sub-09' in .* sub-01"),
        (lambda f: None, {"match": {"space": "MNI"}}, "with space-MNI"),
        (
            lambda f: None,
            {"stimulus_column": "stim_file"},
            "has no column 'stim_file'; it has onset, duration, trial_type",
        ),
    ],
)
def test_one_sentence_for_each_mistake(volumes, breaking, settings, message):
    folder, _ = volumes
    breaking(folder)
    config = source(folder, **settings)
    with pytest.raises(DataError, match=message) as caught:
        [*config.stimuli(), *config.recordings()]
    assert "\n" not in str(caught.value)


def test_an_own_mask_for_each_subject(volumes):
    folder, data = volumes
    for number in (1, 2):
        image = nib.Nifti1Image((number == LABELS).astype(np.uint8), AFFINE)
        nib.save(image, folder / f"mask_sub-0{number}.nii.gz")
    recordings = list(source(folder, atlas=[str(folder / "mask_{subject}.nii.gz")]).recordings())
    for r in recordings:
        np.testing.assert_array_equal(r.brain, data[r.subject, r.run][int(r.subject[-1]) == LABELS].T)
