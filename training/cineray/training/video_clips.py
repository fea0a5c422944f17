"""Reconstructed clips beside true ones: the same moments of both, wrong pairs on purpose, and what knows no clip."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cineray.core.errors import ConfigError, DataError
from cineray.core.storage import Store
from cineray.datasets.dataset import Dataset
from cineray.datasets.split import make_split
from cineray.training.backbones.trained import labels_of
from cineray.training.pictures.bank import Bank, Pairing
from cineray.training.pictures.brain import Brain
from cineray.training.pictures.resize import FrameRule, mindeye2_blend
from cineray.training.predict import read_run
from cineray.training.reconstructions import Reconstruction, Reconstructions
from cineray.training.video_settings import EvaluateVideoConfig, Part

__all__ = ["SubjectClips", "Truths", "mean_training_frame", "wrong_clips"]

GREY = 128
AT_ONCE = 64
"""Stimuli read together."""


@dataclass(frozen=True, eq=False)
class Truths:
    """The stimuli that were reconstructed, in the order of film and time, at the compared moments."""

    ids: list[str]
    film: list[str]
    group: list[str]
    onset_s: NDArray[np.float64]
    moments_s: list[NDArray[np.float64]]
    """Of each stimulus, seconds from its beginning."""
    bank: Bank
    fps: float
    """Compared frames a second."""
    rule: FrameRule
    captioner: list[str]
    """What a captioner says of each stimulus, to stand beside what was decoded; empty where the data set does not hold
    that, or where captions are compared with that itself."""

    @classmethod
    def read(cls, dataset: Dataset, stimulus_ids: Sequence[str], config: EvaluateVideoConfig) -> "Truths":
        """Raises DataError where the data set holds no coloured frames, or not these stimuli."""
        rule, num_frames = config.compared, _frames_of(dataset)[0]
        table = dataset.stimuli(["stimulus_id", "film", "onset_s", "length_s", "group", "caption"]).to_pylist()
        row_of = {line["stimulus_id"]: row for row, line in enumerate(table)}
        if unknown := sorted(set(stimulus_ids) - set(row_of)):
            raise DataError(f"{dataset.store.url} has no stimulus '{unknown[0]}'; evaluate beside its own data set")
        rows = sorted({row_of[i] for i in stimulus_ids}, key=lambda r: (table[r]["film"], table[r]["onset_s"], r))
        shown = [table[row] for row in rows]
        fps = [num_frames / line["length_s"] if line["length_s"] > 0 else 1.0 for line in shown]
        moments_s = [rule.moments_s(line["length_s"], own) for line, own in zip(shown, fps, strict=True)]
        videos = [
            rule.frames_at(frames, own, at)
            for frames, own, at in zip(_frames(dataset, rows), fps, moments_s, strict=True)
        ]
        own, spoken = [line["caption"] for line in shown], _captioner(dataset, rows)
        labels = labels_of([line[config.annotation.column] for line in shown], config.annotation.pattern)
        return cls(
            [line["stimulus_id"] for line in shown],
            [line["film"] for line in shown],
            [line["group"] for line in shown],
            np.array([line["onset_s"] for line in shown]),
            moments_s,
            Bank(videos, own if config.reference == "caption" else spoken, labels),
            float(np.median([rule.compared_fps(own) for own in fps])),
            rule,
            spoken if config.reference == "caption" else [],
        )

    @cached_property
    def moving(self) -> bool:
        """Whether every stimulus has at least two compared frames."""
        return min(len(at) for at in self.moments_s) > 1

    def blocks(self, num: int) -> list[tuple[str, int]]:
        """The block of each stimulus: so many consecutive ones of one film, fewer where that leaves under 5 blocks."""
        num = max(1, min(num, len(self.ids) // 5))
        first = {film: self.film.index(film) for film in set(self.film)}
        return [(film, (k - first[film]) // num) for k, film in enumerate(self.film)]

    def still(self, picture: NDArray[np.uint8]) -> tuple[Bank, NDArray[np.int64]]:
        """One picture held for as long as each stimulus: the videos, and which of them stands for which stimulus."""
        lengths, place = np.unique([len(at) for at in self.moments_s], return_inverse=True)
        return Bank([np.broadcast_to(picture, (n, *picture.shape)) for n in lengths]), place.reshape(-1)

    def baselines(self, mean_frame: NDArray[np.uint8]) -> dict[str, tuple[Bank, NDArray[np.int64]]]:
        """Name -> videos, and which of them stands for which stimulus."""
        grey = self.still(np.full_like(mean_frame, GREY))
        first = Bank([np.broadcast_to(video[0], video.shape) for video in self.bank.videos])
        found = {"mean_training_frame": self.still(mean_frame), "flat_grey": grey, "zero_flow": grey}
        if self.captioner:
            found["captioner"] = (Bank(self.bank.videos, self.captioner), np.arange(len(self.ids)))
        return found | ({"first_frame": (first, np.arange(len(self.ids)))} if self.moving else {})


@dataclass(frozen=True, eq=False)
class SubjectClips:
    """What was reconstructed from one brain."""

    subject: str
    predicted: Bank
    own: NDArray[np.int64]
    """(clips,) number of the true stimulus of each, in `Truths`."""
    brain: Brain | None = None
    """What was measured, where an encoding model is named."""

    @classmethod
    def read(cls, folder: Reconstructions, subject: str, truths: Truths, config: EvaluateVideoConfig) -> "SubjectClips":
        """Every clip of one subject, at the moments of its truth."""
        number = {stimulus_id: k for k, stimulus_id in enumerate(truths.ids)}
        videos, captions, own = [], [], []
        for entry in folder.entries:
            if entry.subject != subject:
                continue
            clip = folder.read(entry.example)
            own.append(number[entry.stimulus_id])
            moments_s = truths.rule.predicted_moments_s(truths.moments_s[own[-1]])
            video = _frames_at(clip, config.part, moments_s)
            if config.mixed == "mindeye2":
                video = mindeye2_blend(video, _frames_at(clip, "blurry", moments_s))
            videos.append(video)
            captions.append(clip.caption)
        return cls(subject, Bank(videos, captions), np.array(own, np.int64))

    def pairing(self, truths: Truths, own: NDArray[np.int64] | None = None) -> Pairing:
        """Every clip beside its truth, or beside ``own``."""
        rows = np.arange(len(self.own))
        return Pairing(
            self.predicted, truths.bank, rows, self.own if own is None else own, self.pool, truths.fps, self.brain
        )

    def standing_in(self, truths: Truths, bank: Bank, place: NDArray[np.int64]) -> Pairing:
        """Other videos in place of the reconstructions, once for each stimulus."""
        return Pairing(bank, truths.bank, place[self.pool], self.pool, self.pool, truths.fps, self.brain)

    @cached_property
    def pool(self) -> NDArray[np.int64]:
        """The stimuli this subject saw."""
        return np.unique(self.own)


def wrong_clips(
    truths: Truths, own: NDArray[np.int64], min_gap_s: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """For each clip another one of those the subject saw: of another film, or another scene at least so far away."""
    pool = np.unique(own)
    film, group, onset_s = np.array(truths.film)[pool], np.array(truths.group)[pool], truths.onset_s[pool]
    found = []
    for number in own:
        elsewhere = film != truths.film[number]
        apart = (group != truths.group[number]) & (np.abs(onset_s - truths.onset_s[number]) >= min_gap_s)
        candidates = pool[elsewhere | apart]
        if not len(candidates):
            raise DataError(
                f"clip '{truths.ids[number]}' has no wrong clip {min_gap_s:g} s and a scene away for the null; "
                "reconstruct a longer stretch"
            )
        found.append(rng.choice(candidates))
    return np.array(found, np.int64)


def mean_training_frame(store: Store, folder: Reconstructions, dataset: Dataset) -> NDArray[np.uint8]:
    """Mean over all frames of the stimuli that the run was trained on, (height, width, 3)."""
    run = read_run(Store.at(folder.origin.run_dir) if folder.origin.run_dir else store)
    train = make_split(dataset, run.view.split, run.view.subjects, run.view.window).train
    shown = [dataset.gather_stimulus_rows(train.rows(numbers)) for numbers in train.chunks()]
    rows = np.unique(np.concatenate(shown))
    total = np.zeros(_frames_of(dataset)[1:])
    for frames in _frames(dataset, rows.tolist()):
        total += frames.mean(0, dtype=np.float64)
    return np.rint(total / len(rows)).astype(np.uint8)


def _frames_at(clip: Reconstruction, part: Part, moments_s: NDArray[np.float64]) -> NDArray[np.uint8]:
    """(moments, height, width, 3). A blurry video lasts as long as the video beside it, however many frames it has."""
    found = {"video": clip.video, "blurry": clip.blurry, "keyframe": clip.keyframe}[part]
    if found is None:
        raise ConfigError(f"clip {clip.example} has no {part}; evaluate another part, or without a blend")
    if part == "keyframe":
        return FrameRule.frames_at(found[None], 1.0, moments_s)
    return FrameRule.frames_at(found, clip.fps * len(found) / len(clip.video), moments_s)


def _captioner(dataset: Dataset, rows: Sequence[int]) -> list[str]:
    """The target ``caption_text`` of each row: utf-8, padded with zeros."""
    if "caption_text" not in dataset.target_specs:
        return []
    found = dataset.gather_stimuli("caption_text", np.array(rows, np.int64))
    return [row.tobytes().rstrip(b"\0").decode() for row in found]


def _frames_of(dataset: Dataset) -> tuple[int, ...]:
    spec = dataset.target_specs.get("frames")
    if spec is None or spec.dtype != "uint8" or len(spec.shape) != 4 or spec.shape[-1] != 3:
        found = "no such target" if spec is None else f"{spec.dtype} {spec.shape}"
        raise DataError(
            f"{dataset.store.url}: found {found} for 'frames', expected uint8 (frames, height, width, 3); "
            "videos can only be judged beside true ones, ingest with frames"
        )
    return spec.shape


def _frames(dataset: Dataset, rows: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
    """(frames, height, width, 3) of each row, a bounded part at a time."""
    for first in range(0, len(rows), AT_ONCE):
        yield from dataset.gather_stimuli("frames", np.array(rows[first : first + AT_ONCE], np.int64))
