"""Which clips `benchmarks.results_video` scores, and the videos that know nothing of them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cineray.training.reconstructions import Reconstruction

__all__ = ["shuffled", "spread", "still"]


def spread(stimuli: Sequence[str], most: int) -> set[str]:
    """At most so many clips of each file, evenly spread, the first and the last among them."""
    files: dict[str, list[str]] = {}
    for stimulus in sorted(set(stimuli)):
        files.setdefault(_file(stimulus), []).append(stimulus)
    return {
        found[int(at)]
        for found in files.values()
        for at in np.linspace(0, len(found) - 1, min(most, len(found))).round()
    }


def still(picture: NDArray[np.uint8], clips: Iterator[Reconstruction]) -> Iterator[Reconstruction]:
    """Each clip with one picture, (height, width, 3), for its video."""
    for clip in clips:
        yield replace(clip, video=np.repeat(picture[None], len(clip.video), axis=0))


def shuffled(clips: Sequence[Reconstruction], seed: int) -> Iterator[Reconstruction]:
    """Each clip with the video that was made of another file's clip: the same videos, no knowledge of the clip."""
    rng = np.random.default_rng(seed)
    for subject in sorted({clip.subject for clip in clips}):
        own = [clip for clip in clips if clip.subject == subject]
        files = np.array([_file(clip.stimulus_id) for clip in own])
        for clip, file in zip(own, files, strict=True):
            other = own[int(rng.choice(np.flatnonzero(files != file)))]
            yield replace(clip, video=other.video, keyframe=other.keyframe, blurry=other.blurry)


def _file(stimulus: str) -> str:
    """The file a stimulus was cut from: its name up to the clip's number."""
    return stimulus.rpartition("-")[0]
