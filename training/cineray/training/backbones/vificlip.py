"""ViFi-CLIP's video features from a published checkpoint (Rasheed et al. 2023): CLIP's image side, mean over frames."""

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from cineray.core.config import Config
from cineray.core.content import Local
from cineray.core.errors import ConfigError
from cineray.training.backbones.base import IMAGENET, Backbone, as_pixels

__all__ = ["ViFiClipConfig"]

HEAD_WIDTH = 64
"""Of every ViT that OpenAI trained."""
RESIZE = 256 / 224
"""The short side before the centre is cut out, in units of the network's own size."""
SETTINGS = (OrderedDict, "yacs.config.CfgNode")
"""What is built for the training settings beside the weights, whose own class is never imported."""


class ViFiClipConfig(Config):
    """Frames evenly spread over the video, the centre of each, normalised as ImageNet; features averaged."""

    name: Literal["vifi_clip"] = "vifi_clip"
    weights_file: Local
    """As published: a torch file with ``model`` in it, of which nothing but tensors and plain values is read."""
    num_frames: int = Field(default=16, ge=1)

    def build(self) -> Backbone:
        """Sizes are read off the weights; every weight of the image side must be there and none beyond."""
        weights = _image_side(self.weights_file)
        network, px = _network(weights, self.weights_file)

        def judge(videos: NDArray[np.uint8]) -> dict[str, Tensor]:
            at = ((np.arange(self.num_frames) + 0.5) * videos.shape[1] / self.num_frames).astype(int)
            frames = [_centre(frame, px) for video in videos for frame in video[at]]
            features = network(as_pixels(np.stack(frames), px, IMAGENET))
            return {"embedding": features.view(len(videos), self.num_frames, -1).mean(1)}

        return Backbone(f"ViFi-CLIP {Path(self.weights_file).name}, {self.num_frames} frames", judge, video=True)


def _image_side(path: str) -> dict[str, Tensor]:
    """Weights below ``image_encoder.``, float32."""
    if not Path(path).expanduser().is_file():
        raise ConfigError(f"found no weights at '{path}', expected a checkpoint of ViFi-CLIP; put it there first")
    try:
        with torch.serialization.safe_globals([SETTINGS]):
            found = torch.load(Path(path).expanduser(), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ConfigError(
            f"{path} holds more than weights and settings, expected nothing but tensors and plain values; "
            "take the published file"
        ) from None
    if not isinstance(found, dict):
        raise ConfigError(
            f"{path} holds a {type(found).__name__}, expected a checkpoint of ViFi-CLIP: names and tensors"
        )
    weights = {name.removeprefix("module."): value for name, value in found.get("model", found).items()}
    prefix = "image_encoder."
    side = {name.removeprefix(prefix): value.float() for name, value in weights.items() if name.startswith(prefix)}
    if "conv1.weight" not in side or "positional_embedding" not in side:
        raise ConfigError(f"{path} holds no image_encoder.conv1.weight, expected a checkpoint of ViFi-CLIP with a ViT")
    return side


def _network(weights: dict[str, Tensor], path: str) -> tuple[torch.nn.Module, int]:
    """The image side and the size of its pictures."""
    from open_clip.transformer import QuickGELU, VisionTransformer

    width, _, _, patch = weights["conv1.weight"].shape
    px = patch * round((len(weights["positional_embedding"]) - 1) ** 0.5)
    layers = sum(name.endswith(".attn.in_proj_weight") for name in weights)
    dim = weights["proj"].shape[1]
    network = VisionTransformer(
        px, patch, width, layers, width // HEAD_WIDTH, mlp_ratio=4.0, output_dim=dim, act_layer=QuickGELU
    )
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"{path} is no ViFi-CLIP without prompts ({text:.200}); take the fine-tuned one") from None
    return network.eval(), px


def _centre(frame: NDArray[np.uint8], px: int) -> NDArray[np.uint8]:
    """The square in the middle, the short side resized a little beyond it first."""
    height, width = frame.shape[:2]
    short = int(RESIZE * px)
    scale = short / min(height, width)
    size = max(short, round(width * scale)), max(short, round(height * scale))
    frame = np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    top, left = (frame.shape[0] - px) // 2, (frame.shape[1] - px) // 2
    return frame[top : top + px, left : left + px]
