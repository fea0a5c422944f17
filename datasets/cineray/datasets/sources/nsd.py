"""The Natural Scenes Dataset (Allen et al. 2022): eight people, 73,000 photographs, one beta map a trial.

Everybody saw the same 1000 pictures and 9000 of one's own. The former are the film ``shared``, the test set; the
latter the film ``private``. Inside such a film pictures lie end to end in the order of a list: ``onset_s`` is a place
in it, so that blocks of it can be held out; it is not the time at which anybody saw them.
"""

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
from cineray.datasets.sources.betas import NORM_RULES, recordings
from cineray.datasets.sources.files import read_array
from cineray.datasets.sources.nsd_layouts import NsdLayout, Picture, PublicNsd, subject_number
from cineray.datasets.sources.nsd_mindeye import MindEye1, MindEye2
from cineray.datasets.video import square

__all__ = ["NsdConfig"]

PICTURE_S = 3.0
"""How long a picture stays."""

TRIAL_S = 4.0
"""From one picture to the next: what stands for a TR, so that minutes of training are minutes of trials."""

NUM_PICTURES = 73_000


class NsdConfig(Config):
    """Settings of the nsd source; docs/data.md says which files each layout needs."""

    name: Literal["nsd"] = "nsd"
    folder: str
    layout: Literal["public", "mindeye2", "mindeye1"] = "public"
    """The bucket itself, or one of the releases made from it."""
    subjects: tuple[str, ...] = ()
    """``subj01`` … ``subj08``; empty means all there are."""
    sessions: tuple[int, ...] = ()
    """Sessions to take, from 1; empty means all. Statistics see these sessions only. ``mindeye1`` has none."""
    product: str = "betas_fithrf_GLMdenoise_RR"
    """Kind of beta, of the public layout."""
    roi: str = "nsdgeneral"
    """Mask of the public layout, a file in ``func1pt8mm/roi``: voxels above 0 are kept."""
    norm: Literal["session", "train", "none"] | None = None
    """Scaling of each voxel by mean and sd (ddof 1) of the training trials of its session, or of all sessions taken.
    Shared pictures are never among them. None does what suits the layout: ``session`` for the bucket, ``none`` for the
    releases, which are scaled."""
    size_px: int | None = Field(default=224, ge=8)
    """Side of the stored pictures; None stores none."""
    captions_file: str | None = None
    """Array of words (73000, captions), e.g. ``COCO_73k_annots_curated.npy``; the first of each row is taken."""

    @model_validator(mode="after")
    def _mindeye1_has_no_sessions(self) -> "NsdConfig":
        if self.layout == "mindeye1" and (self.sessions or self.norm == "session"):
            raise ValueError("layout mindeye1 does not say which session a trial is of: leave sessions out, norm=none")
        return self

    @cached_property
    def people(self) -> list[str]:
        """The subjects taken."""
        there = self._layout.subjects()
        if unknown := [name for name in self.subjects if name not in there]:
            raise DataError(f"{self.folder} has no betas of {unknown[0]}; it has {', '.join(there) or 'none'}")
        if not there:
            raise DataError(f"{self.folder} has no subject of layout {self.layout}; correct source.folder or layout")
        return sorted(self.subjects or there, key=subject_number)

    def targets(self) -> dict[str, TensorSpec]:
        """The picture, as a film of one frame."""
        if self.size_px is None:
            return {}
        shape = (1, self.size_px, self.size_px, 3)
        return {"frames": TensorSpec("uint8", shape, "frames height width channels", "sRGB")}

    def stimuli(self) -> Iterator[Stimulus]:
        """Every picture that somebody saw."""
        captions = self._captions()
        placed = {"shared": 0, "private": 0}
        for picture in self._layout.pictures(self.people):
            film = "shared" if picture.is_shared else "private"
            yield Stimulus(
                stimulus_id=_id(picture.image),
                film=film,
                onset_s=placed[film] * PICTURE_S,
                length_s=PICTURE_S,
                group=_id(picture.image),
                caption="" if captions is None else str(captions[picture.image]),
                targets={} if self.size_px is None else {"frames": _frames(picture, self.size_px)},
            )
            placed[film] += 1

    def recordings(self) -> Iterator[Recording]:
        """Every session of every subject; each showing of a picture is a row of its own."""
        for subject in self.people:
            yield from recordings(
                subject, lambda who=subject: self._layout.sessions(who), self._norm, trial_s=TRIAL_S, name=_id
            )

    def notes(self) -> dict[str, object]:
        """What the manifest remembers."""
        return {
            "licence": "NSD terms of use: no redistribution",
            "preprocessing": self._layout.preprocessing,
            "kind": "betas",
            "norm": self._norm,
            "norm_rule": NORM_RULES[self._norm],
            "tr_s": f"{TRIAL_S:g}: the time from trial to trial, as betas have no clock",
            "voxels": {subject: dict(self._layout.voxels(subject)) for subject in self.people},
        }

    @cached_property
    def _layout(self) -> NsdLayout:
        folder = Path(self.folder)
        if self.layout == "public":
            return PublicNsd(folder, self.product, self.roi, self.sessions)
        return MindEye2(folder, self.sessions) if self.layout == "mindeye2" else MindEye1(folder)

    @property
    def _norm(self) -> str:
        return self.norm or self._layout.default_norm

    def _captions(self) -> NDArray[np.str_] | None:
        if self.captions_file is None:
            return None
        found = read_array(Path(self.captions_file), text=True)
        if found.ndim != 2 or len(found) != NUM_PICTURES:
            raise DataError(f"{self.captions_file} has shape {found.shape}, expected ({NUM_PICTURES}, captions)")
        return found[:, 0]


def _id(image: int) -> str:
    """Name of a picture by its row among the 73,000, from 0."""
    return f"nsd{image:05d}"


def _frames(picture: Picture, size_px: int) -> NDArray[np.uint8]:
    """(1, size_px, size_px, 3)."""
    pixels = picture.load()
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise DataError(
            f"picture {picture.image} is {pixels.dtype} {pixels.shape}, expected uint8 (height, width, 3); fetch the "
            "pictures again"
        )
    return square(pixels, size_px)[None]
