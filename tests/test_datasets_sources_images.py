"""CIFTI and GIFTI runs in a tiny BIDS folder; every value and place is known."""

import nibabel as nib
import numpy as np
import pytest
from nibabel.cifti2 import BrainModelAxis, LabelAxis, SeriesAxis
from nibabel.gifti import GiftiDataArray, GiftiImage, GiftiLabel, GiftiLabelTable, GiftiMetaData

from bids_folder import AFFINE, SHAPE, source, write_events
from cineray.core.errors import DataError

RNG = np.random.default_rng(17)
BRAIN = BrainModelAxis.from_surface(np.array([0, 2, 3]), 6, name="CortexLeft") + BrainModelAxis.from_surface(
    np.array([1, 4, 5]), 6, name="CortexRight"
)
_MASK = np.zeros(SHAPE, bool)
_MASK[1, 1, 1] = _MASK[2, 2, 2] = True
WHOLE = BRAIN + BrainModelAxis.from_mask(_MASK, affine=AFFINE, name="thalamus_left")


def save_cifti(path, x, brain=WHOLE, tr_s=1.5):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Cifti2Image(x.astype(np.float32), (SeriesAxis(0, tr_s, len(x), unit="SECOND"), brain)), path)


@pytest.fixture
def grayordinates(tmp_path):
    x = RNG.normal(size=(20, len(WHOLE))).astype(np.float32)
    func = tmp_path / "bids" / "sub-01" / "func"
    save_cifti(func / "sub-01_task-film_space-fsLR_bold.dtseries.nii", x)
    write_events(func / "sub-01_task-film_events.tsv", [(3.0, 6.0, "cat")])
    # An atlas of the cortex only, its columns in another order (right first)
    brain = BRAIN[3:] + BRAIN[:3]
    values = np.array([[7, 0, 8, 5, 5, 0]], np.float32)
    table = {0: ("???", (0, 0, 0, 0)), 5: ("V1", (1, 0, 0, 1)), 7: ("MT", (1, 1, 0, 1)), 8: ("V1", (1, 0, 0, 1))}
    nib.save(nib.Cifti2Image(values, (LabelAxis(["a"], [table]), brain)), tmp_path / "a.dlabel.nii")
    return tmp_path, x


def test_grayordinates(grayordinates):
    folder, x = grayordinates
    (everything,) = source(folder, atlas=[]).recordings()
    np.testing.assert_array_equal(everything.brain, x)
    assert everything.tr_s == 1.5
    atlas = [str(folder / "a.dlabel.nii")]
    config = source(folder, atlas=atlas, rois=["V1"])  # values 5 (left) and 8 (right)
    (visual,) = config.recordings()
    np.testing.assert_array_equal(visual.brain, x[:, [0, 1, 5]])
    assert config.notes()["voxels"]["sub-01"]["columns"] == [[0, 2], [5, 6]]
    (means,) = source(folder, atlas=atlas, parcels=True).recordings()
    np.testing.assert_allclose(means.brain, np.stack([(x[:, 0] + x[:, 1]) / 2, x[:, 3], x[:, 5]], 1), rtol=1e-6)


def test_an_atlas_of_another_resolution_is_refused(grayordinates):
    folder, _ = grayordinates
    other = BrainModelAxis.from_surface(np.arange(3), 7, name="CortexLeft")
    table = {0: ("none", (0, 0, 0, 0)), 1: ("V1", (1, 0, 0, 1))}
    nib.save(nib.Cifti2Image(np.ones((1, 3)), (LabelAxis(["a"], [table]), other)), folder / "b.dlabel.nii")
    with pytest.raises(DataError, match=r"cortex_left \(6.*cortex_left \(7.*resample"):
        list(source(folder, atlas=[str(folder / "b.dlabel.nii")]).recordings())


@pytest.fixture
def surfaces(tmp_path):
    halves = {"L": RNG.normal(size=(20, 4)).astype(np.float32), "R": RNG.normal(size=(20, 3)).astype(np.float32)}
    func = tmp_path / "bids" / "sub-01" / "func"
    func.mkdir(parents=True)
    for side, x in halves.items():
        meta = GiftiMetaData(TimeStep="1500.0")
        arrays = [GiftiDataArray(row, intent="NIFTI_INTENT_TIME_SERIES", meta=meta) for row in x]
        nib.save(GiftiImage(darrays=arrays), func / f"sub-01_task-film_hemi-{side}_bold.func.gii")
        table = GiftiLabelTable()
        for value, name in ((0, "none"), (1, "V1"), (2, "MT")):
            label = GiftiLabel(key=value)
            label.label = name
            table.labels.append(label)
        values = np.array([2, 0, 1, 1] if side == "L" else [0, 1, 0], np.int32)
        image = GiftiImage(labeltable=table, darrays=[GiftiDataArray(values, intent="NIFTI_INTENT_LABEL")])
        nib.save(image, tmp_path / f"hemi-{side}.label.gii")
    write_events(func / "sub-01_task-film_events.tsv", [(3.0, 6.0, "cat")])
    return tmp_path, halves


def test_surfaces(surfaces):
    folder, halves = surfaces
    (both,) = source(folder, atlas=[]).recordings()
    np.testing.assert_array_equal(both.brain, np.concatenate([halves["L"], halves["R"]], axis=1))
    assert both.tr_s == 1.5
    assert both.stimulus_id == [None, None, *["cat"] * 4, *[None] * 14]
    atlas = [str(folder / f"hemi-{side}.label.gii") for side in "LR"]
    (visual,) = source(folder, atlas=atlas, rois=["V1"]).recordings()
    np.testing.assert_array_equal(visual.brain, np.stack([halves["L"][:, 2], halves["L"][:, 3], halves["R"][:, 1]], 1))
