"""Where on the noise schedule a video starts, and how much of the blurry video is in it (NeuroClips, eq. 5)."""

from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

__all__ = ["PURE_NOISE", "AlphaMode", "Start", "start_of"]

AlphaMode = Literal["img2img", "paper", "released"]
"""How the blurry video enters; T is the first timestep of the grid, v the strength, a(t) the schedule's alpha-bar.

* ``img2img``: noised to timestep v·T and denoised from there, so that a small strength stays close to the video.
* ``paper``: eq. 5, the video taken for a sample at v·T and noised on to T: signal √(a(T)/a(vT)); every step runs.
* ``released``: noised to T as the public code does, whatever the strength; every step runs.
"""


@dataclass(frozen=True)
class Start:
    """The first sample is signal·latents + noise·normal, of variance-preserving scale, at timesteps[first]."""

    first: int
    signal: float
    noise: float

    def sample(self, scheduler: Any, latents: Tensor | None, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The first sample in the scheduler's own scale, and the timesteps to go."""
        timesteps = scheduler.timesteps[self.first :]
        mixed = self.noise * noise if latents is None else self.signal * latents + self.noise * noise
        # Schedulers that count in sigmas divide their samples by √(1 + sigma²) before the model sees them.
        return mixed / scheduler.scale_model_input(noise.new_ones(()), timesteps[0]), timesteps


PURE_NOISE = Start(0, 0.0, 1.0)


def start_of(scheduler: Any, mode: AlphaMode, strength: float) -> Start:
    """The start for a scheduler whose timesteps are set; at least one step runs."""
    grid = [int(t) for t in scheduler.timesteps]
    kept = [float(scheduler.alphas_cumprod[t]) for t in grid]
    if mode == "paper":
        nearest = min(range(len(grid)), key=lambda k: abs(grid[k] - strength * grid[0]))
        power = kept[0] / kept[nearest]
        return Start(0, power**0.5, (1 - power) ** 0.5)
    first = 0 if mode == "released" else len(grid) - max(1, int(len(grid) * strength))
    return Start(first, kept[first] ** 0.5, (1 - kept[first]) ** 0.5)
