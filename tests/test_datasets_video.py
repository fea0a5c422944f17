"""Video files against pictures whose content is known: colours that tell their own number."""

from pathlib import Path

import av
import numpy as np
import pytest
import torch

from cineray.core.errors import DataError
from cineray.datasets.video import frames_at, probe, read_clips, scene_cuts, square, write_mp4

RNG = np.random.default_rng(3)


def flat(levels, height=16, width=24):
    """One grey picture for each level."""
    frames = np.empty((len(levels), height, width, 3), np.uint8)
    frames[:] = np.asarray(levels, np.uint8)[:, None, None, None]
    return frames


def levels(frames):
    return frames.reshape(len(frames), -1).mean(1)


@pytest.fixture
def film(tmp_path) -> Path:
    """30 pictures at 10 a second; picture k has the grey level 8 k."""
    write_mp4(flat(8 * np.arange(30)), 10, tmp_path / "film.mp4", lossless=True)
    return tmp_path / "film.mp4"


def test_the_header_tells_size_rate_and_length(film):
    found = probe(film)
    assert (found.width_px, found.height_px) == (24, 16)
    assert found.fps == pytest.approx(10)
    assert found.length_s == pytest.approx(3)


def test_the_picture_is_the_last_one_that_has_begun(film):
    times = [0.0, 0.05, 0.0999, 0.1, 0.25, 1.9, 2.99]
    expected = [8 * int(time * 10 + 1e-9) for time in times]
    np.testing.assert_array_equal(levels(frames_at(film, times)), expected)


def test_times_may_come_in_any_order_and_twice(film):
    np.testing.assert_array_equal(levels(frames_at(film, [2.0, 0.3, 2.0, 1.1])), [160, 24, 160, 88])


def test_clips_of_one_pass_equal_pictures_asked_one_by_one(film):
    times = np.arange(0, 3, 0.07)[:40].reshape(10, 4)
    clips = list(read_clips(film, times))
    assert [clip.shape for clip in clips] == [(4, 16, 24, 3)] * 10
    for clip, moments in zip(clips, times, strict=True):
        for picture, moment in zip(clip, moments, strict=True):
            np.testing.assert_array_equal(picture, frames_at(film, [moment])[0])


def test_a_clock_that_ticks_once_a_picture_is_read_in_time(tmp_path):
    """AVI's tick is a whole picture, which is no reason to take the next one."""
    write_mp4(flat(8 * np.arange(30)), 10, tmp_path / "film.mp4", lossless=True)
    source, path = av.open(str(tmp_path / "film.mp4")), tmp_path / "film.avi"
    with source, av.open(str(path), "w") as target:
        stream = target.add_stream("rawvideo", rate=10, width=24, height=16, pix_fmt="bgr24")
        for frame in source.decode(video=0):
            picture = av.VideoFrame.from_ndarray(frame.to_ndarray(format="bgr24"), format="bgr24")
            picture.pts = None
            target.mux(stream.encode(picture))
        target.mux(stream.encode())
    np.testing.assert_array_equal(levels(frames_at(path, [0.0, 0.55, 1.0, 1.5])), [0, 40, 80, 120])


def test_milliseconds_of_matroska_are_no_picture_too_early(tmp_path):
    """At 30 a second picture 2 begins at 66.67 ms, which Matroska writes as 67."""
    import av

    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", 30, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 24, 16, "rgb24"
        for picture in flat(8 * np.arange(30)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    np.testing.assert_array_equal(levels(frames_at(path, np.arange(30) / 30)), 8 * np.arange(30))


def test_lossless_keeps_every_value(tmp_path):
    frames = RNG.integers(0, 256, (5, 18, 22, 3), dtype=np.uint8)
    write_mp4(frames, 8, tmp_path / "noise.mp4", lossless=True)
    np.testing.assert_array_equal(frames_at(tmp_path / "noise.mp4", np.arange(5) / 8), frames)


def test_yuv420p_keeps_colours_and_motion(tmp_path):
    """Saturated colours in large areas survive the colour conversion both ways; the matrix is the one tagged."""
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [128, 128, 128], [20, 60, 200]])
    frames = np.repeat(np.repeat(colours[:, None, None], 32, 1), 32, 2).astype(np.uint8)
    write_mp4(frames, 3, tmp_path / "colours.mp4")
    found = frames_at(tmp_path / "colours.mp4", np.arange(6) / 3).astype(int)
    assert np.abs(found - frames).max() <= 6


def test_odd_sides_repeat_their_last_row_and_column(tmp_path):
    frames = RNG.integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    write_mp4(frames, 8, tmp_path / "odd.mp4", lossless=True)
    found = frames_at(tmp_path / "odd.mp4", [0, 1 / 8])
    assert found.shape == (2, 6, 8, 3)
    np.testing.assert_array_equal(found[:, :5, :7], frames)
    np.testing.assert_array_equal(found[:, 5, :7], frames[:, 4])
    np.testing.assert_array_equal(found[:, :5, 7], frames[:, :, 6])


def test_square_equals_torchs_antialiased_bilinear_of_the_central_square():
    picture = RNG.integers(0, 256, (48, 80, 3), dtype=np.uint8)
    for size in (12, 20, 64):
        inside = torch.from_numpy(picture[:, 16:64].copy()).permute(2, 0, 1)[None].float()
        expected = torch.nn.functional.interpolate(inside, (size, size), mode="bilinear", antialias=True)
        found = square(picture, size).transpose(2, 0, 1).astype(float)
        assert np.abs(found - expected[0].numpy()).max() <= 1, "one level of rounding"


def test_a_cut_is_where_most_colours_change():
    noise = RNG.integers(-10, 10, (12, 16, 24, 3))
    frames = np.clip(
        np.repeat([[200, 30, 30]] * 5 + [[30, 30, 200]] * 4 + [[30, 200, 30]] * 3, 16 * 24, axis=0), 0, 255
    )
    frames = (frames.reshape(12, 16, 24, 3) + noise).clip(0, 255).astype(np.uint8)
    np.testing.assert_array_equal(np.flatnonzero(scene_cuts(frames)), [5, 9])
    again = np.concatenate([scene_cuts(frames[:5]), scene_cuts(frames[5:], before=frames[4])])
    np.testing.assert_array_equal(again, scene_cuts(frames))


def test_a_moving_object_is_no_cut():
    frames = flat([40] * 10, 32, 32)
    for number, frame in enumerate(frames):
        frame[8:20, 2 * number : 2 * number + 12] = (250, 200, 10)
    assert not scene_cuts(frames).any()


def test_half_the_pixels_is_the_threshold():
    frames = flat([0, 0], 10, 10)
    for changed in (50, 51):
        frames[1] = 0
        frames[1].reshape(100, 3)[:changed] = 255
        assert scene_cuts(frames).tolist() == [False, changed > 50]


def test_beyond_the_end_is_an_error_with_both_times(film):
    with pytest.raises(DataError, match=r"film\.mp4 holds pictures up to 3\.\d+ s, expected one at 3\.500 s"):
        frames_at(film, [0.0, 3.5])


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_file_cut_off_is_one_sentence(film, share):
    cut = film.with_name("cut.mp4")
    cut.write_bytes(film.read_bytes()[: int(film.stat().st_size * share)])
    with pytest.raises(DataError, match=r"^cut\.mp4 .*; .*again$"):
        frames_at(cut, np.arange(30) / 10)


def test_a_film_cut_off_after_its_index_is_one_sentence(tmp_path):
    """Matroska has its header first: it opens, and the pictures run out."""
    import av

    write_mp4(RNG.integers(0, 256, (30, 16, 16, 3), dtype=np.uint8), 10, tmp_path / "film.mp4")
    with av.open(str(tmp_path / "film.mp4")) as source, av.open(str(tmp_path / "film.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes((tmp_path / "film.mkv").read_bytes()[:-4000])
    assert probe(cut).length_s == pytest.approx(3, abs=0.2)
    with pytest.raises(DataError, match=r"^cut\.mkv .*; .*again$"):
        frames_at(cut, np.arange(30) / 10)


def test_other_files_are_one_sentence(tmp_path):
    for name, data in (
        ("noise.mp4", RNG.bytes(5000)),
        ("empty.mkv", b""),
        ("list.mp4", b"#EXTM3U\nfile:///etc/passwd\n"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=rf"^{name} cannot be decoded \(.*\); copy or export it again$"):
            probe(tmp_path / name)
    (tmp_path / "notes.txt").write_text("a")
    with pytest.raises(DataError, match="of no known kind"):
        probe(tmp_path / "notes.txt")
    with pytest.raises(DataError, match="there is no film"):
        probe(tmp_path / "none.mp4")


def test_real_films_decode_to_their_stated_length(data_folder):
    path = data_folder("videos_intel_ccby4") / "asl_gestures" / "book.mkv"
    found = probe(path)
    assert (found.width_px, found.height_px, round(found.fps)) == (640, 480, 30)
    frames = frames_at(path, np.arange(109) / 30, 64)
    assert frames.shape == (109, 64, 64, 3)
    assert len(np.unique(frames.reshape(109, -1), axis=0)) > 100, "neighbouring pictures differ"
    with pytest.raises(DataError, match="expected one at"):
        frames_at(path, [110 / 30], 64)
