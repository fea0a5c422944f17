"""Parts of few-step variants as they are published: a LoRA with flat names, motion layers as weights alone."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from diffusers import MotionAdapter, UNet2DConditionModel
from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_lora_to_diffusers
from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import conv2d

import tiny_diffusers
from cineray.core.errors import ConfigError
from cineray.core.pretrained import Part, catalogue
from cineray.serving.generators import motion
from cineray.serving.generators.animatediff import AnimateDiffConfig
from cineray.serving.generators.base import Condition
from cineray.serving.generators.lora import fold_adapter

PAGE = Path(__file__).parents[1].joinpath("docs", "models.md").read_text(encoding="utf-8")
CPU = torch.device("cpu")
RANK, ALPHA, SCALE = 4, 0.5, 0.8
TINY = {"block_out_channels": (8, 16), "use_motion_mid_block": False, **tiny_diffusers.MOTION}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parts")
    return tiny_diffusers.save_animatediff(folder) | {"keyframe": tiny_diffusers.save_unclip(folder)}


def flat_unet(parts):
    return UNet2DConditionModel.from_pretrained(f"{parts['unet']['folder']}/unet", low_cpu_mem_usage=False)


def adapted(layer):
    """As consistency models' LoRAs: attention, its projections and feed-forward, convolutions of residual blocks."""
    return isinstance(layer, nn.Linear | nn.Conv2d)


def published(unet):
    """A LoRA as AnimateLCM's file has it: underscores, down, up and alpha of every layer."""
    generator, state = torch.Generator().manual_seed(3), {}
    inside = [(n, m) for n, m in unet.named_modules() if adapted(m) and n.startswith(("down", "mid", "up"))]
    for name, layer in inside:
        flat, (out, *ins) = f"lora_unet_{name.replace('.', '_')}", layer.weight.shape
        ones = [1] * (len(ins) - 1)
        state[f"{flat}.lora_down.weight"] = torch.randn(RANK, *ins, generator=generator)
        state[f"{flat}.lora_up.weight"] = torch.randn(out, RANK, *ones, generator=generator)
        state[f"{flat}.alpha"] = torch.tensor(ALPHA)
    return state, dict(inside)


@pytest.fixture
def folded(parts, tmp_path):
    unet = flat_unet(parts)
    state, layers = published(unet)
    save_file(state, tmp_path / "AnimateLCM_sd15_t2v_lora.safetensors")
    before = {name: layer.weight.clone() for name, layer in layers.items()}
    fold_adapter(unet, Part(folder=str(tmp_path)), SCALE)
    return state, before, unet


def test_what_is_added_acts_as_down_then_up(parts, folded):
    """Each layer's change is what the two small layers do one after the other, times scale · alpha / rank."""
    state, before, unet = folded
    generator, kinds = torch.Generator().manual_seed(5), set()
    for name, layer in unet.named_modules():
        if name not in before:
            continue
        change = layer.weight.detach() - before[name].detach()
        down, up = (state[f"lora_unet_{name.replace('.', '_')}.lora_{half}.weight"] for half in ("down", "up"))
        if isinstance(layer, nn.Conv2d):
            x = torch.randn(1, layer.in_channels, 5, 5, generator=generator)
            found, expected = conv2d(x, change, padding=1), conv2d(conv2d(x, down, padding=1), up)
        else:
            x = torch.randn(3, layer.in_features, generator=generator)
            found, expected = x @ change.T, (x @ down.T) @ up.T
        kinds.add((type(layer), tuple(layer.weight.shape[2:])))
        torch.testing.assert_close(found, SCALE * ALPHA / RANK * expected, rtol=1e-3, atol=1e-4)
    assert kinds == {(nn.Linear, ()), (nn.Conv2d, (1, 1)), (nn.Conv2d, (3, 3))}
    whole, original = unet.state_dict(), flat_unet(parts).state_dict()
    assert all(torch.equal(whole[n], original[n]) for n in whole.keys() - {f"{n}.weight" for n in before})


def test_attention_is_found_where_the_library_finds_it(folded):
    """The library guesses dots from underscores, ours asks the network; both change the same layers of attention."""
    state, before, _ = folded
    attention = {name: x for name, x in state.items() if "_attn" in name}
    theirs, alphas = _convert_non_diffusers_lora_to_diffusers(dict(attention))
    names = {n.removeprefix("unet.") for n in convert_unet_state_dict_to_peft(theirs)}
    halves = (".lora_A.weight", ".lora_B.weight")
    assert names == {f"{name}{half}" for name in before if ".attn" in name for half in halves}
    assert set(alphas.values()) == {ALPHA}


def test_without_alpha_the_factor_is_one(parts, tmp_path):
    unet = flat_unet(parts)
    state, before = published(unet)
    before = {name: layer.weight.clone() for name, layer in before.items()}
    save_file({n: x for n, x in state.items() if not n.endswith("alpha")}, tmp_path / "lora.safetensors")
    fold_adapter(unet, Part(folder=str(tmp_path)), 1.0)
    name = next(n for n in before if n.endswith("to_q"))
    down, up = (state[f"lora_unet_{name.replace('.', '_')}.lora_{half}.weight"] for half in ("down", "up"))
    torch.testing.assert_close(dict(unet.named_parameters())[f"{name}.weight"], before[name] + up @ down)


def test_names_of_no_layer_are_refused(parts, tmp_path):
    unet = flat_unet(parts)
    state, _ = published(unet)
    one = {
        "lora_unet_elsewhere.lora_down.weight": torch.ones(2, 3),
        "lora_unet_elsewhere.lora_up.weight": torch.ones(3, 2),
    }
    for more, said in [
        (one, r"adapts lora_unet_elsewhere by \(3, 3\), the UNet has none there"),
        (
            {"lora_te_text_model.lora_mid.weight": torch.ones(2)},
            r"holds lora_te_text_model\.lora_mid\.weight, expected",
        ),
    ]:
        save_file(state | more, tmp_path / "lora.safetensors")
        with pytest.raises(ConfigError, match=said):
            fold_adapter(unet, Part(folder=str(tmp_path)), 1.0)


def test_motion_layers_as_weights_alone_are_those_of_their_folder(parts, tmp_path, monkeypatch):
    """Saved as AnimateDiff-Lightning is: the same video as from the folder with a configuration."""
    monkeypatch.setattr(motion, "V2", TINY)
    saved = MotionAdapter.from_pretrained(parts["motion"]["folder"], low_cpu_mem_usage=False)
    save_file(saved.state_dict(), tmp_path / "animatediff_lightning_4step_diffusers.safetensors")
    few = {"scheduler": "lightning", "steps": 4, "guidance": 1.0, "size": 16, "num_frames": 4}
    settings = AnimateDiffConfig.parse({**parts, **few})
    key = np.zeros((1, 16, 16, 3), np.uint8)
    whole, alone = (
        config.build(device=CPU).videos([Condition(blurry=None, caption="a dog", seed=0)], key)
        for config in (settings, settings.override({"motion.folder": str(tmp_path)}))
    )
    np.testing.assert_array_equal(whole, alone)
    monkeypatch.setattr(motion, "V2", TINY | {"use_motion_mid_block": True})
    with pytest.raises(ConfigError, match="does not fit AnimateDiff's motion layers"):
        motion.load_motion(Part(folder=str(tmp_path)), device=CPU, precision="float32")


def test_the_shape_of_weights_alone_is_that_of_the_library():
    """AnimateDiff-Lightning's page loads its file into the library's adapter as it is made without arguments."""
    with torch.device("meta"):
        ours, theirs = MotionAdapter(**motion.V2), MotionAdapter()
    shapes = [{name: x.shape for name, x in adapter.state_dict().items()} for adapter in (ours, theirs)]
    assert shapes[0] == shapes[1]
    assert len(shapes[0]) == 567


def test_the_pages_settings_are_those_of_the_catalogues_parts():
    """What the page writes out is what the named parts are pulled as, and the authors' factor of the LoRA."""
    found = {}
    for block in re.findall(r"```yaml\n(generator:.*?)```", PAGE, re.DOTALL):
        settings = AnimateDiffConfig.parse(yaml.safe_load(block)["generator"])
        pulled = re.findall(r"cineray models pull (.*)", block)
        if pulled:
            named = [part for part in (settings.motion, settings.adapter) if part is not None]
            assert named == [catalogue()[name].part for name in pulled[0].split()]
            found[settings.scheduler] = settings
    assert set(found) == {"lcm", "lightning"}
    assert found["lcm"].adapter_scale == 0.8


def test_every_part_of_the_catalogue_stands_on_the_page_and_the_other_way_round():
    """A part that nothing takes would be pulled for nothing."""
    assert [name for name in catalogue() if not re.search(rf"[`| ,]{re.escape(name)}[`,; \n]", PAGE)] == []
    pulled = {name for words in re.findall(r"cineray models pull ([^`\n]*)", PAGE) for name in words.split()}
    assert pulled <= set(catalogue())
