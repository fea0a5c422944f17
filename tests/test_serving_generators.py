"""What generators share: pictures, the start on the noise schedule, loading."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, MotionAdapter, UNet2DConditionModel

from cineray.core.errors import ConfigError
from cineray.core.pretrained import Part
from cineray.serving.generators.animatediff import SCHEDULERS
from cineray.serving.generators.autoencoder import load_autoencoder
from cineray.serving.generators.parts import load
from cineray.serving.generators.pictures import in_step, noise, to_frames, to_tensor
from cineray.serving.generators.start import PURE_NOISE, start_of

HEAVY = ("diffusers", "transformers", "open_clip", "sklearn", "torchvision")
CPU = torch.device("cpu")


def scheduler(name="ddim", steps=25):
    found = SCHEDULERS[name]()
    found.set_timesteps(steps)
    return found


def alpha_bar(t):
    """Product of 1 - beta up to t, beta linear from .00085 to .012 over 1000 steps."""
    return float(np.prod(1 - np.linspace(0.00085, 0.012, 1000)[: t + 1]))


def test_six_frames_become_sixteen_with_the_originals_at_every_third():
    video = torch.randn(6, 2, 3, dtype=torch.float64)
    longer = in_step(video, 16)
    assert len(longer) == 16
    for k in range(6):
        torch.testing.assert_close(longer[3 * k], video[k])
    for k in range(5):
        torch.testing.assert_close(longer[3 * k + 1], (2 * video[k] + video[k + 1]) / 3)
        torch.testing.assert_close(longer[3 * k + 2], (video[k] + 2 * video[k + 1]) / 3)


@pytest.mark.parametrize(("frames", "wanted"), [(1, 4), (4, 4), (9, 3)])
def test_any_number_of_frames_keeps_first_and_last(frames, wanted):
    video = torch.arange(frames, dtype=torch.float64)[:, None]
    longer = in_step(video, wanted)
    np.testing.assert_allclose(longer[:, 0], np.interp(np.linspace(0, frames - 1, wanted), range(frames), video[:, 0]))


def test_pictures_come_back_as_they_went_in():
    frames = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    x = to_tensor(frames, 8)
    assert (float(x.min()), float(x.max())) >= (-1.0, 0.9)
    np.testing.assert_array_equal(to_frames(x), frames)
    assert to_tensor(frames, 4).shape == (2, 3, 4, 4)
    assert to_frames(torch.full((3, 1, 1), 7.0)).max() == 255, "not clamped"


def test_noise_is_each_clips_own():
    together = noise([torch.Generator().manual_seed(k) for k in (5, 6)], (3, 2), CPU)
    alone = noise([torch.Generator().manual_seed(6)], (3, 2), CPU)
    assert torch.equal(together[1:], alone)


def test_the_ddim_grid_is_that_of_the_released_code():
    grid = [int(t) for t in scheduler().timesteps]
    assert grid == list(range(961, 0, -40))
    assert alpha_bar(961) ** 0.5 == pytest.approx(0.0498, abs=5e-5)
    assert start_of(scheduler(), "released", 0.3).signal == pytest.approx(alpha_bar(961) ** 0.5, rel=1e-4)


def test_img2img_starts_where_the_strength_says():
    grid = scheduler()
    start = start_of(grid, "img2img", 0.3)
    assert (start.first, int(grid.timesteps[start.first])) == (18, 241)
    assert start.signal == pytest.approx(0.767, abs=1e-3)
    assert start.noise == pytest.approx((1 - alpha_bar(241)) ** 0.5, rel=1e-4)
    starts = [start_of(grid, "img2img", s) for s in (0.01, 0.1, 0.3, 0.6, 0.9, 1.0)]
    assert [s.first for s in starts] == sorted([s.first for s in starts], reverse=True)
    assert len({s.first for s in starts}) == len(starts)
    assert [s.signal for s in starts] == sorted([s.signal for s in starts], reverse=True)
    assert (starts[0].first, starts[-1].first) == (24, 0), "a step at least, all steps at most"


def test_the_other_two_modes_run_every_step():
    grid = scheduler()
    released = {start_of(grid, "released", s) for s in (0.1, 0.3, 0.9)}
    assert len(released) == 1, "whatever the strength"
    paper = start_of(grid, "paper", 0.3)
    assert paper.signal == pytest.approx((alpha_bar(961) / alpha_bar(281)) ** 0.5, rel=1e-4)
    assert paper.signal == pytest.approx(0.070, abs=5e-4)
    assert paper.signal**2 + paper.noise**2 == pytest.approx(1)
    assert paper.first == next(iter(released)).first == 0
    assert start_of(grid, "paper", 0.6).signal > paper.signal, "the noisier the video is taken to be, the more is kept"


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("strength", [0.3, 0.8])
def test_the_first_sample_is_that_of_the_library(name, strength):
    """`add_noise` of diffusers, in each scheduler's own scale."""
    grid = scheduler(name, 8)
    latents, fresh = torch.randn(2, 1, 4, 3, 3)
    start = start_of(grid, "img2img", strength)
    sample, timesteps = start.sample(grid, latents, fresh)
    fewer = scheduler(name, 8)
    expected = fewer.add_noise(latents, fresh, fewer.timesteps[start.first : start.first + 1])
    torch.testing.assert_close(sample, expected, rtol=1e-4, atol=1e-5)
    assert len(timesteps) == int(8 * strength)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_pure_noise_has_the_schedulers_first_scale(name):
    grid = scheduler(name, 8)
    sample, timesteps = PURE_NOISE.sample(grid, None, torch.ones(1))
    scale = 1.0 if name != "lightning" else (1 + (1 - alpha_bar(999)) / alpha_bar(999)) ** 0.5
    assert float(sample) == pytest.approx(scale, rel=1e-3)
    assert len(timesteps) == 8


def test_a_part_of_another_class_is_refused_by_name(tmp_path):
    MotionAdapter(block_out_channels=(8,), motion_num_attention_heads=2, motion_norm_num_groups=4).save_pretrained(
        tmp_path
    )
    with pytest.raises(ConfigError, match="is a MotionAdapter, expected a UNet2DConditionModel"):
        load(UNet2DConditionModel, Part(folder=str(tmp_path)), device=CPU)
    with pytest.raises(ConfigError, match="is a MotionAdapter, expected one of AutoencoderKL, AutoencoderTiny"):
        load_autoencoder(Part(folder=str(tmp_path)), "", device=CPU, precision="float32")


def test_a_part_without_a_file_is_refused_by_name(tmp_path):
    with pytest.raises(ConfigError, match=r"holds no unet/config\.json.*models verify"):
        load(UNet2DConditionModel, Part(folder=str(tmp_path)), "unet", device=CPU)
    AutoencoderTiny(encoder_block_out_channels=(8,), decoder_block_out_channels=(8,), num_encoder_blocks=(1,),
                    num_decoder_blocks=(1,)).save_pretrained(tmp_path)  # fmt: skip
    (tmp_path / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ConfigError, match="does not load"):
        load(AutoencoderTiny, Part(folder=str(tmp_path)), device=CPU)


def test_weights_that_do_not_fit_are_refused(tmp_path):
    AutoencoderTiny(encoder_block_out_channels=(8,), decoder_block_out_channels=(8,), num_encoder_blocks=(1,),
                    num_decoder_blocks=(1,)).save_pretrained(tmp_path)  # fmt: skip
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"latent_channels": 5}))
    with pytest.raises(ConfigError, match="does not load"):
        load(AutoencoderTiny, Part(folder=str(tmp_path)), device=CPU)


def test_a_reconstruction_without_pretrained_parts_waits_for_no_library_of_theirs():
    """Every actor imports this in a process of its own."""
    code = f"import sys, cineray.serving.reconstruct; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
