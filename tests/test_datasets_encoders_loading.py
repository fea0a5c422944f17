"""Pretrained weights are whole or refused: nothing is filled with chance."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from cineray.core.errors import ConfigError
from cineray.datasets.encoders.loading import load_open_clip, load_whole
from tiny_encoders import TOWER, open_clip


@pytest.fixture
def folder(tmp_path):
    CLIPVisionModelWithProjection(CLIPVisionConfig(**TOWER, projection_dim=8)).save_pretrained(tmp_path)
    return tmp_path


def test_whole_weights_are_those_of_the_folder(folder):
    model = load_whole(CLIPVisionModelWithProjection, folder)
    stored = load_file(folder / "model.safetensors")
    assert stored
    for name, value in stored.items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=0)


def test_a_missing_tensor_is_one_sentence(folder):
    stored = load_file(folder / "model.safetensors")
    del stored["visual_projection.weight"]
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ConfigError, match=r"no fitting weights for 'visual_projection.weight' of CLIPVision.* \(1 such"
    ):
        load_whole(CLIPVisionModelWithProjection, folder)


def test_an_open_clip_folder_without_weights_is_one_sentence(tmp_path):
    open_clip(tmp_path)
    assert sum(p.numel() for p in load_open_clip(tmp_path).parameters())
    (tmp_path / "open_clip_model.safetensors").unlink()
    with pytest.raises(ConfigError, match="holds no whole OpenCLIP model"):
        load_open_clip(tmp_path)
