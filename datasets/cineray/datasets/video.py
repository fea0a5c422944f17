"""Pictures out of video files and back: one pass over a film, one clip in memory.

Times count from the first picture of the file. A picture is on the screen from its own time until the next one's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from cineray.core.errors import DataError

__all__ = ["CONTAINERS", "Probe", "frames_at", "probe", "read_clips", "scene_cuts", "square", "write_mp4"]

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "matroska", ".avi": "avi"}
"""Suffix -> container. The container is never guessed from the bytes: a playlist could make libav open other places."""

CUT = 0.5
"""Share of the pixels whose colour must change bin for a cut: motion within a shot keeps most colours."""

LEVELS = 4
"""Bins a colour channel in the histograms of `scene_cuts`."""

CRF = 18
"""Quality of `write_mp4` (x264's constant rate factor): the eye sees no loss."""


@dataclass(frozen=True)
class Probe:
    """What a file says about its first picture stream, before any picture is decoded."""

    width_px: int
    height_px: int
    fps: float
    """Pictures a second, on average."""
    length_s: float


def probe(path: Path) -> Probe:
    """Read the header.

    Raises:
        DataError: no such file, another kind of file, damaged, or without pictures.
    """
    with _opened(path) as (container, stream):
        length_s = None
        if stream.duration is not None and stream.time_base is not None:
            length_s = float(stream.duration * stream.time_base)
        elif container.duration is not None:
            length_s = container.duration / av.time_base
        if not length_s or not stream.average_rate:
            raise DataError(f"{path.name} does not say how long or how fast it is; write it again as mp4")
        return Probe(stream.width, stream.height, float(stream.average_rate), length_s)


def frames_at(path: Path, times_s: ArrayLike, size_px: int | None = None) -> NDArray[np.uint8]:
    """The pictures on the screen at ``times_s`` (n,), in any order: (n, height, width, 3).

    Args:
        size_px: side of the `square` pictures returned; None keeps them as they are.
    """
    times, place = np.unique(np.asarray(times_s, np.float64), return_inverse=True)
    (frames,) = read_clips(path, times[None], size_px)
    return frames[place.reshape(-1)]


def read_clips(path: Path, times_s: ArrayLike, size_px: int | None = None) -> Iterator[NDArray[np.uint8]]:
    """The clips of a film, one after another: (frames, height, width, 3) for each row of ``times_s`` (clips, frames).

    The film is decoded once, so times must not run backwards.

    Raises:
        DataError: the film ends before a time asked for, or the decoder finds damage on the way to it (most codecs
            have no checksum: a changed byte may pass as another picture).
    """
    times = np.asarray(times_s, np.float64)
    assert times.ndim == 2, "one row of times a clip"
    assert (np.diff(times.ravel()) >= 0).all(), "times run backwards"
    shown = _on_screen(path, times.ravel(), size_px)
    for clip in times:
        yield np.stack([next(shown) for _ in clip])


def square(picture: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
    """The largest central square of (height, width, 3) as (size_px, size_px, 3).

    Resized with the triangle kernel, widened where the picture shrinks (Pillow's BILINEAR: bilinear interpolation
    with anti-aliasing).
    """
    side = min(picture.shape[:2])
    top, left = (length // 2 - side // 2 for length in picture.shape[:2])
    image = Image.fromarray(np.ascontiguousarray(picture[top : top + side, left : left + side]))
    return np.asarray(image.resize((size_px, size_px), Image.Resampling.BILINEAR))


def scene_cuts(
    frames: NDArray[np.uint8], before: NDArray[np.uint8] | None = None, threshold: float = CUT
) -> NDArray[np.bool_]:
    """(frames,) whether each of (frames, height, width, 3) begins a new shot.

    A cut is where the colour histograms (4 x 4 x 4 bins) of neighbours share less than ``1 - threshold`` of the
    pixels. ``before`` is the last picture of the clip before; without it the first picture begins no new shot.
    """
    histograms = np.stack([_histogram(frame) for frame in frames])
    first = histograms[:1] if before is None else _histogram(before)[None]
    change = np.abs(np.diff(np.concatenate([first, histograms]), axis=0)).sum(1) / 2
    return change > threshold


def write_mp4(frames: NDArray[np.uint8], fps: float, path: Path, *, lossless: bool = False) -> None:
    """Write (frames, height, width, 3) sRGB as H.264; an odd side gets its last row or column twice.

    Args:
        lossless: keep every value (x264 in RGB, which not every player shows); otherwise yuv420p, BT.709.
    """
    assert frames.dtype == np.uint8, "pictures of another type"
    assert len(frames), "no pictures"
    frames = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), "edge")
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(str(path), "w", format="mp4") as container:
        if lossless:
            stream = container.add_stream("libx264rgb", rate, options={"qp": "0"})
            stream.pix_fmt = "rgb24"
        else:
            stream = container.add_stream("libx264", rate, options={"crf": str(CRF)})
            stream.pix_fmt = "yuv420p"
            stream.codec_context.colorspace = av.video.reformatter.Colorspace.ITU709
        stream.height, stream.width = frames.shape[1:3]
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            if not lossless:
                frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _on_screen(path: Path, times_s: NDArray[np.float64], size_px: int | None) -> Iterator[NDArray[np.uint8]]:
    """One array for each of the rising times; pictures that nobody asked for are never converted."""
    pictures = _pictures(path)
    held, end_s = None, 0.0
    following = next(pictures, None)
    done: NDArray[np.uint8] | None = None
    for moment in times_s.tolist():
        while following is not None and following[0] <= moment + following[2]:
            held, end_s, done = following[3], following[1], None
            following = next(pictures, None)
        if held is None or (following is None and moment >= end_s):
            raise DataError(
                f"{path.name} holds pictures up to {end_s:.3f} s, expected one at {moment:.3f} s; "
                "it may be cut off: copy it again"
            )
        if done is None:
            done = held.to_ndarray(format="rgb24")
            done = done if size_px is None else square(done, size_px)
        yield done


def _pictures(path: Path) -> Iterator[tuple[float, float, float, av.VideoFrame]]:
    """(start, end, tick of the clock, picture), all in seconds."""
    with _opened(path) as (container, stream):
        zero_s = None
        step_s = float(1 / stream.average_rate) if stream.average_rate else 0.0
        tick_s = float(stream.time_base or 0)  # Matroska rounds to milliseconds: a tick late is on time
        tick_s = min(tick_s, step_s / 4) if step_s else tick_s  # AVI's tick is a whole picture
        for frame in container.decode(stream):
            if frame.time is None or frame.is_corrupt:
                raise DataError(f"{path.name} has a damaged picture after {zero_s or 0:.3f} s; copy it again")
            zero_s = frame.time if zero_s is None else zero_s
            start_s = frame.time - zero_s
            yield start_s, start_s + step_s + tick_s, tick_s, frame


@contextmanager
def _opened(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """A file and its first picture stream; what libav raises is said in one way."""
    if not path.is_file():
        raise DataError(f"there is no film {path}; correct the name")
    if path.suffix.lower() not in CONTAINERS:
        raise DataError(f"{path.name} is of no known kind; expected one of {', '.join(CONTAINERS)}")
    try:
        with path.open("rb") as file, av.open(file, format=CONTAINERS[path.suffix.lower()]) as container:
            if not container.streams.video:
                raise DataError(f"{path.name} holds no pictures; name a film")
            yield container, container.streams.video[0]
    except av.FFmpegError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise DataError(f"{path.name} cannot be decoded ({reason}); copy or export it again") from None


def _histogram(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(bins,) share of the pixels in each bin of colour."""
    level = picture.reshape(-1, 3).astype(np.int64) * LEVELS // 256
    bins = (level[:, 0] * LEVELS + level[:, 1]) * LEVELS + level[:, 2]
    return np.bincount(bins, minlength=LEVELS**3) / len(bins)
