"""cc2017's released tensors: rows, repeats, brightness and captions by their numbers; hostile files run nothing."""

import os

import numpy as np
import pytest
import torch

from cineray.core.errors import DataError
from cineray.datasets.signal import SignalConfig, pair_with_lag, prepare
from cineray.datasets.sources.cc2017 import Cc2017Config

PUBLISHED = SignalConfig.suiting("cc2017").override({"voxels": [[1, 4]]})
"""Without voxel 0, whose rows are a straight line."""

ROWS = {"train": 4320, "test": 1200}
REPEATS = {"train": 2, "test": 10}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Voxel 0 of a row is 100 times the row plus the repeat; pixel brightness tells the row; captions too."""
    folder = tmp_path_factory.mktemp("released")
    torch.manual_seed(0)
    for part, rows in ROWS.items():
        clips = torch.zeros(rows, 6, 3, 8, 8)
        row = torch.arange(rows)
        clips[:, :, 0] = ((row // 100) / 255)[:, None, None, None]
        clips[:, :, 1] = ((row % 100) / 255)[:, None, None, None]
        clips[:, :, 2] = (torch.arange(6) / 255)[None, :, None, None]
        torch.save(clips, folder / f"GT_{part}_3fps.pt")
        torch.save(np.array([f"a clip, row {n}" for n in range(rows)]), folder / f"GT_{part}_caption.pt")
        for subject in (1, 3):
            fmri = torch.randn(rows, REPEATS[part], 4)
            fmri[:, :, 0] = 100.0 * row[:, None] + torch.arange(REPEATS[part])
            torch.save(fmri, folder / f"subj0{subject}_{part}_fmri.pt")
    return folder


def config(folder, **changes):
    return Cc2017Config.parse(
        {
            "folder": str(folder),
            "layout": "released",
            "subjects": [1],
            "films": ["seg3", "test2"],
            "size_px": 8,
            **changes,
        }
    )


def test_row_is_segment_times_240_plus_clip(folder):
    runs = {r.run: r for r in config(folder).recordings()}
    assert list(runs) == ["seg3_1", "seg3_2"] + [f"test2_{n}" for n in range(1, 11)]
    for name, run in runs.items():
        film, repeat = name.split("_")
        first = {"seg3": 2 * 240, "test2": 240}[film]
        np.testing.assert_array_equal(run.brain[:, 0], 100 * (first + np.arange(240)) + int(repeat) - 1)
        assert run.brain.shape == (240, 4)
        assert run.brain.dtype == np.float32


def test_rows_are_paired_as_stored_whatever_the_preparation(folder):
    """The lag is inside the rows: at 4 s row t carries clip t; one TR later it would carry clip t - 1."""
    run = next(config(folder).recordings())
    assert pair_with_lag(run, 4.0, {n: 2.0 for _, n in run.showings}).stimulus_id == [
        f"seg3-{t:03d}" for t in range(240)
    ]
    found = prepare(run, PUBLISHED, {n: 2.0 for _, n in run.showings})
    assert found.stimulus_id[17] == "seg3-017"
    later = pair_with_lag(run, 6.0, {n: 2.0 for _, n in run.showings})
    assert later.stimulus_id[:2] == [None, "seg3-000"]


def test_preparing_prepared_rows_changes_nothing(folder):
    """Detrending and z-scoring are done twice where the release has done them: the second time is the identity."""
    run = next(config(folder).recordings())
    lengths = {n: 2.0 for _, n in run.showings}
    once = prepare(run, PUBLISHED, lengths)
    twice = prepare(once, PUBLISHED.override({"lag_s": 0, "voxels": []}), lengths)
    np.testing.assert_allclose(twice.brain, once.brain, atol=1e-5)


def test_clips_are_bytes_of_their_rows_with_captions(folder):
    stimuli = list(config(folder, captions=str(folder)).stimuli())
    assert len(stimuli) == 480
    for number, stimulus in enumerate(stimuli):
        row = 480 + number if number < 240 else 240 + (number - 240)  # seg3 begins at 2 x 240, test2 at 1 x 240
        frames = stimulus.targets["frames"]
        assert frames.shape == (6, 8, 8, 3)
        assert frames.dtype == np.uint8
        assert (frames[..., 0] == row // 100).all()
        assert (frames[..., 1] == row % 100).all()
        np.testing.assert_array_equal(frames[:, 3, 3, 2], range(6))
        assert stimulus.caption == f"a clip, row {row}"
        assert stimulus.onset_s == 2 * (number % 240)
    assert next(config(folder).stimuli()).caption == ""


def test_another_size_is_resized(folder):
    frames = next(config(folder, size_px=16).stimuli()).targets["frames"]
    assert frames.shape == (6, 16, 16, 3)
    assert (frames[..., 0] == 4).all()
    assert (frames[..., 1] == 80).all()


def test_the_bad_run_is_left_out(folder):
    runs = [r.run for r in config(folder, subjects=[3], films=["test2"]).recordings()]
    assert "test2_9" not in runs
    assert len(runs) == 9


class Hostile:
    def __reduce__(self):
        return os.mkdir, (os.environ["CINERAY_TEST_TRAP"],)


def test_nothing_in_a_file_is_run(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("CINERAY_TEST_TRAP", str(tmp_path / "trap"))
    for name in ("subj01_train_fmri.pt", "GT_train_3fps.pt", "GT_train_caption.pt"):
        torch.save(Hostile(), tmp_path / name)
    source = config(tmp_path, films=["seg1"])
    with pytest.raises(DataError, match=r"subj01_train_fmri\.pt is no tensor"):
        next(source.recordings())
    with pytest.raises(DataError, match=r"GT_train_3fps\.pt is no tensor"):
        next(source.stimuli())
    with pytest.raises(DataError, match=r"GT_train_caption\.pt"):
        next(config(folder, films=["seg1"], captions=str(tmp_path)).stimuli())
    assert not (tmp_path / "trap").exists()


def test_other_contents_are_one_sentence(folder, tmp_path):
    path = tmp_path / "subj01_train_fmri.pt"
    for content, words in (
        (torch.zeros(4320, 3, 5), r"shape \(4320, 3, 5\), expected a tensor of shape \(4320, 2, 'any'\)"),
        ({"a": torch.zeros(2)}, "holds a dict"),
    ):
        torch.save(content, path)
        with pytest.raises(DataError, match=words):
            next(config(tmp_path, films=["seg1"]).recordings())
    path.write_bytes((folder / path.name).read_bytes()[:-5000])
    with pytest.raises(DataError, match="copy it again"):
        next(config(tmp_path, films=["seg1"]).recordings())
    torch.save(torch.full((4320, 6, 3, 1, 1), 7.0), tmp_path / "GT_train_3fps.pt")
    with pytest.raises(DataError, match="brightness from 7 to 7, expected 0 to 1"):
        next(config(tmp_path, films=["seg1"]).stimuli())
    torch.save(np.array(["too few"]), tmp_path / "GT_train_caption.pt")
    with pytest.raises(DataError, match="expected 4320 captions"):
        next(config(folder, films=["seg1"], captions=str(tmp_path)).stimuli())
    with pytest.raises(DataError, match="there is no file"):
        next(config(tmp_path, films=["test1"]).recordings())
