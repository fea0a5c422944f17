"""cc2017: three people watch natural film (Wen et al. 2018, doi:10.1093/cercor/bhx268), from either release."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from cineray.core.config import Config
from cineray.core.errors import ConfigError, DataError
from cineray.datasets.schema import TensorSpec
from cineray.datasets.sources import cc2017_raw as raw
from cineray.datasets.sources import cc2017_released as released
from cineray.datasets.sources.base import Recording, Stimulus
from cineray.datasets.sources.cc2017_films import (
    BAD_RUN,
    CLIP_S,
    FILMS,
    TEST,
    TRAIN,
    peak_lags,
    place,
    recording,
    time_course,
)
from cineray.datasets.sources.images import ranges
from cineray.datasets.video import scene_cuts

__all__ = ["Cc2017Config"]

RAW_ONLY = ("fps", "trim", "voxels", "mask_films", "alpha", "keep")
"""Settings that the released tensors have already decided."""


class Cc2017Config(Config):
    """Settings of the cc2017 source.

    ``raw`` is the published folder: ``Subject0X/video_fmri_dataset/subjectX/fmri/<film>/cifti/<film>_<repeat>_Atlas
    .dtseries.nii`` and ``Stimuli/video_fmri_dataset/stimuli/<film>.mp4``. ``released`` is a folder of
    ``subj0X_{train,test}_fmri.pt`` and ``GT_{train,test}_3fps.pt``. In both, a recording stands on the clock of its
    film and its volume i begins 4 s after clip i: with ``signal.lag_s`` 4 volume i is paired with clip i, the pairing
    as published, and nothing must be shifted.
    """

    name: Literal["cc2017"] = "cc2017"
    folder: str
    layout: Literal["raw", "released"] = "raw"
    subjects: tuple[int, ...] = (1, 2, 3)
    films: tuple[str, ...] = ()
    """Of ``seg1`` … ``seg18`` and ``test1`` … ``test5``; empty takes all."""
    size_px: int = Field(default=224, ge=8)
    fps: int = Field(default=released.FPS, ge=1)
    """Pictures a second of a clip."""
    groups: Literal["scene", "clip"] = "scene"
    """What is never divided between training and test: a shot (a clip belongs to the one it begins in) or a clip."""
    captions: str | None = None
    """Folder with ``GT_{train,test}_caption.pt``; without it captions stay empty."""
    trim: bool = True
    """Keep the 240 volumes of the published preparation; False keeps all, for another lag than 4 s."""
    voxels: Literal["reproducible", "cortex"] = "reproducible"
    """``reproducible``: vertices that answer alike to both showings of ``mask_films``."""
    mask_films: tuple[str, ...] = TRAIN[:16]
    """Training segments that decide so; 17 and 18 are left to validation. The published mask is that of all 18."""
    alpha: float = Field(default=0.05, gt=0, lt=1)
    """Bonferroni-corrected level of that (the original preparation took .01)."""
    keep: int | None = Field(default=None, ge=1)
    """Keep so many vertices of largest |t| instead."""
    keep_bad_run: bool = False
    """Keep subject 3's ninth showing of ``test2``, which is about ten seconds out of step."""

    @model_validator(mode="after")
    def _consistent(self) -> "Cc2017Config":
        if unknown := set(self.films) - set(FILMS):
            raise ConfigError(f"there is no film '{min(unknown)}'; the films are seg1 to seg18 and test1 to test5")
        if len(set(self.mask_films) & set(TRAIN)) != len(self.mask_films) or len(self.mask_films) < 2:
            raise ConfigError(
                f"mask_films is {', '.join(self.mask_films) or 'empty'}, expected two or more of seg1 to seg18, each "
                "once; test films never decide which vertices are kept"
            )
        if not self.subjects or not set(self.subjects) <= {1, 2, 3}:
            raise ConfigError(f"subjects is {self.subjects}, expected some of 1, 2, 3")
        for name in RAW_ONLY if self.layout == "released" else ():
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ConfigError(f"{name} is set, but the released tensors have it decided; leave it out or use raw")
        return self

    @property
    def film_names(self) -> list[str]:
        """Films that are read, in their published order."""
        return [film for film in FILMS if not self.films or film in self.films]

    def targets(self) -> dict[str, TensorSpec]:
        """The pictures of a clip."""
        shape = (round(CLIP_S * self.fps), self.size_px, self.size_px, 3)
        return {"frames": TensorSpec("uint8", shape, "frames height width channels", "sRGB")}

    def stimuli(self) -> Iterator[Stimulus]:
        """240 clips of each film."""
        for film in self.film_names:
            captions = self._captions(film)
            before, scene = None, 0
            for number, frames in enumerate(self._clips(film)):
                scenes = scene + np.cumsum(scene_cuts(frames, before))
                group = f"scene-{scenes[0]:04d}" if self.groups == "scene" else f"clip-{number:03d}"
                yield Stimulus(
                    stimulus_id=f"{film}-{number:03d}",
                    film=film,
                    onset_s=number * CLIP_S,
                    length_s=CLIP_S,
                    group=f"{film}-{group}",
                    caption=captions[number] if captions else "",
                    targets={"frames": frames},
                )
                before, scene = frames[-1], int(scenes[-1])

    def recordings(self) -> Iterator[Recording]:
        """Every run of every chosen subject and film but the bad one; one run is in memory."""
        for subject in self.subjects:
            for film in self.film_names:
                yield from self._showings(subject, film)

    def notes(self) -> dict[str, object]:
        """What the manifest remembers, with the cortical vertices kept and the test runs that are out of step."""
        known = {
            "licence": "that of Purdue University Research Repository 2809; films may not be passed on",
            "cite": "Wen et al. 2018, Cerebral Cortex 28, 4136",
            "preprocessing": "HCP minimal pipelines up to the surface; runs trimmed to the film"
            if self.layout == "raw"
            else "trimmed, detrended, scaled and masked upstream",
            "left_out": [] if self.keep_bad_run or BAD_RUN[0] not in self.subjects else ["subj03 test2_9"],
            "late_by_volumes": self._late(),
        }
        if self.layout == "raw":
            known["voxel_order"] = "cortical grayordinates of the CIFTI files, left then right"
            known["voxels"] = {f"subj{subject:02d}": ranges(kept) for subject, kept in self._kept.items()}
        return known

    @cached_property
    def _kept(self) -> dict[int, NDArray[np.int64]]:
        """Subject -> cortical vertices kept. Only `mask_films` decide."""
        kept = {}
        for subject in self.subjects:
            if self.voxels == "cortex":
                first = raw.read_run(Path(self.folder), subject, self.film_names[0], 1, trim=self.trim)[0]
                kept[subject] = np.arange(first.shape[1])
                continue
            t, p = raw.reproducibility(raw.pairs(Path(self.folder), subject, self.mask_films))
            kept[subject] = raw.reproducible(t, p, alpha=self.alpha, keep=self.keep)
            if not len(kept[subject]):
                raise DataError(f"no vertex of subject {subject} answers alike to both showings; set source.keep")
        return kept

    def _showings(self, subject: int, film: str) -> Iterator[Recording]:
        for repeat in range(1, place(film).repeats + 1):
            if (subject, film, repeat) != BAD_RUN or self.keep_bad_run:
                yield recording(subject, film, repeat, *self._run(subject, film, repeat))

    def _late(self) -> dict[str, int]:
        """Test runs that do not go with the other showings of their film: told, never shifted."""
        late = {}
        for subject in self.subjects:
            for film in (film for film in self.film_names if film in TEST):
                courses = {run.run: time_course(run.brain) for run in self._showings(subject, film)}
                lags = zip(courses, peak_lags(list(courses.values())), strict=True)
                late |= {f"subj{subject:02d} {name}": lag for name, lag in lags if lag}
        return late

    def _run(self, subject: int, film: str, repeat: int) -> tuple[NDArray[np.floating], NDArray[np.float64]]:
        if self.layout == "released":
            return released.read_run(Path(self.folder), subject, film, repeat)
        brain, onset_s = raw.read_run(Path(self.folder), subject, film, repeat, trim=self.trim)
        return brain[:, self._kept[subject]], onset_s

    def _clips(self, film: str) -> Iterator[NDArray[np.uint8]]:
        if self.layout == "released":
            return released.film_clips(Path(self.folder), film, self.size_px)
        return raw.film_clips(Path(self.folder), film, self.fps, self.size_px)

    def _captions(self, film: str) -> list[str]:
        if self.captions is None:
            return []
        where = place(film)
        return released.captions(Path(self.captions), where.part)[where.rows]
