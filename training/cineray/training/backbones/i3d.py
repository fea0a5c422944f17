"""I3D on Kinetics-400 from the file in which nearly everybody's FVD has it: StyleGAN-V's ``i3d_torchscript.pt``."""

import hashlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from cineray.core.config import Config
from cineray.core.errors import ConfigError
from cineray.core.pretrained import Part, locate
from cineray.training.backbones.base import Backbone

__all__ = ["I3DConfig"]

FLAGS = {"rescale": True, "resize": True, "return_features": True}
"""What the file's own forward is told: bring 0 to 255 to -1 to 1, resize to 224 px, stop before the classes."""
AT_ONCE = 4
"""Videos in memory together: one has 16 frames of 224 px, and I3D's first maps are 64 times as deep."""


class I3DConfig(Config):
    """The features before the classes of the scripted network, frames evenly spread over the video.

    Resizing and scaling happen inside the file, which so is the whole implementation but for the distance itself. It
    holds a program: name only one that you trust.
    """

    name: Literal["i3d"] = "i3d"
    part: Part
    file: str = "i3d_torchscript.pt"
    """In the part's folder."""
    num_frames: int = Field(default=16, ge=9)
    """Frames it is given, some of them twice where the video has fewer. I3D halves time three times and takes two."""

    def build(self) -> Backbone:
        """Load the script; its digest stands in the name, as versions of the file differ."""
        path = locate(self.part, instead="without it fvd takes the network of the role video_classifier") / self.file
        network, digest = _scripted(path), hashlib.sha256(path.read_bytes()).hexdigest()[:12]

        def judge(videos: NDArray[np.uint8]) -> dict[str, Any]:
            moments = np.rint(np.linspace(0, videos.shape[1] - 1, self.num_frames)).astype(int)
            parts = [_features(network, videos[i : i + AT_ONCE, moments]) for i in range(0, len(videos), AT_ONCE)]
            return {"embedding": torch.cat(parts)}

        return Backbone(f"I3D {Path(self.file).name} sha256 {digest}, {self.num_frames} frames", judge, video=True)


def _features(network: Any, videos: NDArray[np.uint8]) -> Tensor:
    """(n, frames, height, width, 3) to (n, dim)."""
    values = torch.from_numpy(np.ascontiguousarray(videos)).permute(0, 4, 1, 2, 3).float()
    found = network(values, **FLAGS)
    if found.ndim != 2:
        raise ConfigError(f"the script gives {tuple(found.shape)} of {len(videos)} videos, expected (videos, values)")
    return found


def _scripted(path: Path) -> Any:
    if not path.is_file():
        raise ConfigError(f"found no '{path}', expected I3D as TorchScript; put it there, or name it in `file`")
    try:
        network = torch.jit.load(str(path), map_location="cpu").eval()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"{path} is no TorchScript ({reason}); take the published i3d_torchscript.pt") from None
    known = [argument.name for argument in network.forward.schema.arguments]
    if missing := [flag for flag in FLAGS if flag not in known]:
        raise ConfigError(
            f"{path} has no '{missing[0]}' among the arguments of its forward, expected rescale, resize and "
            "return_features; take the published i3d_torchscript.pt"
        )
    return network
