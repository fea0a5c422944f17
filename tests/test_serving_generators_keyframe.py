"""Keyframes from image tokens: the unCLIP engine against a loop written out, published shape and names; IP-Adapter."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from torch import nn

import tiny_diffusers
from cineray.core.errors import ConfigError, DataError
from cineray.serving.generators import unclip_weights
from cineray.serving.generators.base import Condition
from cineray.serving.generators.ip_adapter import IPAdapterConfig
from cineray.serving.generators.unclip import UnclipConfig, edm_scheduler
from cineray.training.models.base import Sizes
from cineray.training.models.prior import PriorConfig
from cineray.training.models.semantic import SemanticConfig

CPU = torch.device("cpu")
SIZE = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("parts")


@pytest.fixture(scope="module")
def engine(folder):
    return UnclipConfig.parse(tiny_diffusers.save_unclip(folder)).build(device=CPU)


@pytest.fixture(scope="module")
def adapter(folder):
    tiny_diffusers.save_animatediff(folder)
    settings = tiny_diffusers.save_adapter(folder / "adapter", folder / "base" / "unet")
    return IPAdapterConfig.parse(settings).build(device=CPU)


def tokens(seed, shape=(5, tiny_diffusers.DIM)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def changed(made, **settings):
    return replace(made, settings=made.settings.override(settings))


def apart(a, b):
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


def noise_levels():
    """sigma of SDXL's 1000 levels, betas linear in their roots."""
    kept = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    return np.sqrt((1 - kept) / kept)


def test_the_engine_has_the_published_shape():
    """From SDXL's known count: another context (1664 for 2048) for keys and values, another vector (1024 for 2816)."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**unclip_weights.FULL_SIZE)
    blocks = {640: 2 * 2 + 3 * 2, 1280: 2 * 10 + 10 + 3 * 10}
    context = (1664 - 2048) * 2 * sum(width * num for width, num in blocks.items())
    assert sum(p.numel() for p in unet.parameters()) == 2_567_463_684 + context + (1024 - 2816) * 1280


def test_the_noise_levels_are_38_of_a_thousand():
    scheduler = edm_scheduler(38)
    levels = [int(999 * (38 - k) / 38) for k in range(38)]
    assert [int(t) for t in scheduler.timesteps] == levels
    np.testing.assert_allclose(scheduler.sigmas[:-1], noise_levels()[levels], rtol=1e-4)
    assert float(scheduler.sigmas[0]) == pytest.approx(14.61, abs=0.01)
    assert float(scheduler.sigmas[-1]) == 0


@torch.inference_mode()
def test_a_keyframe_is_that_of_the_loop_written_out(engine):
    """Euler steps of dx/dsigma = (x - D)/sigma, D = x - sigma·eps, with a random unconditional branch."""
    s, seen = engine.settings, tokens(1)
    g = torch.Generator().manual_seed(4)
    latents, fresh, offset = (torch.randn(shape, generator=g)[None] for shape in ((4, 8, 8), (4, 8, 8), (1, 1, 1)))
    other = torch.randn(seen.shape, generator=g)
    sigmas = [*(noise_levels()[int(999 * (s.steps - k) / s.steps)] for k in range(s.steps)), 0.0]
    x = latents + (fresh + 0.04 * offset) * sigmas[0]
    frequency = torch.exp(-np.log(10000) * torch.arange(128) / 128)
    angles = torch.tensor([SIZE, SIZE, 0.0, 0.0])[:, None] * frequency
    vector = torch.cat([angles.cos(), angles.sin()], dim=1).flatten()[None]
    for k in range(s.steps):
        level = int(999 * (s.steps - k) / s.steps)
        scaled = (x / (1 + sigmas[k] ** 2) ** 0.5).float()
        eps = [engine.unet(scaled, level, c[None], class_labels=vector).sample for c in (other, seen)]
        guided = eps[0] + s.guidance * (eps[1] - eps[0])
        x = x + guided * (sigmas[k + 1] - sigmas[k])
    decoded = engine.autoencoder.model.decode((x / 0.13025).float()).sample[0]
    expected = ((0.8 * decoded + 0.2).clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()
    found = engine([Condition(tokens=seen, seed=4)])[0]
    assert found.shape == (SIZE, SIZE, 3)
    assert found.std() > 1
    assert np.abs(found - expected).max() <= 1


def test_in_half_precision_pictures_do_not_overflow(folder, engine, tmp_path):
    """Features of the autoencoder beyond 65504, as SDXL's has them; groups are normalised behind, so pixels stay."""
    vae = AutoencoderKL.from_pretrained(folder / "sdxl-vae", low_cpu_mem_usage=False)
    with torch.no_grad():
        for weights in (vae.decoder.conv_in.weight, vae.encoder.conv_in.weight):
            weights.mul_(1e5)
        vae.save_pretrained(tmp_path)
        assert not vae.half().decode(torch.ones(1, 4, 8, 8).half()).sample.isfinite().all()
    condition = Condition(tokens=tokens(1), seed=4, blurry=np.full((1, SIZE, SIZE, 3), 90, np.uint8))
    settings = engine.settings.override({"vae.folder": str(tmp_path), "keyframe_init": "blurry"})
    whole, half = (
        settings.override({"precision": precision}).build(device=CPU)([condition])
        for precision in ("float32", "float16")
    )
    assert whole.std() > 1
    assert apart(whole, half) < 3


def test_keyframes_do_not_depend_on_their_neighbours(engine):
    conditions = [Condition(tokens=tokens(k), seed=k) for k in range(2)]
    both = engine(conditions)
    assert both.shape == (2, SIZE, SIZE, 3)
    np.testing.assert_array_equal(both[1], engine(conditions[1:])[0])
    assert apart(both[0], engine([replace(conditions[0], seed=7)])[0]) > 1
    assert apart(both[0], engine([replace(conditions[0], tokens=tokens(8))])[0]) > 1
    assert engine([]).shape == (0, SIZE, SIZE, 3)


def test_a_blurry_start_acts_the_more_the_fewer_steps_run(engine):
    dark, bright = (np.full((1, SIZE, SIZE, 3), level, np.uint8) for level in (10, 240))

    def effect(**settings):
        mine = changed(engine, **settings)
        return apart(*(mine([Condition(tokens=tokens(0), blurry=b)]) for b in (dark, bright)))

    assert effect(keyframe_init="noise") == 0
    whole, half = (effect(keyframe_init="blurry", strength=s, steps=10) for s in (1.0, 0.1))
    assert 0 < whole < half
    with pytest.raises(DataError, match="found no blurry video"):
        changed(engine, keyframe_init="blurry")([Condition(tokens=tokens(0))])


@pytest.mark.parametrize("wrong", [None, tokens(0, (5, 3)), tokens(0, (tiny_diffusers.DIM,))])
def test_tokens_of_another_width_are_refused(engine, wrong):
    with pytest.raises(DataError, match=r"unCLIP engine expects \(tokens, 16\)"):
        engine([Condition(tokens=wrong)])


LDM = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "class_embedding.linear_1": "label_emb.0.0", "class_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0", "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}  # fmt: skip
"""The released code's names of the parts that stand alone; the blocks count through (three entries a level)."""
RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
          "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}  # fmt: skip


def ldm_name(name):
    """A diffusers name as the published checkpoint has it."""
    words, resnet = name.split("."), ".resnets." in name
    if words[0] in ("down_blocks", "up_blocks"):
        level, kind, place = int(words[1]), words[2], int(words[3])
        rest = ".".join(words[4:])
        if words[0] == "down_blocks":
            first = f"input_blocks.{1 + 3 * level + (2 if kind == 'downsamplers' else place)}"
            inner = {"resnets": ".0.", "attentions": ".1.", "downsamplers": ".0."}[kind]
            rest = rest.replace("conv.", "op.") if kind == "downsamplers" else rest
        else:
            first = f"output_blocks.{3 * level + (2 if kind == 'upsamplers' else place)}"
            # Levels with attention have it in between.
            inner = {"resnets": ".0.", "attentions": ".1.", "upsamplers": ".2."}[kind]
        name = first + inner + rest
    else:
        found = next(start for start in LDM if name.startswith(start + "."))
        name = LDM[found] + name[len(found) :]
    for new, old in RESNET.items() if resnet else ():
        name = name.replace(f".{new}.", f".{old}.")
    return "model.diffusion_model." + name


@pytest.fixture
def published(folder, tmp_path, monkeypatch):
    """A checkpoint of the published names, at the tiny width."""
    monkeypatch.setattr(unclip_weights, "FULL_SIZE", tiny_diffusers.UNCLIP_SHAPE)
    unet = UNet2DConditionModel.from_pretrained(folder / "unclip", low_cpu_mem_usage=False)
    return tmp_path, {ldm_name(name): weight for name, weight in unet.state_dict().items()}


def settings_of(folder, path):
    return UnclipConfig.parse(
        {"unet": {"folder": str(path)}, "vae": {"folder": str(folder / "sdxl-vae")}, "steps": 3, "size": SIZE}
    )


def test_the_published_checkpoint_loads(folder, published, engine):
    path, state = published
    torch.save({"state_dict": state | {"conditioner.x": torch.ones(1)}}, path / unclip_weights.CHECKPOINT)
    loaded = settings_of(folder, path).build(device=CPU)
    condition = Condition(tokens=tokens(1), seed=4)
    np.testing.assert_array_equal(loaded([condition]), engine([condition]))


def test_a_checkpoint_that_lacks_or_hides_something_is_refused(folder, published):
    path, state = published
    short = dict(list(state.items())[:-1])
    for whole, said in [
        ({"state_dict": short}, "does not fit"),
        ({"state_dict": {"encoder.x": torch.ones(1)}}, "holds no model.diffusion_model"),
        ({"state_dict": state, "notes": Image.new("L", (1, 1))}, "more than tensors"),
    ]:
        torch.save(whole, path / unclip_weights.CHECKPOINT)
        with pytest.raises(ConfigError, match=said):
            settings_of(folder, path).build(device=CPU)


def test_the_adapter_reads_image_and_caption(adapter):
    made = Condition(tokens=tokens(0, (1, 6)), caption="a dog", seed=1)
    pictures = adapter([made, replace(made, seed=2)])
    assert pictures.shape == (2, SIZE, SIZE, 3)
    assert pictures.dtype == np.uint8
    np.testing.assert_array_equal(pictures[0], adapter([made])[0])
    for other in (replace(made, seed=2), replace(made, tokens=tokens(5, (1, 6))), replace(made, caption="sea")):
        assert apart(pictures[0], adapter([other])[0]) > 0.1
    with pytest.raises(DataError, match=r"IP-Adapter expects \(1, 6\)"):
        adapter([Condition(tokens=tokens(0))])


def test_the_adapter_paints_what_a_prior_draws_of_a_stored_embedding(adapter):
    """The embedding of a picture is stored as (dim,): a training step of the prior on it, then one keyframe a row."""
    torch.manual_seed(0)
    sizes = Sizes({"sub-01": 4}, 1, {"clip_tokens": (6,)})
    model = PriorConfig(semantic=SemanticConfig(dim=8), depth=1, heads=2, head_dim=8, steps=2).build(sizes)
    brain, target = {"sub-01": torch.randn(2, 1, 4)}, torch.randn(2, 6)
    before = model.eval()(brain)["clip_tokens"].clone()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    nn.functional.mse_loss(model.train()(brain, {"clip_tokens": target})["clip_tokens"], target).backward()
    optimiser.step()
    drawn = model.eval()(brain)["clip_tokens"]
    assert drawn.shape == (2, 6)
    assert not torch.equal(drawn, before)
    pictures = adapter([Condition(tokens=row[None], seed=1) for row in drawn])
    assert pictures.shape == (2, SIZE, SIZE, 3)
    assert apart(*pictures) > 0.1


def test_without_a_caption_the_adapter_is_prompted_as_by_its_own_code(adapter):
    """A pipeline's keyframes come before their captions."""
    silent = Condition(tokens=tokens(0, (1, 6)), seed=1)
    own, sea = (adapter([replace(silent, caption=text)]) for text in ("best quality, high quality", "sea"))
    np.testing.assert_array_equal(adapter([silent]), own)
    np.testing.assert_array_equal(changed(adapter, prompt="sea")([silent]), sea)
    assert apart(own, sea) > 0.1


def test_a_missing_adapter_is_named(adapter, tmp_path):
    (tmp_path / "empty").mkdir()
    settings = adapter.settings.override({"adapter.folder": str(tmp_path / "empty")})
    with pytest.raises(ConfigError, match=r"holds no models/adapter\.safetensors"):
        settings.build(device=CPU)
