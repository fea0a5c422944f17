"""Showings of one stimulus decoded together: their mean is what the field calls the averaged test data."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cineray.datasets.dataset import Dataset
from cineray.datasets.view import Window
from cineray.serving.clips import Clip, recording_of
from cineray.serving.pipeline import windows

__all__ = ["Repeats", "brain_of", "mean_clips", "mean_recording"]

Repeats = Literal["each", "mean"]
"""Of a stimulus that was shown several times: every showing by itself, or the mean brain of all of them."""


def mean_clips(clips: Iterable[Clip]) -> list[Clip]:
    """One clip for each subject and stimulus, in the order and with the names of their first showings.

    A clip follows the one before it where that holds in every showing of it.
    """
    shown: dict[tuple[str, str], list[Clip]] = {}
    joined: dict[tuple[str, str], bool] = {}
    before: tuple[str, str] | None = None
    for clip in clips:
        key = (clip.subject, clip.stimulus_id)
        joined[key] = clip.follows and (
            joined[key] if key in shown else bool(shown) and before == next(reversed(shown))
        )
        shown.setdefault(key, []).append(clip)
        before = key
    return [
        replace(same[0], follows=joined[key], showings=tuple((clip.run, clip.scan) for clip in same))
        for key, same in shown.items()
    ]


def brain_of(dataset: Dataset, clips: Sequence[Clip], window: Window) -> tuple[NDArray[np.floating], Sequence[Clip]]:
    """The recording (scans, voxels) of clips of one subject and run, means or not, and the clips in it."""
    if clips[0].showings:
        return mean_recording(dataset, clips, window)
    return recording_of(dataset, clips[0].subject, clips[0].run), clips


def mean_recording(dataset: Dataset, clips: Sequence[Clip], window: Window) -> tuple[NDArray[np.float32], list[Clip]]:
    """The windows of a subject's clips, each the mean over its showings, one after another as a recording of their own.

    Returns:
        (clips · window, voxels), and the clips with their scans in it. Any window inside ``window`` finds there what it
        would find in a run; where one reaches past the end of a run, the outermost scan stands for it as always.
    """
    window = Window(first=min(window.first, 0), last=max(window.last, 0))  # a clip's own scan has to have a place
    (subject,) = {clip.subject for clip in clips}
    runs = {info.run: info.rows for info in dataset.runs if info.subject == subject}
    around = {run: rows.start + windows(len(rows), window) for run, rows in runs.items()}
    means = [
        np.mean([dataset.gather_samples(around[run][scan]) for run, scan in clip.showings], 0, dtype=np.float32)
        for clip in clips
    ]
    placed = [replace(clip, scan=place * window.scans - window.first) for place, clip in enumerate(clips)]
    return np.concatenate(means), placed
