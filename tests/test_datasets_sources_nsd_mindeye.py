"""NSD in small files laid out as in the releases made from it: tars, betas by trial, three brains a picture."""

import io
import tarfile

import h5py
import numpy as np
import pytest
from PIL import Image

from cineray.core.errors import ConfigError, DataError
from cineray.datasets.sources.nsd import NsdConfig


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def write_tar(path, samples):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, files in samples:
            for ending, content in files.items():
                info = tarfile.TarInfo(f"{name}.{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def behav(image, session, trial, shared):
    row = np.full((1, 17), -1.0)
    row[0, [0, 1, 2, 5, 16]] = image, 1, session, trial, shared
    return {"behav.npy": npy(row), "past_behav.npy": npy(np.zeros((15, 17)))}


@pytest.fixture
def mindeye2(tmp_path):
    """Two sessions of 12 trials, every third one shared; samples stand in the tars in no order."""
    rng = np.random.default_rng(8)
    x = rng.normal(size=(24, 6)).astype(np.float16)
    with h5py.File(tmp_path / "betas_all_subj01_fp32_renorm.hdf5", "w") as file:
        file["betas"] = x
    pixels = rng.integers(0, 256, (20, 3, 8, 8))
    with h5py.File(tmp_path / "coco_images_224_float16.hdf5", "w") as file:
        file["images"] = (pixels / 255).astype(np.float16)
    images = np.where(np.arange(24) % 3 == 0, rng.integers(0, 3, 24), rng.integers(3, 20, 24))
    trials = rng.permutation(24)
    samples = [(f"sample{i:09d}", behav(images[t], t // 12 + 1, t, t % 3 == 0), t) for i, t in enumerate(trials)]
    for session in (0, 1):
        part = [(name, files) for name, files, t in samples if t // 12 == session and t % 3]
        write_tar(tmp_path / f"wds/subj01/train/{session}.tar", part)
    write_tar(tmp_path / "wds/subj01/new_test/0.tar", [(n, f) for n, f, t in samples if t % 3 == 0])
    return tmp_path, x, pixels, images


def test_mindeye2(mindeye2):
    folder, x, pixels, images = mindeye2
    config = NsdConfig(folder=str(folder), layout="mindeye2", size_px=8)
    assert config.notes()["norm"] == "none"
    for session, r in enumerate(config.recordings()):
        rows = slice(12 * session, 12 * session + 12)
        np.testing.assert_array_equal(r.brain, x[rows])
        assert (r.run, r.stimulus_id) == (f"session{session + 1:02d}", [f"nsd{i:05d}" for i in images[rows]])
    stimuli = list(config.stimuli())
    assert {s.stimulus_id: s.film for s in stimuli} == {
        f"nsd{image:05d}": "shared" if image < 3 else "private" for image in images
    }
    for s in stimuli:
        np.testing.assert_array_equal(s.targets["frames"][0], pixels[int(s.stimulus_id[3:])].transpose(1, 2, 0))
    train = np.arange(12, 24)[np.arange(12, 24) % 3 > 0]
    scaled = next(NsdConfig(folder=str(folder), layout="mindeye2", sessions=(2,), norm="session").recordings())
    rows = x[train].astype(np.float64)
    np.testing.assert_allclose(scaled.brain, (x[12:] - rows.mean(0)) / rows.std(0, ddof=1), atol=1e-4)


def test_mindeye2_shared_must_agree_with_column_16(mindeye2):
    folder = mindeye2[0]
    write_tar(folder / "wds/subj01/train/2.tar", [("sample000000099", behav(1, 3, 99, True))])
    with pytest.raises(DataError, match=r"1 samples of subj01 lie in the wrong tar .*first: trial 99"):
        list(NsdConfig(folder=str(folder), layout="mindeye2").recordings())


@pytest.fixture
def mindeye1(tmp_path):
    """Pictures 0 to 5 in training, 6 in validation, 7 and 8 in test; picture 8 was seen twice, its third is a copy."""
    rng = np.random.default_rng(2)
    brains, pixels = rng.normal(size=(9, 3, 5)), rng.integers(0, 255, (9, 10, 10, 3)).astype(np.uint8)
    brains[8, 2] = brains[8, 0]

    def sample(image):
        files = {"png": png(pixels[image]), "nsdgeneral.npy": npy(brains[image]), "coco73k.npy": npy(np.array([image]))}
        return f"sample{image:09d}", files | {"num_uniques.npy": npy(np.array([3]))}

    for path, images in (
        ("train/train_subj01_0.tar", (0, 1, 2)),
        ("train/train_subj01_10.tar", (5,)),
        ("train/train_subj01_2.tar", (3, 4)),
        ("val/val_subj01_0.tar", (6,)),
        ("test/test_subj01_0.tar", (7, 8)),
    ):
        write_tar(tmp_path / path, [sample(image) for image in images])
    return tmp_path, brains, pixels


def test_mindeye1(mindeye1):
    folder, brains, pixels = mindeye1
    captions = np.array([[f"picture {i}", "another"] for i in range(73_000)])
    np.save(folder / "captions.npy", captions)
    config = NsdConfig(folder=str(folder), layout="mindeye1", size_px=10, captions_file=str(folder / "captions.npy"))
    recordings = {r.run: r for r in config.recordings()}
    order = ["train_subj01_0", "train_subj01_2", "train_subj01_10", "val_subj01_0", "test_subj01_0"]
    assert list(recordings) == [f"{stem}_repeat{k}" for stem in order for k in range(3)]
    seen = 0
    for r in recordings.values():
        assert int(r.run[-1]) == r.repeat
        for row, name in zip(r.brain, r.stimulus_id, strict=True):
            np.testing.assert_array_equal(row, brains[int(name[3:]), r.repeat].astype(np.float32))
        seen += len(r.brain)
    assert seen == 9 * 3 - 1
    assert recordings["test_subj01_0_repeat2"].stimulus_id == ["nsd00007"]
    stimuli = list(config.stimuli())
    assert [(int(s.stimulus_id[3:]), s.film) for s in stimuli] == [
        (i, "shared" if i > 6 else "private") for i in range(9)
    ]
    for i, s in enumerate(stimuli):
        np.testing.assert_array_equal(s.targets["frames"][0], pixels[i])
        assert s.caption == f"picture {i}"
    rows = brains[:7].reshape(-1, 5)
    scaled = next(NsdConfig(folder=str(folder), layout="mindeye1", norm="train").recordings())
    np.testing.assert_allclose(scaled.brain, (brains[:3, 0] - rows.mean(0)) / rows.std(0, ddof=1), atol=1e-5)
    with pytest.raises(ConfigError, match="mindeye1 does not say which session"):
        NsdConfig.parse({"folder": str(folder), "layout": "mindeye1", "norm": "session"})


def test_a_picture_in_test_and_training_is_refused(mindeye1):
    folder, *_ = mindeye1
    twice = {"nsdgeneral.npy": npy(np.zeros((3, 5))), "coco73k.npy": npy(np.array([7])), "jpg": b""}
    write_tar(folder / "train/train_subj01_3.tar", [("sample1", twice)])
    with pytest.raises(DataError, match="shows picture 7 in test and in training"):
        list(NsdConfig(folder=str(folder), layout="mindeye1", size_px=None).stimuli())


def test_objects_in_a_tar_are_not_unpickled(mindeye1):
    folder, *_ = mindeye1
    evil = {"nsdgeneral.npy": npy(np.array([{}], object)), "coco73k.npy": npy(np.array([7])), "jpg": b""}
    write_tar(folder / "train/train_subj01_3.tar", [("sample1", evil)])
    with pytest.raises(DataError, match=r"nsdgeneral\.npy of train_subj01_3\.tar, sample1 cannot be read"):
        list(NsdConfig(folder=str(folder), layout="mindeye1").recordings())
