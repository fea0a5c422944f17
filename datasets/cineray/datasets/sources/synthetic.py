"""Films with known content, brains with a known code: data that can be made anywhere and whose ceiling is known."""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, model_validator

from cineray.core.config import Config
from cineray.core.errors import ConfigError
from cineray.datasets.schema import TensorSpec
from cineray.datasets.sources.base import Recording, Stimulus
from cineray.datasets.sources.synthetic_brain import BASELINE, Brain, draws, make_atlas, make_brain
from cineray.datasets.sources.synthetic_film import NUM_FEATURES, PLACES, Film, features, make_film, simple_units

__all__ = ["RECIPE", "SyntheticConfig"]

RECIPE = "1"
"""Version of the frozen recipe: equal settings and version give equal data."""

REFERENCE = "reference"
REFERENCE_MINUTES = 10.0
REFERENCE_SCENES = 150
"""A film that nobody sees, on which weights are put on one scale; its scenes, at least, so that every shape and colour
is seen however long the TR."""


class SyntheticConfig(Config):
    """Settings of the synthetic source.

    Films are ``train`` (``minutes`` long; with ``films="own"`` one for each subject, ``train-sub-01`` …) and ``test``,
    which everybody sees ``repeats`` times. Runs are at most ``run_minutes`` long and end with ``rest_s`` of blank
    screen. A scene lasts one TR; it is the stimulus and the group.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    name: Literal["synthetic"] = "synthetic"
    num_subjects: int = Field(default=4, ge=1)
    minutes: float = Field(default=10.0, gt=0)
    test_minutes: float = Field(default=10.0, gt=0)
    films: Literal["shared", "own"] = "shared"
    repeats: int = Field(default=1, ge=1)
    run_minutes: float = Field(default=5.0, gt=0)
    rest_s: float = Field(default=16.0, ge=0)
    tr_s: float = Field(default=4.0, gt=0)
    fps: int = Field(default=8, ge=2)
    frame_px: int = Field(default=32, ge=PLACES)
    frames: bool = True
    """Whether to keep the pictures as a target."""
    frame_step: int = Field(default=1, ge=1)
    """Of the pictures, every so-manyth is kept; brains see them all."""
    voxels: tuple[int, int] = (150, 400)
    """Fewest and most voxels of a subject."""
    noise: float = Field(default=1.0, ge=0)
    """Scales all noise; 1 puts the known-parameter decoder between .5 and .9 (docs/results/synthetic.md)."""
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _whole(self) -> "SyntheticConfig":
        frames = self.tr_s * self.fps
        if abs(frames - round(frames)) > 1e-9 or round(frames) < 2:
            raise ConfigError(f"tr_s times fps is {frames:g}, expected a whole number from 2; change one of the two")
        if round(frames) % self.frame_step:
            raise ConfigError(f"frame_step is {self.frame_step}, expected a divisor of {frames:g}; choose another")
        if self.frame_px % PLACES:
            raise ConfigError(f"frame_px is {self.frame_px}, expected a multiple of {PLACES}; choose another")
        if not 10 <= self.voxels[0] <= self.voxels[1]:
            raise ConfigError(f"voxels is {self.voxels}, expected two rising numbers of at least 10")
        return self

    @property
    def subjects(self) -> list[str]:
        """Names of the subjects."""
        return [f"sub-{number + 1:02d}" for number in range(self.num_subjects)]

    @property
    def scan_frames(self) -> int:
        """Frames of film in one scan, and in one stimulus."""
        return round(self.tr_s * self.fps)

    def targets(self) -> dict[str, TensorSpec]:
        """Known features and, if wanted, the pictures themselves."""
        columns = {"features": TensorSpec("float32", (NUM_FEATURES,), "dim", "activation")}
        if self.frames:
            shape = (self.scan_frames // self.frame_step, self.frame_px, self.frame_px, 3)
            columns["frames"] = TensorSpec("uint8", shape, "frames height width channels", "sRGB")
        return columns

    def film_names(self) -> dict[str, list[str]]:
        """Film -> who sees it."""
        training = (
            {"train": self.subjects}
            if self.films == "shared"
            else {f"train-{subject}": [subject] for subject in self.subjects}
        )
        return training | {"test": self.subjects}

    def film(self, name: str) -> Film:
        """The content of a film."""
        return _film(self.seed, name, self._num_scenes(name), self.tr_s, self.fps)

    def simple(self, name: str) -> NDArray[np.float64]:
        """A film's simple units, frame by frame (`simple_units`)."""
        return _simple(self.seed, name, self._num_scenes(name), self.tr_s, self.fps, self.frame_px)

    def brain(self, subject: str) -> Brain:
        """All parameters of a subject's code."""
        reference = self.simple(REFERENCE)
        rng = draws(self.seed, "brain", subject)
        num_voxels = int(rng.integers(self.voxels[0], self.voxels[1] + 1))
        atlas = make_atlas(draws(self.seed, "atlas"), reference)
        return make_brain(rng, atlas, reference, num_voxels=num_voxels, noise=self.noise, fps=self.fps)

    def stimuli(self) -> Iterator[Stimulus]:
        """One for each TR of each film."""
        for name in self.film_names():
            film = self.film(name)
            columns: dict[str, NDArray] = {"features": features(film, self.simple(name))}
            if self.frames:
                columns["frames"] = film.frames(self.frame_px)[:: self.frame_step].reshape(
                    len(film), *self.targets()["frames"].shape
                )
            for number in range(len(film)):
                stimulus_id = f"{name}-{number:05d}"
                yield Stimulus(
                    stimulus_id=stimulus_id,
                    film=name,
                    onset_s=number * self.tr_s,
                    length_s=self.tr_s,
                    group=stimulus_id,
                    caption=film.caption(number),
                    targets={target: column[number] for target, column in columns.items()},
                )

    def recordings(self) -> Iterator[Recording]:
        """Every run of every film, subject by subject."""
        for subject in self.subjects:
            brain = self.brain(subject)
            for film, audience in self.film_names().items():
                if subject in audience:
                    yield from self._runs(subject, brain, film)

    def notes(self) -> dict[str, object]:
        """What the manifest remembers."""
        return {
            "recipe": f"synthetic {RECIPE}",
            "licence": "Apache-2.0",
            "settings": self.model_dump(mode="json"),
            "fingerprint": self.fingerprint(),
            "preprocessing": "none",
        }

    def _num_scenes(self, name: str) -> int:
        minutes = {"test": self.test_minutes, REFERENCE: REFERENCE_MINUTES}.get(name, self.minutes)
        return max(REFERENCE_SCENES if name == REFERENCE else 1, round(minutes * 60 / self.tr_s))

    def _runs(self, subject: str, brain: Brain, film: str) -> Iterator[Recording]:
        scenes = self._num_scenes(film)
        per_run = max(1, round(self.run_minutes * 60 / self.tr_s))
        for repeat in range(self.repeats if film == "test" else 1):
            for number, first in enumerate(range(0, scenes, per_run)):
                run = f"{film}-{number:02d}" + (f"-repeat-{repeat}" if film == "test" else "")
                shown = range(first, min(first + per_run, scenes))
                yield self._recording(subject, brain, film, run, repeat, shown)

    def _recording(self, subject: str, brain: Brain, film: str, run: str, repeat: int, scenes: range) -> Recording:
        rest = math.ceil(self.rest_s / self.tr_s)
        scans = len(scenes) + rest
        shown = self.simple(film)[scenes.start * self.scan_frames : scenes.stop * self.scan_frames]
        noise = brain.noise(draws(self.seed, "noise", subject, run), scans)
        return Recording(
            subject=subject,
            run=run,
            repeat=repeat,
            tr_s=self.tr_s,
            brain=(BASELINE + brain.bold(shown, self.scan_frames, scans) + noise).astype(np.float32),
            onset_s=np.arange(scans, dtype=np.float64) * self.tr_s,
            stimulus_id=[f"{film}-{scene:05d}" for scene in scenes] + [None] * rest,
            offset_s=np.array([0.0] * len(scenes) + [np.nan] * rest),
        )


@lru_cache(maxsize=16)
def _film(seed: int, name: str, num_scenes: int, tr_s: float, fps: int) -> Film:
    return make_film(draws(seed, "film", name), num_scenes, scene_s=tr_s, fps=fps)


@lru_cache(maxsize=4)
def _simple(seed: int, name: str, num_scenes: int, tr_s: float, fps: int, px: int) -> NDArray[np.float64]:
    return simple_units(_film(seed, name, num_scenes, tr_s, fps), px)
