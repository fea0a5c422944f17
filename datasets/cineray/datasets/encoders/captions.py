"""Captions of pictures, stored as text a decoder's prompt can be read from."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from cineray.datasets.dataset import Dataset
from cineray.datasets.encoders.base import PretrainedSettings, chosen, frame_axes, frames_spec
from cineray.datasets.encoders.loading import load_whole
from cineray.datasets.schema import TensorSpec

__all__ = ["Blip", "BlipConfig", "as_bytes", "as_text"]


class BlipConfig(PretrainedSettings):
    """Settings of the BLIP captioner (arXiv 2201.12086) in transformers; ``part`` holds its processors, too."""

    reads_frames: ClassVar[bool] = True
    name: Literal["blip"] = "blip"
    target: str = "caption_text"
    frame: int | Literal["first", "middle"] = "middle"
    num_bytes: int = 256
    """Longer captions are cut at a character."""
    max_tokens: int = 30
    num_beams: int = 3

    def spec(self, dataset: Dataset) -> TensorSpec:
        """(bytes,) of utf-8, padded with zeros."""
        frame_axes(frames_spec(dataset), self.frame)
        return TensorSpec("uint8", (self.num_bytes,), "bytes", "utf-8")

    def build(self, device: torch.device | str) -> "Blip":
        """Load network, image processor and tokenizer."""
        from transformers import AutoImageProcessor, AutoTokenizer, BlipForConditionalGeneration

        model = load_whole(BlipForConditionalGeneration, self.folder, dtype=self.dtype)
        pictures = AutoImageProcessor.from_pretrained(self.folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
        return Blip(self, model.eval().to(device), pictures, tokenizer)


class Blip:
    """BLIP's captioner, frozen; beam search, nothing drawn."""

    def __init__(self, config: BlipConfig, model: Any, processor: Any, tokenizer: Any) -> None:
        self._config, self._model, self._processor, self._tokenizer = config, model, processor, tokenizer

    def encode(self, frames: NDArray[np.uint8], captions: Sequence[str]) -> NDArray[np.uint8]:
        """(rows, frames, height, width, 3) to (rows, bytes); the stimuli's own captions are not read."""
        config = self._config
        pictures = torch.from_numpy(chosen(frames, config.frame)[:, 0]).permute(0, 3, 1, 2).contiguous()
        pixels = self._processor(images=pictures, return_tensors="pt", input_data_format="channels_first").pixel_values
        with torch.inference_mode():
            tokens = self._model.generate(
                pixels.to(self._model.device, config.dtype),
                max_new_tokens=config.max_tokens,
                num_beams=config.num_beams,
                do_sample=False,
            )
        return as_bytes(self._tokenizer.batch_decode(tokens, skip_special_tokens=True), config.num_bytes)


def as_bytes(texts: Iterable[str], num_bytes: int) -> NDArray[np.uint8]:
    """Texts to (rows, bytes): utf-8, cut at a character, padded with zeros."""
    cut = (text.strip().encode()[:num_bytes].decode(errors="ignore").encode() for text in texts)
    return np.stack([np.frombuffer(text.ljust(num_bytes, b"\0"), np.uint8) for text in cut])


def as_text(values: NDArray[np.uint8]) -> list[str]:
    """What `as_bytes` wrote."""
    return [row.tobytes().rstrip(b"\0").decode() for row in values]
