"""Between pictures (uint8, sRGB, channels last) and the tensors of diffusion models (channels first, -1 to 1)."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from cineray.core.errors import DataError

__all__ = ["in_step", "noise", "to_frames", "to_tensor"]


def to_tensor(frames: NDArray[np.uint8], size: int) -> Tensor:
    """Frames (n, height, width, 3) to float32 (n, 3, size, size), -1 to 1; the whole frame, whatever its aspect."""
    x = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).to(torch.float32)
    if x.shape[-2:] != (size, size):
        x = F.interpolate(x, (size, size), mode="bilinear", antialias=True)
    return x / 127.5 - 1


def to_frames(x: Tensor) -> NDArray[np.uint8]:
    """Tensor (..., 3, height, width), -1 to 1 and clamped there, to frames uint8 (..., height, width, 3)."""
    if not torch.isfinite(x).all():
        raise DataError("a generator made numbers that are not finite; set its precision to float32 or bfloat16")
    levels = ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return levels.movedim(-3, -1).cpu().numpy()


def in_step(x: Tensor, num_frames: int) -> Tensor:
    """A video (frames, ...) in another number of frames, first and last kept, linear in between.

    6 frames become 16 as in NeuroClips: originals at 0, 3, ..., 15 and two mixtures between neighbours.
    """
    if len(x) == num_frames:
        return x
    places = torch.linspace(0, len(x) - 1, num_frames, dtype=torch.float64)
    before = places.floor().long().clamp(max=max(len(x) - 2, 0))
    after = (before + 1).clamp(max=len(x) - 1)
    weight = (places - before).to(x.dtype).view(-1, *[1] * (x.ndim - 1))
    return torch.lerp(x[before], x[after], weight)


def noise(generators: Sequence[torch.Generator], shape: Sequence[int], device: torch.device) -> Tensor:
    """Standard normal float32 (clips, *shape), each clip's from its own generator on the CPU: alike on every device."""
    return torch.stack([torch.randn(tuple(shape), generator=g) for g in generators]).to(device)
