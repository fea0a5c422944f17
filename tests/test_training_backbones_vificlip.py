"""ViFi-CLIP's published layout of weights, on a tiny network: what is read, what is refused, what comes out."""

import sys
import types
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from cineray.core.errors import ConfigError
from cineray.training.backbones import BackboneConfig
from cineray.training.backbones.vificlip import ViFiClipConfig

VIDEOS = np.random.default_rng(0).integers(0, 256, (2, 6, 40, 56, 3), np.uint8)
BLOCK = {
    "attn.out_proj": "self_attn.out_proj", "ln_1": "layer_norm1", "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
}  # fmt: skip


@pytest.fixture(scope="module")
def network() -> Any:
    """Transformers' own CLIP: 2 layers of 128, pictures of 32 px."""
    torch.manual_seed(0)
    small = CLIPVisionConfig(
        hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512, image_size=32,
        patch_size=8, projection_dim=6, hidden_act="quick_gelu",
    )  # fmt: skip
    return CLIPVisionModelWithProjection(small).eval()


def published(network: Any) -> dict[str, torch.Tensor]:
    """Its weights under OpenAI's names, as ViFi-CLIP saves them, with parts that are not the image side."""
    own = {k.removeprefix("vision_model."): v for k, v in network.state_dict().items()}
    found = {
        "conv1.weight": own["embeddings.patch_embedding.weight"],
        "class_embedding": own["embeddings.class_embedding"],
        "positional_embedding": own["embeddings.position_embedding.weight"],
        "proj": own["visual_projection.weight"].T.contiguous(),
    }
    for side in ("weight", "bias"):
        found[f"ln_pre.{side}"], found[f"ln_post.{side}"] = own[f"pre_layrnorm.{side}"], own[f"post_layernorm.{side}"]
        for k in range(2):
            here, there = f"encoder.layers.{k}", f"transformer.resblocks.{k}"
            qkv = [own[f"{here}.self_attn.{x}_proj.{side}"] for x in "qkv"]
            found[f"{there}.attn.in_proj_{side}"] = torch.cat(qkv)
            found |= {f"{there}.{new}.{side}": own[f"{here}.{old}.{side}"] for new, old in BLOCK.items()}
    others = {"prompt_learner.complete_text_embeddings": torch.zeros(3), "logit_scale": torch.ones(())}
    return {f"module.{k}": v for k, v in ({f"image_encoder.{k}": v for k, v in found.items()} | others).items()}


@pytest.fixture
def settings(monkeypatch):
    """The class of the settings that the published files hold, in a module of the same name."""
    module, node = types.ModuleType("yacs.config"), type("CfgNode", (dict,), {"__module__": "yacs.config"})
    monkeypatch.setattr(module, "CfgNode", node, raising=False)
    monkeypatch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
    monkeypatch.setitem(sys.modules, "yacs.config", module)
    return node


def test_features_are_clips_mean_over_sixteen_frames(network, settings, tmp_path, monkeypatch):
    config: Any = settings(MODEL=settings(ARCH="ViT-B/16"))
    config.frozen = True
    torch.save({"model": published(network), "max_accuracy": 71.2, "epoch": 10, "config": config}, tmp_path / "v.pth")
    monkeypatch.delitem(sys.modules, "yacs.config")
    how = {"name": "vifi_clip", "weights_file": str(tmp_path / "v.pth")}
    backbone = TypeAdapter(BackboneConfig).validate_python(how).build()
    assert backbone.reads == "videos"
    at = [k * 6 // 32 for k in range(1, 32, 2)]
    mean, sd = (torch.tensor(x).view(3, 1, 1) for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    for video, values in zip(VIDEOS, backbone(VIDEOS)["embedding"], strict=True):  # type: ignore[call-overload]
        frames = [cv2.resize(video[k], (50, 36), interpolation=cv2.INTER_LINEAR)[2:34, 9:41] for k in at]
        ready = (torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2) / 255 - mean) / sd
        with torch.no_grad():
            expected = network(pixel_values=ready).image_embeds.mean(0)
        np.testing.assert_allclose(values, expected, atol=2e-5)


def test_other_checkpoints_are_refused(network, tmp_path):
    weights = published(network)
    torch.save({"model": weights | {"module.image_encoder.VPT": torch.zeros(4, 128)}}, tmp_path / "prompted.pth")
    with pytest.raises(ConfigError, match="without prompts"):
        ViFiClipConfig(weights_file=str(tmp_path / "prompted.pth")).build()
    torch.save({"model": {"module.fc.weight": torch.zeros(3)}}, tmp_path / "other.pth")
    with pytest.raises(ConfigError, match="expected a checkpoint of ViFi-CLIP with a ViT"):
        ViFiClipConfig(weights_file=str(tmp_path / "other.pth")).build()
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    with pytest.raises(ConfigError, match="holds a Tensor, expected a checkpoint of ViFi-CLIP"):
        ViFiClipConfig(weights_file=str(tmp_path / "tensor.pth")).build()
    with pytest.raises(ConfigError, match="found no weights"):
        ViFiClipConfig(weights_file=str(tmp_path / "nowhere.pth")).build()


class Harmful:
    def __reduce__(self):
        return print, ("ran",)


def test_nothing_in_a_checkpoint_is_run(network, tmp_path, capsys):
    torch.save({"model": published(network), "config": Harmful()}, tmp_path / "harmful.pth")
    with pytest.raises(ConfigError, match="nothing but tensors"):
        ViFiClipConfig(weights_file=str(tmp_path / "harmful.pth")).build()
    assert "ran" not in capsys.readouterr().out
