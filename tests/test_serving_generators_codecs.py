"""Codecs undo the encoders of the same name."""

import cv2
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny

from cineray.core.errors import ConfigError
from cineray.core.pretrained import Part
from cineray.datasets.encoders.pool import PoolConfig
from cineray.datasets.encoders.taef2 import Taef2Config, make_decoder
from cineray.datasets.encoders.vae import VaeConfig
from cineray.serving.generators.codecs import AutoencoderCodecConfig, PoolCodecConfig, Taef2CodecConfig
from tiny_encoders import kl, tiny_kl

EXPECTED_DB = {"cat.bmp": 30.5, "bird.bmp": 28.4, "parrot.jpg": 23.7}
"""Round trip at 128 px, as the weights' own page states it."""


def test_pooled_flat_pictures_come_back():
    frames = np.repeat(np.arange(0, 250, 50, dtype=np.uint8), 16 * 16 * 3).reshape(1, 5, 16, 16, 3)
    latents = torch.from_numpy(PoolConfig(factor=4).build("cpu").encode(frames, [""]))[0]
    np.testing.assert_array_equal(PoolCodecConfig().build(size=(16, 16), device="cpu").decode(latents), frames[0])


@pytest.mark.parametrize("make", [kl, tiny_kl])
def test_an_autoencoder_decodes_what_its_encoder_stored(tmp_path, make):
    """By diffusers alone, there and back; the autoencoder shifts its latents as well as scaling them."""
    torch.manual_seed(0)
    make(tmp_path)
    part = Part(folder=str(tmp_path))
    frames = np.random.default_rng(0).integers(0, 256, (1, 2, 16, 16, 3), dtype=np.uint8)
    latents = torch.from_numpy(VaeConfig(part=part).build("cpu").encode(frames, [""]))[0]
    found = AutoencoderCodecConfig(part=part).build(size=(16, 16), device="cpu").decode(latents)
    model = (AutoencoderKL if make is kl else AutoencoderTiny).from_pretrained(tmp_path).eval()
    with torch.no_grad():
        coded = model.encode(torch.from_numpy(frames[0]).permute(0, 3, 1, 2) / 127.5 - 1)
        there = coded.latent_dist.mode() if make is kl else coded.latents
        expected = ((model.decode(there).sample.clamp(-1, 1) + 1) * 127.5).permute(0, 2, 3, 1)
    np.testing.assert_allclose(found, expected.numpy(), atol=1.1)


@pytest.mark.parametrize("name", EXPECTED_DB)
def test_the_tiny_autoencoder_has_its_published_quality(name, data_folder):
    part = Part(folder=str(data_folder("weights_taef2")))
    pixels = cv2.imread(str(data_folder("images") / name))[..., ::-1]
    side = min(pixels.shape[:2])
    top, left = ((length - side) // 2 for length in pixels.shape[:2])
    square = pixels[top : top + side, left : left + side]
    frames = np.ascontiguousarray(cv2.resize(square, (128, 128), interpolation=cv2.INTER_AREA))[None, None]
    latents = torch.from_numpy(Taef2Config(part=part).build("cpu").encode(frames, [""]))[0]
    found = Taef2CodecConfig(part=part).build(size=(128, 128), device="cpu").decode(latents)
    error = ((found[0].astype(float) - frames[0, 0]) ** 2).mean()
    assert 10 * np.log10(255**2 / error) == pytest.approx(EXPECTED_DB[name], abs=0.3)


def test_the_tiny_decoder_is_read_and_a_missing_one_is_one_sentence(tmp_path):
    decoder = make_decoder()
    torch.save(decoder.state_dict(), tmp_path / "taef2_decoder.pth")
    latents = torch.randn(2, 32, 2, 2)
    found = Taef2CodecConfig(part=Part(folder=str(tmp_path))).build(size=(16, 16), device="cpu").decode(latents)
    with torch.no_grad():
        expected = (decoder(latents).clamp(0, 1) * 255).round().permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(found, expected, atol=1)
    with pytest.raises(ConfigError, match=r"found no folder '/.*/nowhere', .*codec\.name=pool"):
        Taef2CodecConfig(part=Part(folder="nowhere")).build(size=(16, 16), device="cpu")
