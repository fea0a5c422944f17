"""A small source of clips in colour, and encoders that misbehave: what the tests of features work with."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

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


class OddConfig(Config):
    """An encoder that does not keep what its spec promises."""

    reads_frames: ClassVar[bool] = True
    version: ClassVar[int] = 1
    name: str = "odd"
    target: str = "odd"
    value: float = 0.0
    dtype: str = "float32"

    def spec(self, dataset):
        return TensorSpec("float32", (2,), "dim", "1")

    def build(self, device):
        return self

    def encode(self, frames, captions):
        if self.value < 0:
            raise ValueError("expected a number from 0 on")
        return np.full((len(captions), 2), self.value, self.dtype)


class SlowConfig(OddConfig):
    """Notes every batch it begins, takes its time, and dies (SIGKILL) the first time it begins with one caption."""

    log: str
    name: str = "slow"
    target: str = "slow"
    seconds: float = 0.0
    dies_at: str = ""

    @staticmethod
    def values(source: ClipSource) -> np.ndarray:
        """What it computes: sum of the pixels, number of the caption."""
        return np.stack([source.pixels().sum((1, 2, 3, 4)), np.arange(source.clips)], 1).astype(np.float32)

    def encode(self, frames, captions):
        with open(self.log, "a") as file:
            print(captions[0], file=file, flush=True)
        time.sleep(self.seconds)
        if captions[0] == self.dies_at and Path(self.log).read_text().split("\n").count(captions[0]) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return np.stack([[c.sum(), int(t.split()[1])] for c, t in zip(frames, captions, strict=True)]).astype("float32")


def carried_texture(num_frames, right_px, down_px, px=64):
    """A smooth texture that is carried so far a frame: (num_frames, px, px, 3)."""
    rng = np.random.default_rng(0)
    waves = [(rng.uniform(0.3, 0.8, 2) * rng.choice([-1, 1], 2), rng.uniform(0, 6.28)) for _ in range(12)]
    y, x = np.mgrid[:px, :px].astype(float)
    clip = np.empty((num_frames, px, px, 3), np.uint8)
    for frame in range(num_frames):
        at = x - right_px * frame, y - down_px * frame
        texture = sum(np.sin(wave[0] * at[0] + wave[1] * at[1] + phase) for wave, phase in waves)
        clip[frame] = (127.5 + 20 * texture).clip(0, 255)[..., None]
    return clip
