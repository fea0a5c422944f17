"""Captions in the space of CLIP: the pooled, projected text embedding, not normalised."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cineray.datasets.dataset import Dataset
from cineray.datasets.encoders.base import PretrainedSettings
from cineray.datasets.encoders.clip import open_clip_config
from cineray.datasets.encoders.loading import load_open_clip, load_whole
from cineray.datasets.schema import TensorSpec

__all__ = ["HFClipTextConfig", "OpenClipTextConfig", "Text"]


class OpenClipTextConfig(PretrainedSettings):
    """Settings of OpenCLIP's text tower; ``part`` is a folder with ``open_clip_config.json``."""

    reads_frames: ClassVar[bool] = False
    name: Literal["open_clip_text"] = "open_clip_text"
    target: str = "clip_text"

    def spec(self, dataset: Dataset) -> TensorSpec:
        """(dim,)."""
        return TensorSpec("float16", (open_clip_config(self.folder)["embed_dim"],), "dim", "CLIP")

    def build(self, device: torch.device | str) -> "Text":
        """Load network and tokenizer."""
        import open_clip

        name = f"local-dir:{self.folder}"
        model = load_open_clip(self.folder).eval().to(device, self.dtype)
        tokenizer: Any = open_clip.get_tokenizer(name)
        return Text(lambda captions: model.encode_text(tokenizer(captions).to(device)))


class HFClipTextConfig(PretrainedSettings):
    """Settings of CLIP's text tower in transformers; ``part`` holds its tokenizer, too."""

    reads_frames: ClassVar[bool] = False
    name: Literal["hf_clip_text"] = "hf_clip_text"
    target: str = "clip_text"

    def spec(self, dataset: Dataset) -> TensorSpec:
        """(dim,)."""
        from transformers import CLIPTextConfig

        config: Any = CLIPTextConfig.from_pretrained(self.folder, local_files_only=True)
        return TensorSpec("float16", (config.projection_dim,), "dim", "CLIP")

    def build(self, device: torch.device | str) -> "Text":
        """Load network and tokenizer."""
        from transformers import CLIPTextModelWithProjection, CLIPTokenizer

        model = load_whole(CLIPTextModelWithProjection, self.folder, dtype=self.dtype).eval().to(device)
        tokenizer = CLIPTokenizer.from_pretrained(self.folder, local_files_only=True)
        length = model.config.max_position_embeddings

        def embed(captions: list[str]) -> Tensor:
            found = tokenizer(captions, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
            return model(**found.to(device)).text_embeds

        return Text(embed)


class Text:
    """A frozen text tower."""

    def __init__(self, embed: Callable[[list[str]], Tensor]) -> None:
        self._embed = embed

    def encode(self, frames: NDArray[np.uint8], captions: Sequence[str]) -> NDArray[np.float16]:
        """One caption a row to (rows, dim); frames are not read."""
        with torch.inference_mode():
            return self._embed(list(captions)).to(torch.float16).cpu().numpy()
