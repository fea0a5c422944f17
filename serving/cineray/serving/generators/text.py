"""Captions to the context of a Stable Diffusion model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cineray.core.pretrained import Part
from cineray.serving.generators.parts import Precision, load, part_folder

if TYPE_CHECKING:
    from transformers import CLIPTextModel, CLIPTokenizer

__all__ = ["TextEncoder", "load_text_encoder"]


@dataclass(frozen=True)
class TextEncoder:
    """CLIP's tokenizer and text tower."""

    tokenizer: "CLIPTokenizer"
    model: "CLIPTextModel"

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Texts to (texts, tokens, dim); longer texts are cut at the model's length."""
        length = self.model.config.max_position_embeddings
        coded: Any = self.tokenizer(
            list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        return self.model(coded.input_ids.to(self.model.device)).last_hidden_state


def load_text_encoder(part: Part, *, device: torch.device, precision: Precision) -> TextEncoder:
    """Tokenizer and encoder of a pipeline's folder."""
    from transformers import CLIPTextModel, CLIPTokenizer

    folder = part_folder(part, "tokenizer", wanted="tokenizer_config.json")
    tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    return TextEncoder(tokenizer, load(CLIPTextModel, part, "text_encoder", device=device, precision=precision))
