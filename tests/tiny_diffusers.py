"""Random models of the pretrained parts' classes, a few thousand weights each, saved as the published ones are."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLLTXVideo,
    AutoencoderTiny,
    FlowMatchEulerDiscreteScheduler,
    LTXVideoTransformer3DModel,
    MotionAdapter,
    SparseControlNetModel,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, PreTrainedTokenizerFast, T5Config, T5EncoderModel

__all__ = ["UNCLIP_SHAPE", "save_adapter", "save_animatediff", "save_ltx", "save_unclip"]

DIM = 16
SHAPE: dict[str, Any] = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
UNET: dict[str, Any] = SHAPE | {
    "cross_attention_dim": DIM,
    "attention_head_dim": 2,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "sample_size": 8,
}
MOTION: dict[str, Any] = {"motion_layers_per_block": 1, "motion_num_attention_heads": 2, "motion_norm_num_groups": 4}
CONTROL: dict[str, Any] = SHAPE | {
    "cross_attention_dim": DIM,
    "attention_head_dim": 2,
    "down_block_types": ("CrossAttnDownBlockMotion", "DownBlockMotion"),
    "motion_num_attention_heads": 2,
}
AUTOENCODER: dict[str, Any] = SHAPE | {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "latent_channels": 4,
}
UNCLIP_SHAPE: dict[str, Any] = {
    "block_out_channels": (8, 8, 16),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 1, 2),
    "attention_head_dim": (1, 2, 4),
    "norm_num_groups": 4,
    "use_linear_projection": True,
    "cross_attention_dim": DIM,
    "class_embed_type": "projection",
    "projection_class_embeddings_input_dim": 1024,
    "sample_size": 8,
}
"""The published engine's layout at another width."""


def random(model: Any, seed: int) -> Any:
    """Weights that let everything through: parts that start at zero (motion, SparseCtrl) act too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            if weight.ndim > 1:
                weight.copy_(torch.randn(weight.shape, generator=generator) * (0.7 / weight[0].numel() ** 0.5))
            else:
                weight.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
    return model


def save_text(folder: Path) -> None:
    words = {word: k for k, word in enumerate(["<|startoftext|>", "<|endoftext|>", *map(chr, range(97, 123))])}
    words |= {f"{chr(k)}</w>": len(words) + k - 97 for k in range(97, 123)}
    CLIPTokenizer(vocab=words, merges=[], model_max_length=12).save_pretrained(folder / "tokenizer")
    config = CLIPTextConfig(
        vocab_size=len(words), hidden_size=DIM, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=12, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    random(CLIPTextModel(config), 1).save_pretrained(folder / "text_encoder")


def save_animatediff(folder: Path) -> dict[str, dict[str, str]]:
    """The parts of the AnimateDiff generator by the names of its settings."""
    save_text(folder / "base")
    random(AutoencoderKL(**AUTOENCODER), 2).save_pretrained(folder / "base" / "vae")
    random(UNet2DConditionModel(**UNET), 3).save_pretrained(folder / "base" / "unet")
    motion = MotionAdapter(block_out_channels=SHAPE["block_out_channels"], use_motion_mid_block=False, **MOTION)
    random(motion, 4).save_pretrained(folder / "motion")
    random(SparseControlNetModel(**CONTROL), 5).save_pretrained(folder / "control")
    tiny = AutoencoderTiny(
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1), latent_channels=4,
    )  # fmt: skip
    random(tiny, 6).save_pretrained(folder / "tiny")
    names = {"base": "base", "unet": "base", "motion": "motion", "control": "control"}
    return {name: {"folder": str(folder / place)} for name, place in names.items()}


def save_unclip(folder: Path) -> dict[str, object]:
    """Settings of the unCLIP engine."""
    random(UNet2DConditionModel(**UNCLIP_SHAPE), 7).save_pretrained(folder / "unclip")
    random(AutoencoderKL(**AUTOENCODER, scaling_factor=0.13025), 8).save_pretrained(folder / "sdxl-vae")
    parts = {"unet": {"folder": str(folder / "unclip")}, "vae": {"folder": str(folder / "sdxl-vae")}}
    return {"name": "unclip", "steps": 3, "size": 16, **parts}


def save_adapter(folder: Path, unet: Path, dim: int = 6) -> dict[str, object]:
    """Settings of the IP-Adapter, and its weights for the UNet saved before: key and value a cross-attention layer."""
    config = json.loads((unet / "config.json").read_text())
    model = UNet2DConditionModel.from_config(config)
    generator = torch.Generator().manual_seed(9)
    weights = {
        "image_proj.proj.weight": torch.randn(4 * DIM, dim, generator=generator),
        "image_proj.proj.bias": torch.zeros(4 * DIM),
        "image_proj.norm.weight": torch.ones(DIM),
        "image_proj.norm.bias": torch.zeros(DIM),
    }
    layers = dict(model.named_modules())
    for k, name in enumerate(model.attn_processors):
        if name.endswith("attn2.processor"):
            width = layers[name.removesuffix(".processor")].to_k.weight.shape[0]
            for part in ("to_k_ip", "to_v_ip"):
                weights[f"ip_adapter.{k}.{part}.weight"] = torch.randn(width, DIM, generator=generator)
    (folder / "models").mkdir(parents=True)
    save_file(weights, folder / "models" / "adapter.safetensors")
    adapter = {"adapter": {"folder": str(folder)}, "weights": "models/adapter.safetensors"}
    return {"name": "ip_adapter", "base": {"folder": str(unet.parent)}, "steps": 2, "size": 16, **adapter}


def save_ltx(folder: Path) -> dict[str, str]:
    """The folder of the video transformer's pipeline."""
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2, "a": 3, "dog": 4, "cat": 5}
    split = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    split.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=split, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    tokenizer.save_pretrained(folder / "tokenizer")
    text = T5Config(vocab_size=6, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    random(T5EncoderModel(text), 10).save_pretrained(folder / "text_encoder")
    transformer = LTXVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, cross_attention_dim=16,
        num_layers=1, caption_channels=8,
    )  # fmt: skip
    random(transformer, 11).save_pretrained(folder / "transformer")
    vae = AutoencoderKLLTXVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1), decoder_layers_per_block=(1, 1, 1, 1, 1),
    )  # fmt: skip
    random(vae, 12).save_pretrained(folder / "vae")
    FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.1).save_pretrained(folder / "scheduler")
    return {"folder": str(folder)}
