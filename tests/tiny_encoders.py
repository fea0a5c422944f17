"""Pretrained parts of a few thousand weights, in the folders and by the code of the real ones."""

import json
from pathlib import Path
from typing import Any

import torch

from cineray.core.pretrained import Part
from cineray.datasets.encoders import ENCODERS
from cineray.datasets.encoders.base import EncoderSettings
from cineray.datasets.encoders.taef2 import make_encoder

SIDE = 32
TOWER = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 8,
}
LETTERS = {letter: number for number, letter in enumerate("abcdefghijklmnopqrstuvwxyz0123456789")}


def open_clip(folder: Path, width: int = 32) -> None:
    """OpenCLIP's own layout; its tokenizer is built in, so the words are as many as the real ones."""
    from open_clip.model import CLIP
    from safetensors.torch import save_file

    vision = {"image_size": SIDE, "layers": 2, "width": width, "head_width": 16, "patch_size": 8}
    text = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    model = CLIP(embed_dim=8, vision_cfg=vision, text_cfg=text)
    how = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28], "interpolation": "bicubic", "resize_mode": "shortest"}
    values = {"model_cfg": {"embed_dim": 8, "vision_cfg": vision, "text_cfg": text}, "preprocess_cfg": how}
    (folder / "open_clip_config.json").write_text(json.dumps(values))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")


def hf_clip(folder: Path) -> None:
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    CLIPVisionModelWithProjection(CLIPVisionConfig(**TOWER, projection_dim=8)).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}).save_pretrained(folder)


def siglip(folder: Path) -> None:
    from transformers import SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel

    SiglipVisionModel(SiglipVisionConfig(**TOWER)).save_pretrained(folder)
    SiglipImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)


def hf_clip_text(folder: Path) -> None:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

    words = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    vocab = {word: number for number, word in enumerate(words)}
    CLIPTokenizer(vocab=vocab, merges=[]).save_pretrained(folder)
    ends = {"bos_token_id": len(vocab) - 2, "eos_token_id": len(vocab) - 1, "pad_token_id": len(vocab) - 1}
    sizes = {k: v for k, v in TOWER.items() if k not in ("image_size", "patch_size")}
    config = CLIPTextConfig(**sizes, **ends, vocab_size=len(vocab), max_position_embeddings=16, projection_dim=8)
    CLIPTextModelWithProjection(config).save_pretrained(folder)


def kl(folder: Path) -> None:
    from diffusers import AutoencoderKL

    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    model = AutoencoderKL(**blocks, block_out_channels=(8, 16), norm_num_groups=4, shift_factor=0.1)
    model.save_pretrained(folder)


def tiny_kl(folder: Path) -> None:
    from diffusers import AutoencoderTiny

    sizes: dict[str, Any] = {f"{half}_block_out_channels": (8, 8) for half in ("encoder", "decoder")}
    AutoencoderTiny(**sizes, num_encoder_blocks=(1, 1), num_decoder_blocks=(1, 1)).save_pretrained(folder)


def taef2(folder: Path) -> None:
    torch.save({k: v.half() for k, v in make_encoder().state_dict().items()}, folder / "taef2_encoder.pth")


def blip(folder: Path) -> None:
    from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipImageProcessor

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    vocab = {word: number for number, word in enumerate(words)}
    tokenizer = BertTokenizer(vocab=vocab)
    tokenizer.save_pretrained(folder)
    BlipImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    ends = {"bos_token_id": vocab["[DEC]"], "sep_token_id": vocab["[SEP]"], "pad_token_id": vocab["[PAD]"]}
    sizes = {k: v for k, v in TOWER.items() if k not in ("image_size", "patch_size")}
    text = {**sizes, **ends, "eos_token_id": vocab["[SEP]"], "vocab_size": len(vocab), "encoder_hidden_size": 16}
    config = BlipConfig(text_config=text, vision_config=TOWER, projection_dim=8)
    BlipForConditionalGeneration(config).save_pretrained(folder)


MAKERS = {
    "open_clip": open_clip,
    "hf_clip": hf_clip,
    "open_clip_text": open_clip,
    "hf_clip_text": hf_clip_text,
    "vae": kl,
    "taef2": taef2,
    "blip": blip,
}
"""Encoder -> what makes a part of its kind; the others need none, but for `tflite`, which nothing here can make."""


def names() -> list[str]:
    """Every registered encoder that tests can make."""
    return [name for encoder in ENCODERS if (name := encoder.model_fields["name"].default) != "tflite"]


def tiny(name: str, folder: Path, **settings: Any) -> EncoderSettings:
    """Settings of an encoder with a part of random weights, always the same, in a folder of its own."""
    kind: Any = next(encoder for encoder in ENCODERS if encoder.model_fields["name"].default == name)
    if name in MAKERS:
        if not folder.exists():
            folder.mkdir(parents=True)
            torch.manual_seed(0)
            MAKERS[name](folder)
        settings["part"] = Part(folder=str(folder))
    return kind(**settings)
