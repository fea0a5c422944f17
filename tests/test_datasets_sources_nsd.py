"""NSD in small files laid out as in its bucket: indices that count from 1, integers, masks, and whose statistics."""

import h5py
import nibabel as nib
import numpy as np
import pytest
import scipy.io

from cineray.core.errors import DataError
from cineray.datasets.dataset import Dataset
from cineray.datasets.ingest import ingest
from cineray.datasets.signal import SignalConfig
from cineray.datasets.sources.nsd import NsdConfig
from cineray.datasets.split import SplitConfig, make_split

SHAPE = (4, 3, 5)
TRIALS = 750
NUM_IMAGES = 60
SHARED_1 = np.array([7, 3, 50])  # numbers from 1, as the design has them
PRODUCT = "betas_fithrf_GLMdenoise_RR"


def design(rng):
    """Eight people; orders 1 to 3 are the shared pictures, 4 to 20 private ones."""
    others = np.setdiff1d(np.arange(1, NUM_IMAGES + 1), SHARED_1)
    subjectim = np.stack([np.concatenate([rng.permutation(SHARED_1), rng.permutation(others)[:17]]) for _ in range(8)])
    subjectim[:, :3] = SHARED_1
    return subjectim, rng.integers(1, 21, (1, 4 * TRIALS))


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """Two people; subj01 has NIfTI sessions 1 and 2, subj02 session 1 in HDF5. Everything that was written."""
    folder, rng = tmp_path_factory.mktemp("nsd"), np.random.default_rng(3)
    subjectim, order = design(rng)
    home = folder / "nsddata/experiments/nsd"
    home.mkdir(parents=True)
    shared = {"sharedix": np.sort(SHARED_1)[None]}
    scipy.io.savemat(home / "nsd_expdesign.mat", {"subjectim": subjectim, "masterordering": order} | shared)
    masks, betas = {}, {}
    for subject, sessions, kind in (("subj01", (1, 2), "nii.gz"), ("subj02", (1,), "hdf5")):
        roi = folder / f"nsddata/ppdata/{subject}/func1pt8mm/roi"
        roi.mkdir(parents=True)
        masks[subject] = rng.choice([-1, 0, 1, 2], SHAPE)
        nib.save(nib.Nifti1Image(masks[subject].astype(np.int16), np.eye(4)), roi / "nsdgeneral.nii.gz")
        place = folder / f"nsddata_betas/ppdata/{subject}/func1pt8mm/{PRODUCT}"
        place.mkdir(parents=True)
        for number in sessions:
            x = rng.integers(-3000, 3000, (*SHAPE, TRIALS)).astype(np.int16)
            betas[subject, number] = x
            path = place / f"betas_session{number:02d}.{kind}"
            if kind == "nii.gz":
                nib.save(nib.Nifti1Image(x, np.eye(4)), path)
            else:
                with h5py.File(path, "w") as file:
                    file["betas"] = x.T
    pictures = rng.integers(0, 255, (NUM_IMAGES, 12, 12, 3)).astype(np.uint8)
    (folder / "nsddata_stimuli/stimuli/nsd").mkdir(parents=True)
    with h5py.File(folder / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5", "w") as file:
        file["imgBrick"] = pictures
    return folder, subjectim, order.ravel(), masks, betas, pictures


def shown(bucket, subject, number):
    """(pictures from 0, shared or not) of a session, trial by trial, straight from the definition."""
    _, subjectim, order, *_ = bucket
    found = []
    for trial in range(TRIALS):
        position = order[(number - 1) * TRIALS + trial]
        found.append((subjectim[int(subject[-1]) - 1][position - 1] - 1, position <= 3))
    images, is_shared = zip(*found, strict=True)
    return np.array(images), np.array(is_shared)


def masked(bucket, subject, number):
    """(trials, voxels) percent, voxel by voxel in C order."""
    _, _, _, masks, betas, _ = bucket
    columns = [
        betas[subject, number][x, y, z] / 300
        for x in range(SHAPE[0])
        for y in range(SHAPE[1])
        for z in range(SHAPE[2])
        if masks[subject][x, y, z] > 0
    ]
    return np.stack(columns, axis=1)


def test_trials_of_the_bucket(bucket):
    """Both kinds of session file, the mask, the percent and the pictures, against loops over the definition."""
    config = NsdConfig(folder=str(bucket[0]), norm="none", size_px=12)
    recordings = {(r.subject, r.run): r for r in config.recordings()}
    assert list(recordings) == [("subj01", "session01"), ("subj01", "session02"), ("subj02", "session01")]
    for (subject, run), r in recordings.items():
        images, _ = shown(bucket, subject, int(run[-2:]))
        np.testing.assert_allclose(r.brain, masked(bucket, subject, int(run[-2:])), rtol=1e-6)
        assert r.stimulus_id == [f"nsd{image:05d}" for image in images]
        assert (r.repeat, r.tr_s, len(r.onset_s)) == (0, 4.0, TRIALS)


def test_pictures_of_the_bucket(bucket):
    stimuli = list(NsdConfig(folder=str(bucket[0]), size_px=12).stimuli())
    every = {int(i): bool(s) for key in bucket[4] for i, s in zip(*shown(bucket, *key), strict=True)}
    assert {int(s.stimulus_id[3:]): s.film == "shared" for s in stimuli} == every
    assert sorted(int(s.stimulus_id[3:]) + 1 for s in stimuli if s.film == "shared") == sorted(SHARED_1)
    for s in stimuli:
        np.testing.assert_array_equal(s.targets["frames"], bucket[5][int(s.stimulus_id[3:])][None])
        assert s.group == s.stimulus_id
    onsets = [s.onset_s for s in stimuli if s.film == "private"]
    assert onsets == [3.0 * place for place in range(len(onsets))]
    small = next(NsdConfig(folder=str(bucket[0]), size_px=8).stimuli())
    assert small.targets["frames"].shape == (1, 8, 8, 3)
    assert not next(NsdConfig(folder=str(bucket[0]), size_px=None).stimuli()).targets


def test_the_notes_say_where_each_voxel_lies(bucket):
    for subject, place in NsdConfig(folder=str(bucket[0])).notes()["voxels"].items():
        flat = np.concatenate([np.arange(*pair) for pair in place["flat_index_ranges"]])
        found = np.stack(np.unravel_index(flat, place["shape_xyz"]), 1)
        np.testing.assert_array_equal(found, np.argwhere(bucket[3][subject] > 0))


@pytest.mark.parametrize("norm", ["session", "train"])
def test_scaled_by_training_trials(bucket, norm):
    config = NsdConfig(folder=str(bucket[0]), norm=norm, subjects=("subj01",))
    raw = {number: masked(bucket, "subj01", number) for number in (1, 2)}
    private = {number: ~shown(bucket, "subj01", number)[1] for number in (1, 2)}
    pooled = np.concatenate([raw[n][private[n]] for n in (1, 2)])
    for number, r in zip((1, 2), config.recordings(), strict=True):
        rows = raw[number][private[number]] if norm == "session" else pooled
        expected = (raw[number] - rows.mean(0)) / rows.std(0, ddof=1)
        np.testing.assert_allclose(r.brain, expected, atol=1e-4)
    # Only the sessions taken may speak.
    only = next(NsdConfig(folder=str(bucket[0]), norm="train", subjects=("subj01",), sessions=(2,)).recordings())
    rows = raw[2][private[2]]
    np.testing.assert_allclose(only.brain, (raw[2] - rows.mean(0)) / rows.std(0, ddof=1), atol=1e-4)


@pytest.mark.parametrize("norm", ["session", "train"])
def test_test_trials_have_no_say(bucket, norm, monkeypatch):
    """With the betas of shared pictures replaced by noise every training row stays as it was."""
    from cineray.datasets.sources import nsd_layouts

    config = NsdConfig(folder=str(bucket[0]), norm=norm, subjects=("subj01",))
    before = [r.brain for r in config.recordings()]
    read, order, calls = nsd_layouts._betas, bucket[2], []

    def noisy(path, mask):
        brain, number = read(path, mask), int(path.name[13:15])
        test = order[(number - 1) * TRIALS : number * TRIALS] <= 3
        brain[test] = 1e3 * np.random.default_rng(0).normal(size=(test.sum(), brain.shape[1]))
        calls.append(number)
        return brain

    monkeypatch.setattr(nsd_layouts, "_betas", noisy)
    for number, old, r in zip((1, 2), before, config.recordings(), strict=True):
        private = ~shown(bucket, "subj01", number)[1]
        np.testing.assert_array_equal(r.brain[private], old[private])
        assert np.abs(r.brain[~private] - old[~private]).max() > 10
    assert set(calls) == {1, 2}


def test_whole_way_to_a_split(bucket, tmp_path):
    manifest = ingest(NsdConfig(folder=str(bucket[0]), size_px=8), tmp_path / "out")
    assert manifest.signal["zscore"] == "none"
    assert manifest.notes["norm"] == "session"
    dataset = Dataset.open(tmp_path / "out")
    private = {"films": ["private"]}
    config = SplitConfig.parse(
        {
            "train": private | {"blocks": {"num": 4, "take": [0, 1, 2]}},
            "val": private | {"blocks": {"num": 4, "take": [3]}},
            "test": {"films": ["shared"]},
            "gap_s": 0,
        }
    )
    split = make_split(dataset, config)
    every = [shown(bucket, *key)[1] for key in bucket[4]]
    assert len(split.test) == sum(s.sum() for s in every)
    assert len(split.train) + len(split.val) == sum((~s).sum() for s in every)
    names = dataset.samples(["stimulus_id"])["stimulus_id"].to_pylist()
    images = {n: {names[i] for i in e.rows(np.arange(len(e)))} for n, e in (("t", split.train), ("v", split.val))}
    assert not images["t"] & images["v"]
    assert SignalConfig.suiting("nsd").lag_s == 0


# --- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"subjects": ["subj03"]}, "has no betas of subj03; it has subj01, subj02"),
        ({"sessions": [3]}, "no betas of session 3; it has 1, 2"),
        ({"product": "betas_assumehrf"}, "has no file betas_sessionYY"),
        ({"roi": "visual"}, r"there is no file .*visual\.nii\.gz"),
        ({"layout": "mindeye1"}, "no subject of layout mindeye1"),
    ],
)
def test_what_is_not_there(bucket, settings, message):
    with pytest.raises(DataError, match=message):
        list(NsdConfig.parse({"folder": str(bucket[0])} | settings).recordings())


def test_a_design_that_counts_from_0_or_other_shared_pictures(bucket, tmp_path):
    folder, subjectim, order, *_ = bucket
    (tmp_path / "nsddata/experiments/nsd").mkdir(parents=True)
    for place in ("nsddata_betas", "nsddata/ppdata"):
        (tmp_path / place).symlink_to(folder / place)
    path = tmp_path / "nsddata/experiments/nsd/nsd_expdesign.mat"
    good = {"subjectim": subjectim, "masterordering": order, "sharedix": SHARED_1}
    for bad, message in (
        ({"subjectim": subjectim - 1, "masterordering": order - 1}, "count from 1"),
        ({"sharedix": SHARED_1 + 1}, "not those of sharedix"),
    ):
        scipy.io.savemat(path, good | bad)
        with pytest.raises(DataError, match=message):
            list(NsdConfig(folder=str(tmp_path)).recordings())


def test_a_voxel_that_never_varies_is_named_at_ingest(bucket, tmp_path, monkeypatch):
    from cineray.datasets.sources import nsd_layouts

    read = nsd_layouts._betas

    def flat(path, mask):
        brain = read(path, mask)
        brain[:, 1] = 0
        return brain

    monkeypatch.setattr(nsd_layouts, "_betas", flat)
    config = NsdConfig(folder=str(bucket[0]), size_px=None, subjects=("subj02",))
    with pytest.raises(DataError, match=r"1 of \d+ voxels that are constant or not finite \(first: 1\).*drop"):
        ingest(config, tmp_path / "out")
    manifest = ingest(config, tmp_path / "out", signal=SignalConfig(zscore="none", bad_voxels="drop"))
    assert manifest.subjects["subj02"] == (bucket[3]["subj02"] > 0).sum() - 1
