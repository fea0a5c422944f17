"""Reconstructed clips: bytes come back as they went in, a stopped writer goes on, nothing foreign is mixed in."""

import json

import numpy as np
import pytest

from cineray.core.errors import ConfigError, DataError, IntegrityError
from cineray.core.storage import Store
from cineray.training.reconstructions import Origin, Reconstruction, Reconstructions

ORIGIN = Origin(settings="aaaa", data="dddd", dataset="somewhere", notes=("a known film",))


def clip(example: int, **changes) -> Reconstruction:
    rng = np.random.default_rng(example)
    values = {
        "example": example, "subject": f"sub-{example % 2}", "run": "run-0", "stimulus_id": f"film-{example}",
        "video": rng.integers(0, 256, (6, 8, 10, 3), np.uint8), "fps": 3.0, "seed": example, "caption": "ein Häuschen",
        "keyframe": rng.integers(0, 256, (8, 10, 3), np.uint8), "blurry": rng.integers(0, 256, (5, 4, 4, 3), np.uint8),
    }  # fmt: skip
    return Reconstruction(**(values | changes))


def test_a_clip_comes_back_as_it_was(tmp_path):
    folder = Reconstructions.begin(Store.at(tmp_path), "test", ORIGIN)
    for example in (3, 1):
        folder.write(clip(example))
    folder.finish()
    again = Reconstructions.open(Store.at(tmp_path), "test")
    assert again.origin == ORIGIN
    assert [e.example for e in again.entries] == [1, 3]
    assert again.entries[0].stimulus_id == "film-1"
    found, wanted = again.read(3), clip(3)
    for name, value in vars(wanted).items():
        np.testing.assert_array_equal(getattr(found, name), value)


def test_the_file_is_the_contract(tmp_path):
    """Read with numpy alone."""
    Reconstructions.begin(Store.at(tmp_path), "test", ORIGIN).write(clip(7))
    with np.load(tmp_path / "reconstructions" / "test" / "000007.npz", allow_pickle=False) as found:
        names = {"video", "keyframe", "blurry", "fps", "seed", "subject", "run", "stimulus_id", "caption", "carried"}
        assert set(found.files) == names
        assert (str(found["caption"]), float(found["fps"]), int(found["seed"])) == ("ein Häuschen", 3.0, 7)


def test_a_pipeline_without_keyframes_leaves_them_out(tmp_path):
    folder = Reconstructions.begin(Store.at(tmp_path), "val", ORIGIN)
    folder.write(clip(0, keyframe=None, blurry=None))
    assert folder.read(0).keyframe is None
    assert folder.read(0).blurry is None


def test_a_stopped_writer_goes_on_and_an_unfinished_folder_is_not_read(tmp_path):
    store = Store.at(tmp_path)
    Reconstructions.begin(store, "test", ORIGIN).write(clip(2))
    (tmp_path / "reconstructions" / "test" / ".000003.npz.tmp").write_bytes(b"half")
    with pytest.raises(ConfigError, match="is not finished"):
        Reconstructions.open(store, "test")
    again = Reconstructions.begin(store, "test", ORIGIN)
    assert again.done() == {2}
    again.write(clip(3))
    again.finish()
    assert [e.example for e in Reconstructions.open(store, "test").entries] == [2, 3]


@pytest.mark.parametrize("what", ["settings", "data"])
def test_clips_of_other_settings_or_data_are_not_mixed_in(tmp_path, what):
    store = Store.at(tmp_path)
    Reconstructions.begin(store, "test", ORIGIN)
    with pytest.raises(ConfigError, match=f"of {what} .*, these are other"):
        Reconstructions.begin(store, "test", ORIGIN.override({what: "other"}))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"video": np.zeros((2, 4, 4, 3), np.float32)}, "found video float32"),
        ({"keyframe": np.zeros((2, 4, 4, 3), np.uint8)}, "found keyframe uint8 .* 3 axes"),
        ({"video": np.zeros((0, 4, 4, 3), np.uint8)}, r"\(0, 4, 4, 3\)"),
        ({"fps": 0.0}, "found 0 frames per second"),
        ({"fps": float("nan")}, "found nan frames per second"),
    ],
)
def test_what_is_no_video_is_refused(changes, says):
    with pytest.raises(DataError, match=says):
        clip(0, **changes)


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:200] + b"\0" * (len(b) - 200)]
)
def test_damage_is_told(tmp_path, damage):
    folder = Reconstructions.begin(Store.at(tmp_path), "test", ORIGIN)
    folder.write(clip(0))
    path = tmp_path / "reconstructions" / "test" / "000000.npz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(IntegrityError, match=r"000000\.npz"):
        folder.read(0)


def test_an_index_that_is_none_and_an_empty_folder_are_told(tmp_path):
    store = Store.at(tmp_path)
    folder = Reconstructions.begin(store, "test", ORIGIN)
    with pytest.raises(DataError, match="holds no clip"):
        folder.finish()
    store.put("reconstructions/test/index.json", json.dumps({"clips": [{"example": 1}]}).encode())
    with pytest.raises(IntegrityError, match=r"index\.json is damaged"):
        Reconstructions.open(store, "test")
    with pytest.raises(ConfigError, match="does not exist"):
        Reconstructions.open(store, "val")
