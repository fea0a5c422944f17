"""Brains that watch real films: clips from their own part of each file, units and BOLD by the tests' own sums."""

from itertools import pairwise

import numpy as np
import pytest

from cineray.core.errors import ConfigError, DataError
from cineray.datasets.dataset import Dataset
from cineray.datasets.ingest import ingest
from cineray.datasets.sources.watched import WatchedConfig
from cineray.datasets.sources.watched_units import colour_units, motion_units
from cineray.datasets.split import SplitConfig, make_split
from cineray.datasets.video import write_mp4
from clips import carried_texture

FPS = 10
LENGTHS = {"road": 120, "hall": 60, "signs/wave": 21, "signs/stop": 15}
"""Film -> pictures; at ten a second two are longer than five clips of a second, two shorter."""


def numbered(num, tint):
    """(num, 16, 24, 3): the upper half is as bright as the picture's number, a square moves over the lower half."""
    frames = np.zeros((num, 16, 24, 3), np.uint8)
    for number, frame in enumerate(frames):
        frame[:8] = number * 2
        frame[8:] = tint
        left = 4 + number % 12
        frame[10:14, left : left + 4] = 255 - np.array(tint)
    return frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("films")
    (root / "signs").mkdir()
    tints = ([200, 20, 20], [20, 200, 20], [20, 20, 200], [90, 90, 20])
    for (name, num), tint in zip(LENGTHS.items(), tints, strict=True):
        write_mp4(numbered(num, tint), FPS, root / f"{name}.mp4", lossless=True)
    (root / "README.md").write_text("not a film")
    return root


@pytest.fixture(scope="module")
def source(folder):
    return WatchedConfig(
        folder=str(folder), num_subjects=2, clip_s=1, tr_s=0.5, num_frames=4, size_px=16, voxels=(60, 90), rest_s=5,
        train_repeats=2, test_repeats=3, run_minutes=0.25,
    )  # fmt: skip


@pytest.fixture(scope="module")
def stimuli(source):
    return list(source.stimuli())


def file_s(stimulus):
    """Times in its file that a clip's pictures were taken from, read off their brightness."""
    return stimulus.targets["frames"][:, 2, 8, 0] / 2 / FPS


@pytest.mark.parametrize(
    ("mirrored", "shares"),
    [
        (False, {"train": (0, 0.5), "val": (0.55, 0.75), "test": (0.8, 1)}),
        (True, {"train": (0.5, 1), "val": (0.25, 0.45), "test": (0, 0.2)}),
    ],
)
def test_every_film_takes_its_pictures_from_its_own_share_of_each_file(source, mirrored, shares):
    stimuli = list(source.override({"mirrored": mirrored}).stimuli())
    for name, num in LENGTHS.items():
        for film, (begin, end) in shares.items():
            seen = np.concatenate([file_s(s) for s in stimuli if s.group == f"{film}/{name}"])
            assert begin * num / FPS - 0.15 <= seen.min(), "a picture that began earlier may still stand"
            assert seen.max() < end * num / FPS


def test_counts_and_speed_follow_the_length_of_the_file(stimuli):
    """11.9 s: half of it holds ten starts half a second apart, a fifth holds two clips; in slowed files a fifth is one
    clip, and half holds four starts."""
    counts = {
        name: [sum(s.group == f"{film}/{name}" for s in stimuli) for film in ("train", "val", "test")]
        for name in LENGTHS
    }
    assert counts == {"road": [10, 2, 2], "hall": [4, 1, 1], "signs/wave": [4, 1, 1], "signs/stop": [4, 1, 1]}
    for stimulus in stimuli:
        name = stimulus.group.split("/", 1)[1]
        taken_s = min(1.0, 0.2 * (LENGTHS[name] - 1) / FPS)
        step_s = np.diff(file_s(stimulus)).mean()
        assert step_s == pytest.approx(taken_s / 4, abs=0.034), "four pictures, evenly spaced"


def test_clips_follow_one_another_in_the_time_of_their_film(stimuli):
    for film in ("train", "val", "test"):
        clips = [s for s in stimuli if s.film == film]
        apart = np.diff([s.onset_s for s in clips])
        same = np.array([a.group == b.group for a, b in pairwise(clips)])
        np.testing.assert_allclose(apart[same], 0.5 if film == "train" else 1.0)
        np.testing.assert_allclose(apart[~same], 1.0)
        assert {s.length_s for s in clips} == {1.0}
    assert len({s.stimulus_id for s in stimuli}) == len(stimuli)
    assert {s.caption for s in stimuli} == {"road", "hall", "signs: wave", "signs: stop"}


def test_colour_units_equal_a_loop_over_places():
    frames = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    found = colour_units(frames)
    for index, frame in enumerate(frames):
        for place in range(16):
            top, left = place // 4 * 2, place % 4 * 2
            red, green, blue = (frame[top : top + 2, left : left + 2, c].mean() / 255 for c in range(3))
            expected = [(red + green + blue) / 3, red - green, blue - 0.5 * (red + green)]
            np.testing.assert_allclose(found[index, place::16], expected, atol=1e-12)


def test_motion_units_are_roots_of_the_speed_in_the_four_directions():
    """A smooth texture, carried 1 pixel right and 2 up a frame in 64: 1/64 and 2/64 of a width a step."""
    clip = carried_texture(4, 1, -2)
    found = motion_units(np.stack([clip, clip[::-1]])).reshape(2, 4, 4, 12, 12)[..., 3:9, 3:9]
    right, down, left, up = np.median(found, (1, 3, 4)).T
    np.testing.assert_allclose(np.square(right), [1 / 64, 0], atol=0.002)
    np.testing.assert_allclose(np.square(up), [2 / 64, 0], atol=0.004)
    np.testing.assert_allclose(np.square(left), [0, 1 / 64], atol=0.002)
    np.testing.assert_allclose(np.square(down), [0, 2 / 64], atol=0.004)
    np.testing.assert_array_equal(found[:, 3], found[:, 2], "no step follows the last frame")


def test_slow_films_show_less_of_the_file_in_each_clip(source):
    """2.5 times slower: clips of .4 s of the file, more of them; a file whose fifth is shorter is as slow as before."""
    slow = source.override({"slow": 2.5})
    stimuli = list(slow.stimuli())
    for stimulus in stimuli:
        taken_s = min(0.4, 0.2 * (LENGTHS[stimulus.group.split("/", 1)[1]] - 1) / FPS)
        assert np.diff(file_s(stimulus)).mean() == pytest.approx(taken_s / 4, abs=0.034)
    road = [s for s in stimuli if s.group == "train/road"]
    assert len(road) == 1 + int((5.95 - 0.4) / 0.2)
    np.testing.assert_allclose(np.diff([s.onset_s for s in road]), 0.5)


def test_training_clips_are_shown_backwards_where_asked(source, stimuli):
    both = list(source.override({"backwards": True}).stimuli())
    assert len({s.stimulus_id for s in both}) == len(both)
    for film, times in (("train", 2), ("val", 1), ("test", 1)):
        one, two = ([s for s in part if s.group == f"{film}/road"] for part in (stimuli, both))
        assert len(two) == times * len(one)
        for a, b in zip(one, two, strict=False):
            np.testing.assert_array_equal(a.targets["frames"], b.targets["frames"])
        for a, b in zip(one, two[len(one) :], strict=False):
            np.testing.assert_array_equal(a.targets["frames"], b.targets["frames"][::-1])
            assert (a.onset_s, a.caption) == (b.onset_s, b.caption)


def test_features_are_means_over_the_clip_and_name_the_file(source, stimuli):
    for stimulus in stimuli:
        values = stimulus.targets["features"]
        assert values.shape == source.targets()["features"].shape == (16 + 576 + 48 + 4,)
        light = stimulus.targets["frames"].reshape(4, 4, 4, 4, 4, 3).mean((0, 2, 4, 5)) / 255
        np.testing.assert_allclose(values[592:608].reshape(4, 4), light, atol=1e-5)
        order = sorted(LENGTHS)
        assert order[values[640:].argmax()] == stimulus.group.split("/", 1)[1]
        assert values[640:].sum() == 1


def test_noiseless_bold_is_the_response_to_what_was_shown(source):
    """Frame by frame with numpy's own convolution, from the units, the mixture and the response function."""
    quiet = source.override({"noise": 0})
    brain = quiet.brain("sub-01")
    runs = {r.run: r for r in quiet.recordings() if r.subject == "sub-01"}
    run = runs["test-00-repeat-1"]
    shown = [name for name in run.stimulus_id[::2] if name is not None]
    simple = np.concatenate([quiet.units["test"][name] for name in shown])
    drive = brain.atlas.units(simple) - brain.centre
    for voxel in range(0, brain.num_voxels, 7):
        slow = np.convolve(drive @ brain.mixture[voxel], brain.hrf)
        scans = slow[np.arange(len(run.brain)) * 2]  # two pictures a scan
        np.testing.assert_allclose(run.brain[:, voxel], 100 + scans, atol=1e-3)


def test_voxels_read_the_units_of_their_region_only(source):
    brain = source.brain("sub-02")
    ends = np.cumsum([0, 16, 576, 48, 4, 16])  # early, motion, colour, semantic, mixed
    assert brain.mixture.shape == (brain.num_voxels, 660)
    for voxel, region in enumerate(brain.region):
        read = np.flatnonzero(brain.mixture[voxel])
        assert not len(read) if region == 5 else (ends[region] <= read).all() and (read < ends[region + 1]).all()
    np.testing.assert_allclose(
        np.bincount(brain.region) / brain.num_voxels, [0.15, 0.4, 0.15, 0.15, 0.05, 0.1], atol=0.02
    )


def test_runs_show_every_clip_once_in_an_order_of_their_own(source, stimuli):
    runs = list(source.recordings())
    for subject in source.subjects:
        for film, repeats in (("train", 2), ("val", 3), ("test", 3)):
            orders = []
            for repeat in range(repeats):
                parts = [r for r in runs if (r.subject, r.repeat) == (subject, repeat) and r.run.startswith(film)]
                shown = [name for r in parts for name in r.stimulus_id if name is not None]
                assert shown[::2] == shown[1::2], "two scans a clip"
                assert sorted(shown[::2]) == sorted(s.stimulus_id for s in stimuli if s.film == film)
                assert all(len(r.brain) <= 15 * 2 + 10 for r in parts), "a quarter of a minute, then rest"
                assert all(r.stimulus_id[-10:] == [None] * 10 for r in parts)
                orders.append(shown)
            assert len(set(map(tuple, orders))) == repeats
    one, other = ([r.stimulus_id for r in runs if r.subject == subject] for subject in source.subjects)
    assert one == other, "people see the same"
    again = next(iter(source.recordings()))
    np.testing.assert_array_equal(again.brain, runs[0].brain)


def test_the_films_split_without_a_leak(source, tmp_path):
    ingest(source, tmp_path / "data")
    dataset = Dataset.open(str(tmp_path / "data"))
    films = {name: {"films": [name]} for name in ("train", "val", "test")}
    split = make_split(dataset, SplitConfig.parse(films))
    assert [len(part) for part in (split.train, split.val, split.test)] == [
        2 * 2 * 2 * 22,
        2 * 3 * 2 * 5,
        2 * 3 * 2 * 5,
    ]
    row = split.test.rows(np.arange(1))
    table = dataset.samples(["stimulus_id"])
    frames = dataset.gather_stimuli("frames", dataset.gather_stimulus_rows(row))[0]
    (expected,) = [s for s in source.stimuli() if s.stimulus_id == table["stimulus_id"][int(row[0])].as_py()]
    np.testing.assert_array_equal(frames, expected.targets["frames"])


def test_what_cannot_be_is_one_sentence(folder, tmp_path):
    with pytest.raises(DataError, match="holds no film"):
        next(WatchedConfig(folder=str(tmp_path)).stimuli())
    for suffix in (".mp4", ".mkv"):
        (tmp_path / f"a{suffix}").write_bytes((folder / "hall.mp4").read_bytes())
    with pytest.raises(DataError, match="differ only in their suffix"):
        next(WatchedConfig(folder=str(tmp_path)).stimuli())
    for wrong in ({"clip_s": 3}, {"clip_s": 4, "num_frames": 5}, {"size_px": 30}, {"voxels": (5, 9)}):
        with pytest.raises(ConfigError, match="expected"):
            WatchedConfig.parse({"folder": "x", **wrong})


def test_real_gestures_give_clips_of_every_film(data_folder, tmp_path):
    gestures = data_folder("videos_intel_ccby4") / "asl_gestures"
    for name in ("book", "eat"):
        (tmp_path / f"{name}.mkv").symlink_to(gestures / f"{name}.mkv")
    source = WatchedConfig(folder=str(tmp_path), num_subjects=1, size_px=32, voxels=(20, 20))
    stimuli = list(source.stimuli())
    assert [s.film for s in stimuli] == (["train"] * 4 + ["val", "test"]) * 2
    moved = [np.abs(np.diff(s.targets["frames"].astype(int), axis=0)).mean() for s in stimuli]
    assert min(moved) > 0.1, "eight different pictures"
    brain = next(source.recordings()).brain
    assert brain.shape == (8 + 8, 20)
    assert np.isfinite(brain).all()
    assert (brain.std(0) > 0).all()
