"""BOLD Moments (Lahner et al. 2024; OpenNeuro ds005165): ten people, 1102 videos of three seconds, a beta map a trial.

Videos 1 to 1000 are the film ``train``, 1001 to 1102 the film ``test``. Inside such a film they lie end to end in the
order of their numbers: ``onset_s`` is a place in it, so that blocks of it can be held out; it is not the time at which
anybody saw them.
"""

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from cineray.core.config import Config
from cineray.core.errors import DataError
from cineray.datasets.schema import TensorSpec
from cineray.datasets.sources.base import Recording, Stimulus
from cineray.datasets.sources.betas import NORM_RULES, Session, recordings
from cineray.datasets.sources.bold_moments_files import NUM_TRAIN, glm_sessions, prepared_sessions, subjects_in
from cineray.datasets.sources.files import read_array
from cineray.datasets.video import frames_at

__all__ = ["BoldMomentsConfig"]

VIDEO_S = 3.0

TRIAL_S = 4.0
"""A video and the second after it: what stands for a TR, so that minutes of training are minutes of trials."""


class BoldMomentsConfig(Config):
    """Settings of the bold_moments source: ``folder`` is the root of ds005165, of which version B is read."""

    name: Literal["bold_moments"] = "bold_moments"
    folder: str
    betas: Literal["glm", "prepared"] = "glm"
    """The GLM's files, one a session, or the authors' pickles, scaled and sorted by video."""
    subjects: tuple[str, ...] = ()
    """``sub-01`` … ``sub-10``; empty means all there are."""
    sessions: tuple[int, ...] = ()
    """Sessions of the GLM to take, of 2 to 5; empty means all. Statistics see these sessions only."""
    norm: Literal["session", "train", "none"] | None = None
    """Scaling of each vertex by mean and sd (ddof 1) of the training trials of its session, or of all sessions taken.
    None does what suits the files: ``session`` (the authors' rule) for the GLM's, ``none`` for the pickles."""
    mask_file: str | None = None
    """Array (grayordinates,): where it is above 0 a grayordinate is kept."""
    videos_folder: str | None = None
    """Folder with ``train/0001.mp4`` … ``test/1102.mp4``; None stores no frames."""
    num_frames: int = Field(default=8, ge=1)
    """Frames of a video, evenly spaced from its start."""
    size_px: int = Field(default=224, ge=8)
    captions_file: str | None = None
    """``annotations.json``; the first of a video's ``text_descriptions`` is taken."""

    @model_validator(mode="after")
    def _pickles_have_no_sessions(self) -> "BoldMomentsConfig":
        if self.betas == "prepared" and (self.sessions or self.norm == "session"):
            raise ValueError("prepared betas do not say which session a trial is of: leave sessions out, norm=none")
        return self

    @cached_property
    def people(self) -> list[str]:
        """The subjects taken."""
        there = subjects_in(Path(self.folder))
        if unknown := [name for name in self.subjects if name not in there]:
            raise DataError(f"{self.folder} has no betas of {unknown[0]}; it has {', '.join(there) or 'none'}")
        if not there:
            raise DataError(f"{self.folder} has no folder derivatives/versionB/fsLR32k/GLM/sub-XX; correct it")
        return sorted(self.subjects or there)

    def targets(self) -> dict[str, TensorSpec]:
        """Frames, where there are videos."""
        if self.videos_folder is None:
            return {}
        shape = (self.num_frames, self.size_px, self.size_px, 3)
        return {"frames": TensorSpec("uint8", shape, "frames height width channels", "sRGB")}

    def stimuli(self) -> Iterator[Stimulus]:
        """Every video that somebody saw, by number."""
        captions = self._captions()
        shown = {int(video) for who in self.people for one in self._sessions(who) for video in one.stimulus}
        for video in sorted(shown):
            is_test = video > NUM_TRAIN
            yield Stimulus(
                stimulus_id=_id(video),
                film="test" if is_test else "train",
                onset_s=(video - 1 - NUM_TRAIN * is_test) * VIDEO_S,
                length_s=VIDEO_S,
                group=_id(video),
                caption=captions.get(video, ""),
                targets=self._frames(video),
            )

    def recordings(self) -> Iterator[Recording]:
        """Every session of every subject (or every repeat); each showing of a video is a row of its own."""
        for subject in self.people:
            yield from recordings(
                subject, lambda who=subject: self._sessions(who), self._norm, trial_s=TRIAL_S, name=_id
            )

    def notes(self) -> dict[str, object]:
        """What the manifest remembers."""
        scaled = ", scaled by the session's training trials (ddof 1)" if self.betas == "prepared" else ""
        return {
            "licence": "brain data CC0; videos under the terms of Moments in Time, no redistribution",
            "preprocessing": f"version B: fMRIPrep, GLMsingle betas of type D{scaled}",
            "kind": "betas",
            "norm": self._norm,
            "norm_rule": NORM_RULES[self._norm],
            "tr_s": f"{TRIAL_S:g}: the time from trial to trial, as betas have no clock",
            "voxel_order": "grayordinates of fsLR 91k, those of mask_file if there is one, ascending",
        }

    @property
    def _norm(self) -> str:
        return self.norm or ("session" if self.betas == "glm" else "none")

    def _sessions(self, subject: str) -> Iterator[Session]:
        if self.betas == "glm":
            return glm_sessions(Path(self.folder), subject, self.sessions, self._mask)
        return prepared_sessions(Path(self.folder), subject, self._mask)

    @cached_property
    def _mask(self) -> NDArray[np.bool_] | None:
        return None if self.mask_file is None else read_array(Path(self.mask_file)).ravel() > 0

    def _frames(self, video: int) -> dict[str, NDArray[np.uint8]]:
        if self.videos_folder is None:
            return {}
        part = "test" if video > NUM_TRAIN else "train"
        times_s = np.arange(self.num_frames) * (VIDEO_S / self.num_frames)
        return {"frames": frames_at(Path(self.videos_folder) / part / f"{video:04d}.mp4", times_s, self.size_px)}

    def _captions(self) -> dict[int, str]:
        """Video -> what the first annotator wrote."""
        if self.captions_file is None:
            return {}
        path = Path(self.captions_file)
        if not path.is_file():
            raise DataError(f"there is no file {path}; correct source.captions_file")
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return {int(number): str(about["text_descriptions"][0]) for number, about in found.items()}
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise DataError(
                f"{path.name} is not the annotations.json of ds005165 ({type(error).__name__}: {error}), expected "
                "text_descriptions under each video's number; fetch it again"
            ) from None


def _id(video: int) -> str:
    """``vid0001`` … ``vid1102``, as the authors name them."""
    return f"vid{video:04d}"
