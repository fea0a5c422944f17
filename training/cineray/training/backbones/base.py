"""A frozen network that judges: pixels of pictures or videos, or sentences, in; class scores and embeddings out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from cineray.core.errors import ConfigError, DataError

__all__ = [
    "IMAGENET",
    "OPENAI",
    "Backbone",
    "Moments",
    "Reads",
    "TextBackbone",
    "as_pixels",
    "output_of",
    "read_weights",
]

Reads = Literal["single pictures", "videos", "sentences"]

BATCH = 32
"""Pictures (or videos) that are judged together."""


@dataclass(frozen=True)
class Moments:
    """Mean and deviation that a network's inputs were normalised with, on the scale 0 to 1."""

    mean: tuple[float, float, float]
    sd: tuple[float, float, float]


IMAGENET = Moments((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OPENAI = Moments((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@dataclass(frozen=True, eq=False)
class Backbone:
    """Calls ``judge`` a batch at a time."""

    name: str
    """Class and weights, as a table names them."""
    judge: Callable[[NDArray[np.uint8]], Mapping[str, Any]]
    """(n, height, width, 3) or, for videos, (n, frames, height, width, 3) -> ``logits`` and/or ``embedding``."""
    num_classes: int | None = None
    video: bool = False
    """Whether it looks at whole videos."""
    classes: tuple[str, ...] = ()
    """Names of its classes, where it knows them."""

    @property
    def reads(self) -> Reads:
        """What it looks at."""
        return "videos" if self.video else "single pictures"

    def __call__(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """``logits`` (n, classes) and/or ``embedding`` (n, ...)."""
        axes = 5 if self.video else 4
        if pixels.dtype != np.uint8 or pixels.ndim != axes or pixels.shape[-1] != 3:
            raise DataError(
                f"{self.name}: found {pixels.dtype} {pixels.shape}, expected uint8 with {axes} axes, last of 3"
            )
        parts: dict[str, list[NDArray[np.float32]]] = {}
        with torch.inference_mode():
            for first in range(0, len(pixels), BATCH):
                for output, values in self.judge(pixels[first : first + BATCH]).items():
                    array = values.float().cpu().numpy() if isinstance(values, Tensor) else values
                    parts.setdefault(output, []).append(np.asarray(array, np.float32))
        return {output: np.concatenate(values) for output, values in parts.items()}


def output_of(found: Mapping[str, Any], output: str, network: str) -> Any:
    """``logits`` or ``embedding`` of what a network gave.

    Raises:
        ConfigError: it does not give that.
    """
    if output not in found:
        raise ConfigError(f"{network} gives {' and '.join(found)}, expected {output}; name a network that does")
    return found[output]


@dataclass(frozen=True, eq=False)
class TextBackbone:
    """Calls ``embed`` a batch at a time."""

    name: str
    """Class and weights, as a table names them."""
    embed: Callable[[list[str]], Tensor]
    """n sentences to (n, dim)."""
    reads: ClassVar[Reads] = "sentences"
    num_classes: ClassVar[None] = None

    def __call__(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """(n, dim)."""
        with torch.inference_mode():
            parts = [self.embed(list(sentences[i : i + BATCH])) for i in range(0, len(sentences), BATCH)]
        return torch.cat(parts).float().cpu().numpy()


def as_pixels(pictures: NDArray[np.uint8], px: int, moments: Moments, *, kernel: str = "bilinear") -> Tensor:
    """(n, height, width, 3) to float32 (n, 3, px, px): the whole picture resized, antialiased, then normalised."""
    values = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 255
    if values.shape[-2:] != (px, px):
        values = torch.nn.functional.interpolate(values, (px, px), mode=kernel, antialias=True).clamp(0, 1)
    mean, sd = (torch.tensor(x).view(3, 1, 1) for x in (moments.mean, moments.sd))
    return (values - mean) / sd


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """A state dict out of ``.safetensors`` or of a torch file that holds nothing but tensors."""
    path = Path(path).expanduser()
    if not path.is_file():
        raise ConfigError(f"found no weights at '{path}', expected a .safetensors or .pth file; put it there first")
    found = (
        load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    )
    found = found.get("state_dict", found)
    return {name.removeprefix("module."): value for name, value in found.items()}
