"""Brains with a known code watching real films: a folder of video files, cut into clips, seen by synthetic people."""

import math
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, model_validator

from cineray.core.config import Config
from cineray.core.errors import ConfigError, DataError
from cineray.datasets.schema import TensorSpec
from cineray.datasets.sources.base import Recording, Stimulus
from cineray.datasets.sources.synthetic_brain import BASELINE, UNITS, Brain, draws, make_atlas, make_brain
from cineray.datasets.sources.synthetic_film import PLACES
from cineray.datasets.sources.watched_units import NUM_UNITS, REGIONS, seen_units
from cineray.datasets.video import CONTAINERS, frames_at, probe

__all__ = ["FILMS", "Cut", "WatchedConfig"]

FILMS = {"train": (0.0, 0.5), "val": (0.55, 0.75), "test": (0.8, 1.0)}
"""Film -> the share of every file that belongs to it; a twentieth of the file lies between two of them."""

REFERENCE_MINUTES = 10.0
"""At least so much of the training film, in an order nobody sees, puts the weights on one scale."""


class Cut(NamedTuple):
    """Where a clip comes from."""

    film: str
    start_s: float
    """In the file, as the length."""
    length_s: float
    backwards: bool = False


class WatchedConfig(Config):
    """Settings of the watched source.

    Every video file in ``folder`` (found recursively) gives clips to the films ``train``, ``val`` and ``test``: its
    first half, a fifth and its last fifth, with a twentieth between them. A clip lasts ``clip_s`` on the screen; a
    file whose fifth is shorter than a clip's share of the file is slowed down further until that fifth fills a clip, so
    that its clips are all equally slow.
    Each run shows the clips of one film in a random order and ends with ``rest_s`` of blank screen. What the semantic
    voxels know is which file a clip comes from.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    name: Literal["watched"] = "watched"
    folder: str
    num_subjects: int = Field(default=4, ge=1)
    clip_s: float = Field(default=2.0, gt=0)
    num_frames: int = Field(default=8, ge=2)
    """Pictures of a clip, evenly spaced."""
    size_px: int = Field(default=64, ge=PLACES)
    stride: float = Field(default=0.5, gt=0, le=1)
    """Training clips of a file begin this share of a clip apart; those of val and test never overlap."""
    slow: float = Field(default=1.0, gt=0)
    """Films are shown so many times slower than they were filmed."""
    mirrored: bool = False
    """Whether the shares of a file run from its end: its second half trains, its first fifth is tested."""
    backwards: bool = False
    """Whether every training clip is shown backwards, too: then whatever moves one way moves the other way as well."""
    train_repeats: int = Field(default=1, ge=1)
    test_repeats: int = Field(default=1, ge=1)
    """Of val and test."""
    run_minutes: float = Field(default=5.0, gt=0)
    rest_s: float = Field(default=16.0, ge=0)
    tr_s: float = Field(default=2.0, gt=0)
    voxels: tuple[int, int] = (150, 400)
    """Fewest and most voxels of a subject."""
    noise: float = Field(default=1.0, ge=0)
    """Scales all noise."""
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _whole(self) -> "WatchedConfig":
        scans = self.clip_s / self.tr_s
        if abs(scans - round(scans)) > 1e-9 or round(scans) < 1 or self.num_frames % round(scans):
            raise ConfigError(
                f"clip_s is {scans:g} times tr_s and num_frames is {self.num_frames}, expected a whole number of scans "
                "a clip and of pictures a scan; change one of the three"
            )
        if self.size_px % PLACES:
            raise ConfigError(f"size_px is {self.size_px}, expected a multiple of {PLACES}; choose another")
        if not 10 <= self.voxels[0] <= self.voxels[1]:
            raise ConfigError(f"voxels is {self.voxels}, expected two rising numbers of at least 10")
        return self

    @property
    def shares(self) -> dict[str, tuple[float, float]]:
        """Film -> from where to where it takes its clips, in shares of every file."""
        if not self.mirrored:
            return FILMS
        return {film: (round(1 - end, 9), round(1 - begin, 9)) for film, (begin, end) in FILMS.items()}

    @property
    def subjects(self) -> list[str]:
        """Names of the subjects."""
        return [f"sub-{number + 1:02d}" for number in range(self.num_subjects)]

    @cached_property
    def files(self) -> dict[str, Path]:
        """Category -> video file, sorted; a category is the file's place in the folder without its suffix."""
        root = Path(self.folder)
        paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in CONTAINERS and path.is_file())
        found = {path.relative_to(root).with_suffix("").as_posix(): path for path in paths}
        if not found:
            raise DataError(f"{self.folder} holds no film ({', '.join(CONTAINERS)}); point source.folder at one")
        if len(found) < len(paths):
            raise DataError(f"two films in {self.folder} differ only in their suffix; rename or remove one of them")
        return found

    def targets(self) -> dict[str, TensorSpec]:
        """The pictures, and what simple voxels read of them."""
        shape = (self.num_frames, self.size_px, self.size_px, 3)
        num = sum(self._num_units().values()) - UNITS["mixed"]
        return {
            "frames": TensorSpec("uint8", shape, "frames height width channels", "sRGB"),
            "features": TensorSpec("float32", (num,), "dim", "activation"),
        }

    def clips(self, category: str) -> list[Cut]:
        """Every clip of a file."""
        about = probe(self.files[category])
        length_s = about.length_s - 1 / about.fps  # the header may count a picture that is not there
        taken_s = min(self.clip_s / self.slow, length_s * min(end - begin for begin, end in self.shares.values()))
        found = []
        for film, (begin, end) in self.shares.items():
            step_s = taken_s * (self.stride if film == "train" else 1.0)
            num = 1 + math.floor(((end - begin) * length_s - taken_s) / step_s + 1e-9)
            cuts = [Cut(film, begin * length_s + number * step_s, taken_s) for number in range(num)]
            found += cuts
            if self.backwards and film == "train":
                found += [cut._replace(backwards=True) for cut in cuts]
        return found

    def stimuli(self) -> Iterator[Stimulus]:
        """The clips, file by file; a film's own time runs through its files, slowed down as they are shown."""
        begun_s = dict.fromkeys(FILMS, 0.0)
        for category in self.files:
            clips, pictures = self.clips(category), self._pictures(category)
            first_s = {cut.film: cut.start_s for cut in reversed(clips)}
            end_s = begun_s
            for number, (film, start_s, length_s, _) in enumerate(clips):
                name = _clip_id(category, number)
                features = self.units[film][name].mean(0).astype(np.float32)
                onset_s = begun_s[film] + (start_s - first_s[film]) * self.clip_s / length_s
                end_s = end_s | {film: onset_s + self.clip_s}
                yield Stimulus(
                    stimulus_id=name,
                    film=film,
                    onset_s=onset_s,
                    length_s=self.clip_s,
                    group=f"{film}/{category}",
                    caption=_words(category),
                    targets={"frames": pictures[number], "features": features},
                )
            begun_s = end_s

    def recordings(self) -> Iterator[Recording]:
        """Every run of every film, subject by subject."""
        for subject in self.subjects:
            brain = self.brain(subject)
            for film in FILMS:
                for repeat in range(self.train_repeats if film == "train" else self.test_repeats):
                    yield from self._runs(subject, brain, film, repeat)

    def notes(self) -> dict[str, object]:
        """What the manifest remembers."""
        return {
            "licence": "that of the films; the brains are computed",
            "categories": list(self.files),
            "preprocessing": "none",
        }

    def brain(self, subject: str) -> Brain:
        """All parameters of a subject's code."""
        reference = self._reference
        rng = draws(self.seed, "brain", subject)
        return make_brain(
            rng,
            make_atlas(draws(self.seed, "atlas"), reference),
            reference,
            num_voxels=int(rng.integers(self.voxels[0], self.voxels[1] + 1)),
            noise=self.noise,
            fps=self.num_frames / self.clip_s,
            regions=REGIONS,
            num_units=self._num_units(),
        )

    @cached_property
    def units(self) -> dict[str, dict[str, NDArray[np.float64]]]:
        """Film -> clip -> (frames, simple units): contrast, motion and colour, then one-hot category."""
        found: dict[str, dict[str, NDArray[np.float64]]] = {film: {} for film in FILMS}
        for category in self.files:
            simple = self._simple(category, self._pictures(category))
            for number, cut in enumerate(self.clips(category)):
                found[cut.film][_clip_id(category, number)] = simple[number]
        return found

    @cached_property
    def _reference(self) -> NDArray[np.float64]:
        clips = list(self.units["train"].values())
        rounds = math.ceil(REFERENCE_MINUTES * 60 / (self.clip_s * len(clips)))
        rng = draws(self.seed, "reference")
        return np.concatenate([clips[index] for _ in range(rounds) for index in rng.permutation(len(clips))])

    def _num_units(self) -> dict[str, int]:
        num = UNITS | NUM_UNITS | {"semantic": len(self.files)}
        return {region.name: num[region.name] for region in REGIONS if region.name != "silent"}

    def _pictures(self, category: str) -> NDArray[np.uint8]:
        """(clips, frames, size_px, size_px, 3)."""
        share = np.arange(self.num_frames) / self.num_frames
        times_s = np.stack(
            [cut.start_s + cut.length_s * (share[::-1] if cut.backwards else share) for cut in self.clips(category)]
        )
        return frames_at(self.files[category], times_s.ravel(), self.size_px).reshape(
            *times_s.shape, *([self.size_px] * 2), 3
        )

    def _simple(self, category: str, pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
        """(clips, frames, simple units)."""
        which = np.zeros((*pictures.shape[:2], len(self.files)))
        which[..., list(self.files).index(category)] = 1
        return np.concatenate([seen_units(pictures), which], axis=2)

    def _runs(self, subject: str, brain: Brain, film: str, repeat: int) -> Iterator[Recording]:
        clips = list(self.units[film])
        order = draws(self.seed, "order", film, str(repeat)).permutation(len(clips))
        per_run = max(1, round(self.run_minutes * 60 / self.clip_s))
        for number, first in enumerate(range(0, len(clips), per_run)):
            shown = [clips[index] for index in order[first : first + per_run]]
            yield self._recording(subject, brain, film, f"{film}-{number:02d}-repeat-{repeat}", repeat, shown)

    def _recording(self, subject: str, brain: Brain, film: str, run: str, repeat: int, shown: list[str]) -> Recording:
        per_clip = round(self.clip_s / self.tr_s)
        rest = math.ceil(self.rest_s / self.tr_s)
        scans = len(shown) * per_clip + rest
        simple = np.concatenate([self.units[film][name] for name in shown])
        noise = brain.noise(draws(self.seed, "noise", subject, run), scans)
        into_s = np.tile(np.arange(per_clip) * self.tr_s, len(shown))
        return Recording(
            subject=subject,
            run=run,
            repeat=repeat,
            tr_s=self.tr_s,
            brain=(BASELINE + brain.bold(simple, self.num_frames // per_clip, scans) + noise).astype(np.float32),
            onset_s=np.arange(scans, dtype=np.float64) * self.tr_s,
            stimulus_id=[name for name in shown for _ in range(per_clip)] + [None] * rest,
            offset_s=np.concatenate([into_s, np.full(rest, np.nan)]),
        )


def _clip_id(category: str, number: int) -> str:
    return f"{category}-{number:05d}"


def _words(category: str) -> str:
    """``asl_gestures/book`` as ``asl gestures: book``."""
    return category.replace("_", " ").replace("-", " ").replace("/", ": ")
