"""Networks that read sentences, out of transformers, by local folder or hub id."""

from typing import Literal

from torch import Tensor

from cineray.core.config import Config
from cineray.core.pretrained import Part, locate
from cineray.datasets.encoders.loading import load_whole
from cineray.training.backbones.base import TextBackbone
from cineray.training.backbones.hugging_face import INSTEAD

__all__ = ["HFClipTextConfig", "HFSentenceConfig"]


class HFSentenceConfig(Config):
    """A sentence encoder, e.g. all-MiniLM-L6-v2: the last layer's mean over words (Reimers & Gurevych 2019)."""

    name: Literal["hf_sentence"] = "hf_sentence"
    part: Part

    def build(self) -> TextBackbone:
        """Load the weights and the tokenizer beside them."""
        from transformers import AutoModel, AutoTokenizer

        folder = locate(self.part, instead=INSTEAD)
        network, tokenize = load_whole(AutoModel, folder).eval(), AutoTokenizer.from_pretrained(folder)

        def embed(sentences: list[str]) -> Tensor:
            words = tokenize(sentences, padding=True, truncation=True, return_tensors="pt")
            mask = words["attention_mask"][..., None]
            return (network(**words).last_hidden_state * mask).sum(1) / mask.sum(1)

        return TextBackbone(f"{type(network).__name__} {self.part.label}, mean over words", embed)


class HFClipTextConfig(Config):
    """CLIP's text side: the projected embedding."""

    name: Literal["hf_clip_text"] = "hf_clip_text"
    part: Part

    def build(self) -> TextBackbone:
        """Load the text side alone and the tokenizer beside it; long sentences are cut to the words it knows."""
        from transformers import AutoTokenizer, CLIPTextModelWithProjection

        folder = locate(self.part, instead=INSTEAD)
        network = load_whole(CLIPTextModelWithProjection, folder).eval()
        tokenize = AutoTokenizer.from_pretrained(folder)
        most = int(network.config.max_position_embeddings)

        def embed(sentences: list[str]) -> Tensor:
            words = tokenize(sentences, padding=True, truncation=True, max_length=most, return_tensors="pt")
            return network(input_ids=words["input_ids"], attention_mask=words["attention_mask"]).text_embeds

        return TextBackbone(f"CLIP text {self.part.label}", embed)
