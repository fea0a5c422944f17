"""Image encoders trained with text: OpenCLIP's vision transformers, and CLIP or SigLIP as transformers has them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cineray.core.errors import ConfigError
from cineray.datasets.dataset import Dataset
from cineray.datasets.encoders.base import FrameChoice, PretrainedSettings, frame_axes, frames_spec
from cineray.datasets.encoders.images import by_frame, resized
from cineray.datasets.encoders.loading import load_open_clip, load_whole
from cineray.datasets.schema import TensorSpec

__all__ = ["UNIT", "HFClip", "HFClipConfig", "OpenClip", "OpenClipConfig", "open_clip_config", "range_unit"]

ImageRange = Literal["zero_one", "mindeye2"]
"""``mindeye2``: pictures are squeezed to [0.5, 1] before the network's own normalisation, as the published MindEye2,
NeuroClips and unCLIP weights saw them (specs: their embedder takes [-1, 1] and is given [0, 1]). Never mix the two."""
UNIT = "CLIP"
"""Of what transformers' towers compute, always of pictures as they are."""


class OpenClipConfig(PretrainedSettings):
    """Settings of a vision transformer of OpenCLIP; ``part`` is a folder with ``open_clip_config.json``."""

    reads_frames: ClassVar[bool] = True
    name: Literal["open_clip"] = "open_clip"
    target: str = "clip_tokens"
    output: Literal["tokens", "tokens_cls", "pooled"] = "tokens"
    """Patch tokens after the final layer norm, the same behind the class token, or the projected embedding."""
    image_range: ImageRange = "zero_one"
    frame: FrameChoice = "middle"

    def spec(self, dataset: Dataset) -> TensorSpec:
        """(tokens, width) or (dim,), behind ``frames`` where all are encoded."""
        config = open_clip_config(self.folder)
        vision = config["vision_cfg"]
        if not isinstance(vision.get("layers"), int) or "patch_size" not in vision:
            raise ConfigError(f"{self.folder} holds another network than a vision transformer; choose one of those")
        num_tokens = (vision["image_size"] // vision["patch_size"]) ** 2
        sizes = (num_tokens, vision["width"], config["embed_dim"])
        return _spec(self, sizes, range_unit(self.image_range), dataset)

    def build(self, device: torch.device | str) -> "OpenClip":
        """Load the network."""
        return OpenClip(self, load_open_clip(self.folder).visual, torch.device(device))


class OpenClip:
    """OpenCLIP's image tower, frozen."""

    def __init__(self, config: OpenClipConfig, visual: Any, device: torch.device) -> None:
        self._config, self._device = config, device
        self._visual = visual.eval().to(device, config.dtype)
        how = visual.preprocess_cfg
        if how["resize_mode"] not in ("shortest", "squash") or how["interpolation"] != "bicubic":
            raise ConfigError(
                f"found pictures resized by '{how['resize_mode']}', {how['interpolation']}, expected 'shortest' or "
                "'squash', bicubic; choose another network"
            )
        self._squash = how["resize_mode"] == "squash"
        self._mean, self._sd = (torch.tensor(how[k], device=device).view(3, 1, 1) for k in ("mean", "std"))
        self._size = visual.image_size[0]

    def encode(self, frames: NDArray[np.uint8], captions: Sequence[str]) -> NDArray[np.float16]:
        """(rows, frames, height, width, 3) to tokens or embeddings; captions are not read."""
        return by_frame(frames, self._config.frame, self._encoded, self._device)

    def _encoded(self, pictures: Tensor) -> Tensor:
        pixels = resized(pictures, self._size, squash=self._squash).float() / 255
        if self._config.image_range == "mindeye2":
            pixels = (pixels + 1) / 2
        pixels = ((pixels - self._mean) / self._sd).to(self._config.dtype)
        if self._config.output == "pooled":
            return self._visual(pixels)
        found = self._visual.forward_intermediates(
            pixels,
            indices=1,
            normalize_intermediates=True,
            intermediates_only=True,
            output_fmt="NLC",
            output_extra_tokens=True,
        )
        (tokens,), (cls,) = found["image_intermediates"], found["image_intermediates_prefix"]
        return torch.cat([cls, tokens], 1) if self._config.output == "tokens_cls" else tokens


class HFClipConfig(PretrainedSettings):
    """Settings of CLIP's or SigLIP's image tower in transformers; ``part`` holds its image processor, too.

    Where a CLIP has none, pictures are prepared as CLIP's own are.
    """

    reads_frames: ClassVar[bool] = True
    name: Literal["hf_clip"] = "hf_clip"
    target: str = "clip_tokens"
    output: Literal["tokens", "tokens_cls", "projected", "pooled"] = "tokens"
    """Patch tokens of the last layer, the same behind the class token (after which SigLIP has none); all tokens through
    the final norm and CLIP's projection (the 257 x 768 of Versatile Diffusion); or the embedding of the picture."""
    frame: FrameChoice = "middle"

    def spec(self, dataset: Dataset) -> TensorSpec:
        """(tokens, width) or (dim,), behind ``frames`` where all are encoded."""
        config = self._vision()
        if self._siglip and self.output in ("tokens_cls", "projected"):
            raise ConfigError(f"found output={self.output}, expected 'tokens' or 'pooled': SigLIP has no class token")
        width = config.hidden_size
        dim = width if self._siglip else config.projection_dim
        return _spec(self, ((config.image_size // config.patch_size) ** 2, width, dim), UNIT, dataset)

    def build(self, device: torch.device | str) -> "HFClip":
        """Load the network and its image processor."""
        from transformers import CLIPVisionModelWithProjection, SiglipVisionModel

        kind = SiglipVisionModel if self._siglip else CLIPVisionModelWithProjection
        model = load_whole(kind, self.folder, dtype=self.dtype)
        return HFClip(self, model, self._processor(), torch.device(device))

    @property
    def _siglip(self) -> bool:
        from transformers import AutoConfig

        kind = AutoConfig.from_pretrained(self.folder, local_files_only=True).model_type
        if not kind.startswith(("clip", "siglip")):
            raise ConfigError(f"{self.folder} holds a '{kind}' model, expected CLIP or SigLIP; choose one of those")
        return kind.startswith("siglip")

    def _processor(self) -> Any:
        from transformers import AutoImageProcessor, CLIPImageProcessor

        if self._siglip or (self.folder / "preprocessor_config.json").is_file():
            return AutoImageProcessor.from_pretrained(self.folder, local_files_only=True)
        # IP-Adapter publishes its image encoder as config and weights alone, and reads pictures by this class, whose
        # other defaults are the preprocessing published with CLIP.
        side = self._vision().image_size
        return CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})

    def _vision(self) -> Any:
        from transformers import CLIPVisionConfig, SiglipVisionConfig

        kind = SiglipVisionConfig if self._siglip else CLIPVisionConfig
        return kind.from_pretrained(self.folder, local_files_only=True)


class HFClip:
    """The image tower of CLIP or SigLIP, frozen, behind its own image processor."""

    def __init__(self, config: HFClipConfig, model: nn.Module, processor: Any, device: torch.device) -> None:
        self._config, self._device, self._processor = config, device, processor
        self._model: Any = model.eval().to(device)

    def encode(self, frames: NDArray[np.uint8], captions: Sequence[str]) -> NDArray[np.float16]:
        """(rows, frames, height, width, 3) to tokens or embeddings; captions are not read."""
        return by_frame(frames, self._config.frame, self._encoded, self._device)

    def _encoded(self, pictures: Tensor) -> Tensor:
        pixels = self._processor(images=pictures, return_tensors="pt", input_data_format="channels_first")
        found = self._model(pixels.pixel_values.to(self._config.dtype))
        if self._config.output == "pooled":
            return found.image_embeds if "image_embeds" in found else found.pooler_output
        tokens = found.last_hidden_state
        if self._config.output == "projected":
            return self._model.visual_projection(self._model.vision_model.post_layernorm(tokens))
        has_class = "image_embeds" in found
        return tokens[:, 1:] if has_class and self._config.output == "tokens" else tokens


def range_unit(image_range: ImageRange) -> str:
    """The unit of tokens and embeddings of pictures in that range."""
    return f"{UNIT}, image range {image_range}"


def open_clip_config(folder: Path) -> dict[str, Any]:
    """What OpenCLIP's folder says of the network: ``embed_dim``, ``vision_cfg``, ``text_cfg``."""
    path = folder / "open_clip_config.json"
    if not path.is_file():
        raise ConfigError(f"found no {path}, expected a model in OpenCLIP's layout; choose its folder")
    return json.loads(path.read_text(encoding="utf-8"))["model_cfg"]


def _spec(
    config: OpenClipConfig | HFClipConfig, sizes: tuple[int, int, int], unit: str, dataset: Dataset
) -> TensorSpec:
    """Of an image tower with so many patch tokens of such a width, and embeddings of such a dimension."""
    num_tokens, width, dim = sizes
    shape, axes = {
        "tokens": ((num_tokens, width), "tokens dim"),
        "tokens_cls": ((num_tokens + 1, width), "tokens dim"),
        "projected": ((num_tokens + 1, dim), "tokens dim"),
        "pooled": ((dim,), "dim"),
    }[config.output]
    first, words = frame_axes(frames_spec(dataset), config.frame)
    return TensorSpec("float16", (*first, *shape), f"{words}{axes}", unit)
