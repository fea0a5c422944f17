"""The AnimateDiff generator on tiny random parts, against the library's own pipeline."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import AnimateDiffSparseControlNetPipeline, MotionAdapter, UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file

import tiny_diffusers
from cineray.core.errors import ConfigError, DataError
from cineray.serving.generators.animatediff import SCHEDULERS, AnimateDiffConfig
from cineray.serving.generators.base import Condition
from cineray.serving.generators.pictures import in_step, to_frames, to_tensor

CPU = torch.device("cpu")
SIZE, FRAMES = 16, 7


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    settings = tiny_diffusers.save_animatediff(folder) | {"vae": {"folder": str(folder / "tiny")}}
    keyframe = tiny_diffusers.save_unclip(folder)
    return {**settings, "keyframe": keyframe, "size": SIZE, "num_frames": FRAMES, "steps": 5, "strength": 0.6}


@pytest.fixture(scope="module")
def generator(parts):
    return AnimateDiffConfig.parse(parts).build(device=CPU)


def changed(generator, **settings):
    """The same parts with other settings."""
    return replace(generator, settings=generator.settings.override(settings))


def film(seed, frames=3, size=20):
    """A smooth coloured gradient that moves."""
    ramp = np.linspace(0, 200, size)[None, :, None, None] + np.linspace(0, 50, frames)[:, None, None, None]
    tint = np.random.default_rng(seed).uniform(0.3, 1, 3)
    return np.broadcast_to(ramp * tint, (frames, size, size, 3)).astype(np.uint8)


def condition(seed, **fields):
    return Condition(**{"blurry": film(seed), "caption": "a dog", "seed": seed} | fields)


def picture(seed):
    return np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


def video(generator, made, key=0):
    return generator.videos([made], picture(key)[None])[0]


def apart(a, b):
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


@pytest.mark.parametrize("guidance", [1.0, 8.5])
@pytest.mark.parametrize("name", ["ddim", "lightning"])
def test_from_noise_it_is_the_librarys_pipeline(generator, guidance, name):
    """Same parts, same noise: the pipeline of diffusers gives the same frames."""
    mine = changed(generator, guidance=guidance, scheduler=name)
    s = mine.settings
    made = condition(3, blurry=None)
    pipeline = AnimateDiffSparseControlNetPipeline(
        vae=mine.autoencoder.model,
        text_encoder=mine.text.model,
        tokenizer=mine.text.tokenizer,
        unet=mine.unet,
        motion_adapter=MotionAdapter.from_pretrained(s.motion.folder, low_cpu_mem_usage=False),
        controlnet=mine.control,
        scheduler=SCHEDULERS[name](),
    )
    pipeline.set_progress_bar_config(disable=True)
    fresh = torch.randn((1, 4, FRAMES, 8, 8), generator=torch.Generator().manual_seed(3))
    if name == "lightning":  # the pipeline starts at sigma where this one starts at √(1 + sigma²), as for every start
        grid = SCHEDULERS[name]()
        grid.set_timesteps(s.steps)
        fresh = fresh * (1 + grid.sigmas[0] ** 2) ** 0.5 / grid.init_noise_sigma
    theirs = pipeline(
        prompt=made.caption + s.suffix, negative_prompt=s.negative_prompt, num_frames=FRAMES, height=SIZE, width=SIZE,
        num_inference_steps=s.steps, guidance_scale=guidance, latents=fresh, controlnet_frame_indices=[0],
        conditioning_frames=[Image.fromarray(picture(0))], output_type="np",
    ).frames[0]  # fmt: skip
    assert np.abs(video(mine, made) - np.round(theirs * 255)).max() <= 1


def adapted(unet, form):
    """A LoRA of rank 2 for all attention, by names of one kind, and the UNet's weights with 0.6 of it added by hand."""
    generator, state, weights = torch.Generator().manual_seed(7), {}, {k: v.clone() for k, v in unet.items()}
    for name in [name for name in unet if re.search(r"attn\d\.to_(q|k|v|out\.0)\.weight", name)]:
        down, up = (
            torch.randn(shape, generator=generator) for shape in ((2, unet[name].shape[1]), (len(unet[name]), 2))
        )
        weights[name] += 0.6 * torch.einsum("or,ri->oi", up, down)
        layer, kind = re.fullmatch(r"(.*attn\d)\.to_(\w+).*", name).groups()
        halves = {
            "processor": (
                f"{layer}.processor.to_{kind}_lora.down.weight",
                f"{layer}.processor.to_{kind}_lora.up.weight",
            ),
            "matrices": tuple(f"unet.{name.removesuffix('.weight')}.lora_{half}.weight" for half in "AB"),
        }[form]
        state |= dict(zip(halves, (down, up), strict=True))
    return state, weights


@pytest.mark.parametrize("form", ["processor", "matrices"])
def test_the_adapter_is_added_to_the_weights(parts, tmp_path, form):
    """As AnimateDiff's own code adds it: the same video as from weights that were changed by hand and saved."""
    flat = UNet2DConditionModel.from_pretrained(f"{parts['unet']['folder']}/unet", low_cpu_mem_usage=False)
    state, weights = adapted(flat.state_dict(), form)
    assert len(state) == 2 * 4 * 2 * 4, "self- and cross-attention in four places"
    (tmp_path / "lora").mkdir()
    save_file(state, tmp_path / "lora" / "any_name.safetensors")
    flat.load_state_dict(weights)
    flat.save_pretrained(tmp_path / "changed" / "unet")
    settings = AnimateDiffConfig.parse(parts)
    adapter = {"adapter": {"folder": str(tmp_path / "lora")}, "adapter_scale": 0.6}
    ours, by_hand, without = (
        video(settings.override(changes).build(device=CPU), condition(1))
        for changes in (adapter, {"unet.folder": str(tmp_path / "changed")}, {})
    )
    assert np.abs(ours.astype(int) - by_hand).max() <= 1
    assert apart(ours, without) > 1


def test_an_adapter_that_does_not_fit_is_refused(parts, tmp_path):
    settings = AnimateDiffConfig.parse({**parts, "adapter": {"folder": str(tmp_path)}})
    layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    good = {f"{layer}.lora_A.weight": torch.ones(2, 8), f"{layer}.lora_B.weight": torch.ones(8, 2)}
    for state, said in [
        (good | {f"{layer}.lora_A.weight": torch.ones(2, 9)}, r"adapts .*to_q by \(8, 9\), the UNet has \(8, 8\)"),
        ({name.replace("attn1", "attn7"): x for name, x in good.items()}, r"by \(8, 8\), the UNet has none there"),
        (good | {f"{layer}.alpha": torch.ones(())}, r"holds .*to_q\.alpha, expected pairs"),
        ({f"{layer}.lora_A.weight": torch.ones(2, 8)}, r"holds .*to_q, expected pairs"),
        (good | {f"{layer}.lora_A.weight": torch.ones(5, 8)}, r"holds .*to_q, expected pairs .*of one rank"),
    ]:
        save_file(state, tmp_path / "adapter.safetensors")
        with pytest.raises(ConfigError, match=said):
            settings.build(device=CPU)
    (tmp_path / "adapter.safetensors").unlink()
    with pytest.raises(ConfigError, match="holds 0 safetensors files, expected one adapter"):
        settings.build(device=CPU)


def test_videos_are_frames_of_the_size_asked_for(generator):
    made = generator.videos([condition(0), condition(1)], np.stack([picture(0), picture(1)]))
    assert made.shape == (2, FRAMES, SIZE, SIZE, 3)
    assert made.dtype == np.uint8
    assert made.std() > 1, "no picture at all"
    assert generator.videos([], np.zeros((0, SIZE, SIZE, 3), np.uint8)).shape == (0, FRAMES, SIZE, SIZE, 3)
    assert generator.fps == 8.0


def test_a_clip_is_generated_alike_whoever_stands_beside_it(generator):
    first, second = condition(0), condition(1, caption="a cat at sea")
    keys = np.stack([picture(0), picture(1)])
    both = generator.videos([first, second], keys)
    np.testing.assert_array_equal(both[1], generator.videos([second], keys[1:])[0])
    np.testing.assert_array_equal(both[::-1], generator.videos([second, first], keys[::-1]))
    together = changed(generator, clips_together=2).videos([first, second], keys)
    assert np.abs(together.astype(int) - both).max() <= 1, "rounding at most"


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_seed_decides_the_noise(generator, name):
    mine = changed(generator, scheduler=name)
    made = condition(0)
    np.testing.assert_array_equal(video(mine, made), video(mine, made))
    assert apart(video(mine, made), video(mine, replace(made, seed=1))) > 1


def test_strength_acts(generator):
    """The less of it, the fewer steps run and the closer the result is to the blurry video."""
    made = condition(0)
    frames = in_step(to_tensor(film(0), SIZE), FRAMES)
    passed = to_frames(generator.autoencoder.decode(generator.autoencoder.encode(frames)))
    steps, distances = [], []
    for strength in (0.2, 0.4, 0.6, 0.8, 1.0):
        seen = []
        hook = generator.unet.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(int(given[1])))
        distances.append(apart(video(changed(generator, strength=strength, guidance=1.0), made), passed))
        hook.remove()
        steps.append(seen)
    assert [len(seen) for seen in steps] == [1, 2, 3, 4, 5]
    assert [seen[0] for seen in steps] == [1, 201, 401, 601, 801]
    assert distances == sorted(distances)
    assert distances[-1] > 5 * distances[0]


def test_released_runs_alike_at_every_strength_and_paper_does_not(generator):
    made = condition(0)

    def at(mode, strength):
        settings = generator.settings.model_copy(update={"alpha_mode": mode, "strength": strength})  # not validated
        return video(replace(generator, settings=settings), made)

    np.testing.assert_array_equal(at("released", 0.2), at("released", 0.9))
    assert apart(at("paper", 0.2), at("paper", 0.9)) > 0.5


def test_the_keyframe_holds_unless_a_frame_is_carried_over(generator):
    made = condition(0)
    carried = replace(made, first_frame=picture(9))
    np.testing.assert_array_equal(video(generator, carried, key=1), video(generator, made, key=9))
    assert apart(video(generator, made, key=1), video(generator, made, key=9)) > 0.5
    loose = changed(generator, control_scale=0.0)
    np.testing.assert_array_equal(video(loose, made, key=1), video(loose, made, key=9))


def test_caption_suffix_and_negative_prompt_are_read(generator):
    usual = changed(generator, suffix="", negative_prompt="z")
    plain = video(usual, condition(0))
    assert apart(plain, video(usual, condition(0, caption="sea"))) > 0.1
    assert apart(plain, video(changed(usual, suffix=" q"), condition(0))) > 0.1
    assert apart(plain, video(changed(usual, negative_prompt="y"), condition(0))) > 0.1


def test_without_guidance_a_step_is_one_evaluation_a_clip(generator):
    sizes = []
    hook = generator.unet.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    for guidance in (1.0, 8.5):
        video(changed(generator, guidance=guidance, steps=1), condition(0))
    hook.remove()
    assert sizes == [1, 2]


def test_the_full_autoencoder_serves_as_well(parts):
    full = AnimateDiffConfig.parse({**parts, "vae": None}).build(device=CPU)
    assert type(full.autoencoder.model).__name__ == "AutoencoderKL"
    assert full.autoencoder.factor == 2
    assert video(full, condition(0)).std() > 1


def test_keyframes_come_from_tokens(generator):
    made = condition(0, tokens=torch.randn(5, tiny_diffusers.DIM))
    assert generator.keyframes([made]).shape == (1, SIZE, SIZE, 3)
    with pytest.raises(DataError, match="image tokens none"):
        generator.keyframes([condition(0)])


def test_bad_calls_are_refused(generator):
    with pytest.raises(DataError, match="1 keyframes for 2 clips"):
        generator.videos([condition(0), condition(1)], picture(0)[None])
    with pytest.raises(DataError, match="with and without a blurry video"):
        changed(generator, clips_together=2).videos(
            [condition(0), condition(1, blurry=None)], np.stack([picture(0), picture(1)])
        )


def test_a_missing_part_is_named(parts, tmp_path, monkeypatch):
    monkeypatch.setenv("CINERAY_MODELS", str(tmp_path))
    with pytest.raises(ConfigError, match=r"realistic-vision`.*light generator"):
        AnimateDiffConfig().build(device=CPU)
    with pytest.raises(ConfigError, match=r"models pull animatediff-v3`"):
        AnimateDiffConfig.parse({k: v for k, v in parts.items() if k != "motion"}).build(device=CPU)
