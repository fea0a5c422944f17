"""The video transformer on a tiny random LTX, against the library's own pipeline."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, LTXImageToVideoPipeline

import tiny_diffusers
from cineray.core.errors import ConfigError, DataError
from cineray.serving.generators.base import Condition
from cineray.serving.generators.pictures import to_tensor
from cineray.serving.generators.video_dit import VideoDitConfig, shift_of

CPU = torch.device("cpu")
SIZE = 64


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    keyframe, base = tiny_diffusers.save_unclip(folder), tiny_diffusers.save_ltx(folder / "ltx")
    settings = {"base": base, "keyframe": keyframe, "size": SIZE, "num_frames": 9, "steps": 4}
    return VideoDitConfig.parse(settings).build(device=CPU)


def changed(generator, **settings):
    return replace(generator, settings=generator.settings.override(settings))


def picture(seed):
    return np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


def film(seed):
    return np.stack([picture(seed) // 2 + 20 * k for k in range(3)]).astype(np.uint8)


def condition(seed, **fields):
    return Condition(**{"blurry": film(seed), "caption": "a dog", "seed": seed} | fields)


def video(generator, made, key=0):
    return generator.videos([made], picture(key)[None])[0]


def apart(a, b):
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_from_noise_it_is_the_librarys_pipeline(generator, guidance):
    mine = changed(generator, guidance=guidance)
    made = condition(3, blurry=None)
    pipeline = LTXImageToVideoPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler.from_config(mine.noise_levels), vae=mine.vae, text_encoder=mine.text,
        tokenizer=mine.tokenizer, transformer=mine.transformer,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    fresh = torch.randn((1, 4, 2, 2, 2), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        coded = mine.vae.encode(to_tensor(picture(0)[None], SIZE)[:, :, None]).latent_dist.mode()
    mean, std = (x.view(1, -1, 1, 1, 1) for x in (mine.vae.latents_mean, mine.vae.latents_std))
    start = torch.cat([(coded - mean) / std, fresh[:, :, 1:]], dim=2)
    theirs = pipeline(
        image=None, prompt=made.caption, negative_prompt=mine.settings.negative_prompt, height=SIZE, width=SIZE,
        num_frames=9, frame_rate=8, num_inference_steps=4, guidance_scale=guidance,
        latents=start.flatten(2).transpose(1, 2), output_type="np",
    ).frames[0]  # fmt: skip
    assert np.abs(video(mine, made) - np.round(theirs * 255)).max() <= 1


def test_any_number_of_frames_is_made(generator):
    made = changed(generator, num_frames=6).videos([condition(0), condition(1)], np.stack([picture(0), picture(1)]))
    assert made.shape == (2, 6, SIZE, SIZE, 3)
    assert made.dtype == np.uint8
    assert made.std() > 1
    assert generator.videos([], np.zeros((0, SIZE, SIZE, 3), np.uint8)).shape == (0, 9, SIZE, SIZE, 3)
    assert generator.fps == 8.0


def test_a_clip_is_generated_alike_whoever_stands_beside_it(generator):
    clips, keys = [condition(0), condition(1)], np.stack([picture(0), picture(1)])
    np.testing.assert_array_equal(generator.videos(clips, keys)[1], video(generator, clips[1], key=1))
    assert apart(video(generator, clips[0]), video(generator, replace(clips[0], seed=5))) > 0.5


def test_strength_acts(generator):
    """The effect of the blurry video falls as the strength grows, and so do the steps that are left out."""
    effects, counts = [], []
    for strength in (0.25, 0.5, 0.75, 1.0):
        mine, seen = changed(generator, strength=strength), []
        hook = mine.transformer.register_forward_pre_hook(lambda *_, seen=seen: seen.append(1))
        effects.append(apart(video(mine, condition(0)), video(mine, condition(0, blurry=film(1)))))
        hook.remove()
        counts.append(len(seen) // 2)
    assert counts == [1, 2, 3, 4]
    assert effects == sorted(effects, reverse=True)
    assert effects[0] > 1
    assert effects[-1] == 0, "at strength 1 it starts at noise"


def test_the_first_frame_is_held(generator):
    made = condition(0)
    assert apart(video(generator, made, key=1), video(generator, made, key=2)) > 0.5
    carried = replace(made, first_frame=picture(2))
    np.testing.assert_array_equal(video(generator, carried, key=1), video(generator, made, key=2))


def test_the_caption_is_read(generator):
    assert apart(video(generator, condition(0)), video(generator, condition(0, caption="cat"))) > 0.01


def test_the_shift_is_linear_in_the_tokens(generator):
    config = FlowMatchEulerDiscreteScheduler.from_config(generator.noise_levels).config
    assert shift_of(256, config) == pytest.approx(0.5)
    assert shift_of(4096, config) == pytest.approx(1.15)
    assert shift_of(2176, config) == pytest.approx(0.825)


def test_what_does_not_fit_is_refused(generator, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="found size=40, expected a multiple of 32"):
        generator.settings.override({"size": 40}).build(device=CPU)
    with pytest.raises(DataError, match="0 keyframes for 1 clips"):
        generator.videos([condition(0)], np.zeros((0, SIZE, SIZE, 3), np.uint8))
    monkeypatch.setenv("CINERAY_MODELS", str(tmp_path))
    with pytest.raises(ConfigError, match=r"models pull ltx-video`.*light generator"):
        VideoDitConfig().build(device=CPU)
