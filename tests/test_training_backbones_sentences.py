"""Networks that read sentences, against the classes they load, one sentence at a time."""

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from cineray.core.errors import ConfigError
from cineray.training.backbones import BackboneConfig

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "runs", "cat", "red", "green"]
SENTENCES = ["a dog runs", "a red cat", "green", "a a a a a a a dog"]


def build(name: str, folder):
    return TypeAdapter(BackboneConfig).validate_python({"name": name, "part": {"folder": str(folder)}}).build()


def test_a_sentence_is_the_mean_of_its_words(tmp_path):
    from transformers import BertConfig, BertModel, BertTokenizer

    torch.manual_seed(0)
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = BertTokenizer(str(tmp_path / "vocab.txt"))
    tokenizer.save_pretrained(tmp_path)
    small = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=32,
    )  # fmt: skip
    network = BertModel(small).eval()
    network.save_pretrained(tmp_path)
    backbone = build("hf_sentence", tmp_path)
    found = backbone(SENTENCES)
    assert backbone.reads == "sentences"
    for sentence, values in zip(SENTENCES, found, strict=True):
        numbers = [WORDS.index(w) for w in ("[CLS]", *sentence.split(), "[SEP]")]
        with torch.no_grad():
            hidden = network(input_ids=torch.tensor([numbers])).last_hidden_state[0]
        np.testing.assert_allclose(values, hidden.mean(0), atol=1e-5)


def test_clips_text_side_from_its_folder(tmp_path):
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

    torch.manual_seed(0)
    vocabulary = ["a</w>", "dog</w>", "runs</w>", "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={w: k for k, w in enumerate(vocabulary)}, merges=[])
    tokenizer.save_pretrained(tmp_path)
    small = CLIPTextConfig(
        vocab_size=5, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        projection_dim=6, max_position_embeddings=7, bos_token_id=3, eos_token_id=4, pad_token_id=4,
    )  # fmt: skip
    network = CLIPTextModelWithProjection(small).eval()
    network.save_pretrained(tmp_path)
    found = build("hf_clip_text", tmp_path)(["a", "a a a a a a a a a a a a"])
    with torch.no_grad():
        one = network(input_ids=torch.tensor([[3, 0, 4]])).text_embeds[0]
        cut = network(input_ids=torch.tensor([[3, 0, 0, 0, 0, 0, 4]])).text_embeds[0]
    np.testing.assert_allclose(found, torch.stack([one, cut]), atol=1e-5)


def test_a_missing_text_network_is_told(tmp_path):
    with pytest.raises(ConfigError, match="listed as absent"):
        build("hf_sentence", tmp_path / "nowhere")
