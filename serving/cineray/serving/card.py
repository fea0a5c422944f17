"""What a served run says about itself; small enough to stand in every process."""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Card"]


@dataclass(frozen=True)
class Card:
    """Name, subjects and targets of a finished run."""

    run: str
    fingerprint: str
    step: int
    """Optimiser step of the checkpoint being served."""
    voxels: Mapping[str, int]
    """Subject -> number of voxels."""
    targets: tuple[str, ...]
    """The first one is the default."""
    tr_s: float
    clip_s: float
    """Length of the clips the run was evaluated with."""

    def clip_scans(self, clip_s: float | None) -> int:
        """Scans in a clip of ``clip_s`` seconds (the evaluated length if None), at least one."""
        return max(1, round((self.clip_s if clip_s is None else clip_s) / self.tr_s))
