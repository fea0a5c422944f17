"""A small source of clips in colour: what the tests of features ingest."""

from collections.abc import Iterator
from typing import Literal

import numpy as np

from cineray.core.config import Config
from cineray.datasets.schema import TensorSpec
from cineray.datasets.sources.base import Recording, Stimulus


class ClipSource(Config):
    """Random frames and numbered captions; one subject who saw every clip."""

    name: Literal["clip"] = "clip"
    clips: int = 10
    frames: int = 3
    side: int = 32
    seed: int = 0
    shift: float = 0.0
    """Added to the brain: other samples of the same stimuli."""

    def targets(self) -> dict[str, TensorSpec]:
        shape = (self.frames, self.side, self.side, 3)
        return {"frames": TensorSpec("uint8", shape, "frames height width channels", "sRGB")}

    def pixels(self) -> np.ndarray:
        """(clips, frames, height, width, 3)."""
        rng = np.random.default_rng(self.seed)
        return rng.integers(0, 256, (self.clips, self.frames, self.side, self.side, 3), np.uint8)

    def stimuli(self) -> Iterator[Stimulus]:
        for i, frames in enumerate(self.pixels()):
            yield Stimulus(f"clip-{i}", "film", 2.0 * i, 2.0, f"clip-{i}", f"picture {i}", {"frames": frames})

    def recordings(self) -> Iterator[Recording]:
        onset_s = 2.0 * np.arange(self.clips)
        brain = np.random.default_rng(1).standard_normal((self.clips, 4)) + self.shift * onset_s[:, None]
        shown: list[str | None] = [f"clip-{i}" for i in range(self.clips)]
        yield Recording("sub-1", "run-1", 0, 2.0, brain, onset_s, shown, np.zeros(self.clips))

    def notes(self) -> dict[str, object]:
        return {}
