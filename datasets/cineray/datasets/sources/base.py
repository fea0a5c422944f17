"""What a source must give: stimuli with their targets, and recordings on the same clock."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cineray.datasets.schema import TensorSpec

__all__ = ["Recording", "Source", "Stimulus"]


@dataclass(frozen=True)
class Stimulus:
    """A stretch of film, or one picture, with its targets."""

    stimulus_id: str
    film: str
    onset_s: float
    """Where it starts inside its film (0 for a picture)."""
    length_s: float
    group: str
    """What must never be divided between training and test: a scene, a category, a picture's repeats."""
    caption: str = ""
    targets: Mapping[str, NDArray] = field(default_factory=dict)
    """Target -> array of the shape and dtype that `Source.targets` states."""


@dataclass(frozen=True)
class Recording:
    """One run of one subject, as measured: nothing shifted, detrended or scaled yet.

    ``stimulus_id[i]`` and ``offset_s[i]`` say what was on the screen when scan ``i`` began (None and nan at rest);
    `cineray.datasets.signal` moves the pairing by the haemodynamic lag, never the arrays.
    """

    subject: str
    run: str
    repeat: int
    tr_s: float
    brain: NDArray[np.floating]
    """(scans, voxels)."""
    onset_s: NDArray[np.float64]
    """(scans,) seconds from the start of the run."""
    stimulus_id: list[str | None]
    offset_s: NDArray[np.float64]
    """(scans,) seconds from the stimulus's own start."""
    showings: tuple[tuple[float, str], ...] | None = None
    """(start in seconds of the run, stimulus id) of each showing, where the source has a log: it also knows what was
    shown before the first scan, whose response is measured all the same. None: the pairing above is all there is."""


class Source(Protocol):
    """Settings that can be read: each member of the union in ``sources/__init__`` has these."""

    @property
    def name(self) -> str:
        """The source's name in the registry."""
        ...

    def targets(self) -> dict[str, TensorSpec]:
        """The target columns of the stimulus table."""
        ...

    def stimuli(self) -> Iterator[Stimulus]:
        """Every stimulus once; ids are unique."""
        ...

    def recordings(self) -> Iterator[Recording]:
        """Every run of every subject; a subject's voxel count and order never change."""
        ...

    def notes(self) -> dict[str, object]:
        """What the manifest should remember: licence, atlas, preprocessing already done upstream."""
        ...
