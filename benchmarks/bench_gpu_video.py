"""Six seconds of video, three clips of 16 frames generated together, from blurry videos and keyframes to frames."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cineray.serving.generators.animatediff import AnimateDiff, AnimateDiffConfig
from cineray.serving.generators.base import Condition
from cineray.serving.generators.shapes import CONTEXT, full_size_animatediff

__all__ = ["CASES", "CLIPS", "Case", "measure", "time_videos"]

CLIPS = 3
WARM_UP, REPEATS = 2, 5


@dataclass(frozen=True)
class Case:
    """One goal's settings of the generator."""

    what: str
    tiny: bool
    settings: dict[str, Any] = field(default_factory=dict)


FEW: dict[str, Any] = {"scheduler": "lcm", "steps": 4, "guidance": 1.0, "compiled": True}
CASES = {
    "perf.G10": Case("512 px, 25 steps with guidance, full autoencoder", False, {"size": 512}),
    "perf.G11": Case("512 px, 4 steps, tiny autoencoder, compiled", True, {"size": 512, **FEW}),
    "perf.G12": Case("256 px, 4 steps, tiny autoencoder, compiled", True, {"size": 256, **FEW}),
}


def settings_of(case: Case) -> AnimateDiffConfig:
    """Every step runs (``alpha_mode=released``), so that no figure profits from a start close to the blurry video."""
    common = {"alpha_mode": "released", "precision": "bfloat16", "clips_together": CLIPS}
    return AnimateDiffConfig.parse(common | case.settings)


def measure(case: Case, device: torch.device) -> float:
    """Seconds of the goal's video."""

    def text(texts: Sequence[str]) -> Tensor:
        return torch.zeros(len(texts), *CONTEXT, device=device)

    def keyframer(conditions: Sequence[Condition]) -> NDArray[np.uint8]:
        raise AssertionError("keyframes are given here")

    generator = full_size_animatediff(settings_of(case), tiny=case.tiny, device=device, keyframer=keyframer, text=text)
    return time_videos(generator)


def time_videos(generator: AnimateDiff) -> float:
    """Median seconds of `CLIPS` clips; what comes back is on the host, so the device is done."""
    rng, size = np.random.default_rng(0), generator.settings.size
    conditions = [
        Condition(blurry=rng.integers(0, 256, (6, 224, 224, 3), dtype=np.uint8), caption="a clip", seed=k)
        for k in range(CLIPS)
    ]
    keyframes = rng.integers(0, 256, (CLIPS, size, size, 3), dtype=np.uint8)
    seconds = []
    for _ in range(WARM_UP + REPEATS):
        start = time.perf_counter()
        generator.videos(conditions, keyframes)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[WARM_UP:])
