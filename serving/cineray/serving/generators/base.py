"""What a generator is given for a clip and what it gives back; everything else is the generator's own affair."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Condition", "Generator"]


@dataclass(frozen=True, eq=False)
class Condition:
    """All that was decoded of one clip, and the seed of its noise.

    A generator that cannot do without a field that is None says so in a `DataError`; fields it has no use for it
    leaves alone.
    """

    tokens: Tensor | None = None
    """Predicted image tokens, float32 (tokens, dim)."""
    blurry: NDArray[np.uint8] | None = None
    """Blurry video, sRGB (frames, height, width, 3)."""
    latents: Tensor | None = None
    """Predicted latents that ``blurry`` was decoded from, float32 (frames, channels, height, width)."""
    flow: NDArray[np.float32] | None = None
    """Decoded motion (stretches, places, places, 2), as `cineray.serving.generators.warp.dense_flow` takes it."""
    caption: str = ""
    seed: int = 0
    """Of this clip alone: the result does not depend on the clips it is generated beside."""
    first_frame: NDArray[np.uint8] | None = None
    """Last frame of the clip before, sRGB (height, width, 3), where this clip goes on from it."""


class Generator(Protocol):
    """Conditions to pixels, in two steps: the keyframes can be looked at (and captioned) before the videos are made."""

    @property
    def fps(self) -> float:
        """Frames per second of the videos."""
        ...

    def keyframes(self, conditions: Sequence[Condition]) -> NDArray[np.uint8]:
        """One picture a clip, sRGB (clips, height, width, 3)."""
        ...

    def videos(self, conditions: Sequence[Condition], keyframes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """One video a clip, sRGB (clips, frames, height, width, 3), from its condition and its keyframe."""
        ...
