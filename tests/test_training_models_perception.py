"""The perception reconstructor: published sizes, clips that leave each other alone, gradient everywhere."""

import math

import pytest
import torch
import yaml
from torch import nn

from cineray.core.errors import ConfigError
from cineray.training.models.base import Sizes, parameter_table, subject_of
from cineray.training.models.perception import PerceptionConfig, TokenHead
from cineray.training.models.video_decoder import TimeAttention, VideoDecoder

SIZES = Sizes(
    {"sub-a": 9, "sub.b": 5},
    3,
    {"latents": (4, 3, 8, 8), "tokens": (4, 5), "frame_tokens": (4, 9, 5), "features": (6,)},
)
SMALL = PerceptionConfig(dim=16, hidden=24, channels=8, widths=(8, 16))


def brain(rows=(3, 2), seed=0):
    chance = torch.Generator().manual_seed(seed)
    return {s: torch.randn(n, 3, v, generator=chance) for (s, v), n in zip(SIZES.voxels.items(), rows, strict=True)}


def built(config, sizes=SIZES):
    torch.manual_seed(1)
    return config.build(sizes).eval()


def linear(before, after):
    return before * after + after


def attention(c):
    return 2 * c + 4 * linear(c, c)


def resnet(a, b):
    return 2 * a + 9 * a * b + b + 2 * b + 9 * b * b + b + (linear(a, b) if a != b else 0)


def published_decoder():
    """Middle, then three times two residual blocks, each with attention in space and in time (one more number: w)."""
    both = {c: 2 * attention(c) + 1 for c in (128, 64, 32)}
    ups = sum(
        resnet(before, after) + resnet(after, after) + 2 * both[after]
        for before, after in ((128, 128), (128, 64), (64, 32))
    )
    upsampling = linear(9 * 128, 128) + linear(9 * 64, 64)
    return linear(9 * 64, 128) + 2 * resnet(128, 128) + both[128] + ups + upsampling + 2 * 32 + linear(9 * 32, 4)


def published_total(v):
    extension = linear(v, 256) + (2 * 256 + linear(256, 256) + 4) + linear(256, 6 * v)
    mixers = 4 * (2 * 4096 + 2 * linear(4096, 4096) + 6)
    tokens = 64 * 512 + 1024 + 512 * 512 + 1024 + linear(512, 512)
    return extension + linear(v, 4096) + mixers + linear(4096, 64 * 7 * 7) + 2 * 64 + tokens + published_decoder()


def test_the_published_decoder_has_the_published_size():
    assert published_decoder() == 2_166_443


@pytest.mark.parametrize(("voxels", "millions"), [(13447, 229.2), (14828, 237.3), (9114, 203.6)])
def test_the_published_network_has_the_published_size(voxels, millions):
    sizes = Sizes({"sub-a": voxels}, 1, {"latents": (6, 4, 28, 28), "tokens": (6, 49, 512)})
    with torch.device("meta"):
        model = PerceptionConfig(expansion="released", aux_target="tokens").build(sizes)
        factorised = PerceptionConfig(aux_target="tokens", hidden=4096).build(sizes)
    count = sum(p.numel() for p in model.parameters())
    assert count == published_total(voxels)
    assert round(count / 1e6, 1) == millions
    assert sum(p.numel() for p in model.heads.decoder.parameters()) == 2_166_443
    assert parameter_table(factorised)["sub-a"] == linear(voxels, 256)


def test_the_published_network_obeys_what_can_be_chosen_and_refuses_the_rest():
    sizes = Sizes({"sub-a": 5}, 1, {"latents": (2, 4, 8, 8)})
    for recipes_own in ({}, {"hidden": 4096}, {"dim": 256, "depth": 4}, {"hidden": 1024, "depth": 1}):
        chosen = PerceptionConfig.parse({"expansion": "released", **recipes_own})
        stated = yaml.safe_load(chosen.dump())
        assert [stated[name] for name in ("read_in", "dim", "depth", "hidden")] == ["window", 256, 4, 4096]
        assert PerceptionConfig.loads(chosen.dump()) == chosen == PerceptionConfig().override({"expansion": "released"})
    with torch.device("meta"):
        model = PerceptionConfig(expansion="released", dropout=0.25, map_dropout=0.5).build(sizes)
    assert (len(model.mixer.units), model.mixer.units[0][1].out_features) == (chosen.depth, chosen.hidden)
    rates = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    assert rates.count(0.5) == 1
    assert set(rates) == {0.25, 0.5}
    for name, value, has in (("hidden", 512, 4096), ("depth", 2, 4), ("dim", 64, 256), ("read_in", "scan", "window")):
        with pytest.raises(ConfigError, match=f"found {name}={value} beside expansion=released, .* has {has}; leave"):
            PerceptionConfig.parse({"expansion": "released", name: value})
        PerceptionConfig.parse({name: value})


@pytest.mark.parametrize("aux", [None, "tokens", "frame_tokens", "features"])
@pytest.mark.parametrize("read_in", ["scan", "window"])
def test_gradient_reaches_every_parameter(aux, read_in):
    model = built(SMALL.model_copy(update={"aux_target": aux, "read_in": read_in}))
    sum(x.square().mean() for x in model(brain()).values()).backward()
    largest = {n: 0.0 if p.grad is None else float(p.grad.abs().max()) for n, p in model.named_parameters()}
    assert not [n for n, g in largest.items() if not g > 1e-9]


def test_without_a_start_below_one_attention_over_time_would_have_no_gradient():
    torch.manual_seed(0)
    decoder, x = VideoDecoder(8, (64,), 3, released=True), torch.randn(4, 8, 2, 2)
    decoder(x, 4).square().mean().backward()
    gradient = {n: p.grad is not None and bool(p.grad.any()) for n, p in decoder.mid.time.named_parameters()}
    assert [n for n, some in gradient.items() if some] == ["w"]


def opened(config):
    """A model whose attention over time does something."""
    model = built(config)
    for module in model.modules():
        if isinstance(module, TimeAttention):
            nn.init.zeros_(module.w)
    return model


@pytest.mark.parametrize(("grouping", "same"), [("clip", True), ("released-batch", False)])
def test_a_clip_does_not_depend_on_the_others_unless_asked_to(grouping, same):
    model = opened(SMALL.model_copy(update={"grouping": grouping, "aux_target": "tokens"}))
    first, other = brain(), brain()
    other["sub-a"][2] += 1.0
    a, b = model(first)["latents"], model(other)["latents"]
    assert torch.allclose(a[[0, 1, 3, 4]], b[[0, 1, 3, 4]], atol=1e-6) == same
    assert not torch.allclose(a[2], b[2], atol=1e-4)
    alone = model(brain((3, 0)))["latents"]
    assert torch.allclose(a[:3], alone, atol=1e-6) == same


def test_attention_over_time_is_that_of_a_loop_over_places():
    model = opened(SMALL)
    time = model.heads.decoder.mid.time
    x = torch.randn(2 * 4, 16, 3, 2, generator=torch.Generator().manual_seed(0))
    found, layers = time(x, 4), time.attention
    for clip in range(2):
        for i in range(3):
            for j in range(2):
                frames = x[clip * 4 : clip * 4 + 4, :, i, j]
                normed = layers.norm(frames.T[None])[0].T
                scores = layers.query(normed) @ layers.key(normed).T / math.sqrt(16)
                expected = frames + layers.out(scores.softmax(1) @ layers.value(normed))
                torch.testing.assert_close(found[clip * 4 : clip * 4 + 4, :, i, j], expected)


def test_frames_of_a_clip_see_each_other():
    model = opened(SMALL)
    maps = torch.randn(8, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    before = model.heads.decoder(maps, 4)
    maps[1] += 1.0
    changed = (model.heads.decoder(maps, 4) - before).flatten(1).abs().amax(1) > 1e-6
    assert changed.tolist() == [True] * 4 + [False] * 4


@pytest.mark.parametrize("shape", [(8, 3, 8, 8), (1, 4, 6, 10), (2, 1, 3, 3)])
def test_outputs_have_the_shapes_that_the_data_decides(shape):
    sizes = Sizes(SIZES.voxels, 3, {"latents": shape, "tokens": (4, 5)})
    model = built(SMALL.model_copy(update={"aux_target": "tokens"}), sizes)
    for rows in ((3, 2), (0, 0)):
        out = model(brain(rows))
        assert out["latents"].shape == (sum(rows), *shape)
        assert out["tokens"].shape == (sum(rows), 4, 5)


def test_tokens_of_a_clip_are_the_mean_of_its_frames():
    model = built(SMALL.model_copy(update={"aux_target": "frame_tokens"}))
    frames = model(brain())["frame_tokens"]
    assert isinstance(model.heads.aux, TokenHead)
    model.heads.aux.shape = (9, 5)
    torch.testing.assert_close(model(brain())["frame_tokens"], frames.mean(1))


@pytest.mark.parametrize("config", [SMALL, SMALL.model_copy(update={"read_in": "scan"})], ids=["window", "scan"])
def test_subject_layers_are_found_by_name(config):
    assert {subject_of(n) for n, _ in built(config).named_parameters()} == {None, "sub-a", "sub.b"}


def test_it_learns_which_way_something_moves():
    """A bar in one of four places that goes left or right, told by a random linear code of both."""
    chance = torch.Generator().manual_seed(0)
    place, way = torch.randint(4, (256,), generator=chance), torch.randint(2, (256,), generator=chance)
    at = (2 * place[:, None] + (2 * way[:, None] - 1) * torch.arange(4)) % 8
    latents = torch.eye(8)[at][:, :, None, None, :].expand(-1, -1, 3, 8, -1).contiguous()
    code = torch.eye(8)[place * 2 + way] @ torch.randn(8, 27, generator=chance)
    rows = (code + 0.1 * torch.randn(256, 27, generator=chance)).view(256, 3, 9)
    torch.manual_seed(0)
    sizes = Sizes({"sub-a": 9}, 3, {"latents": (4, 3, 8, 8)})
    model = SMALL.model_copy(update={"dropout": 0.0, "map_dropout": 0.0}).build(sizes)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        part = torch.randperm(192, generator=chance)[:32]
        loss = (model({"sub-a": rows[part]})["latents"] - latents[part]).square().mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    with torch.no_grad():
        error = (model.eval()({"sub-a": rows[192:]})["latents"] - latents[192:]).square().mean()
    assert error < 0.2 * latents.var()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"target": "pictures"}, r"'pictures' is not among .*model.target"),
        ({"target": "tokens"}, r"'tokens' is of shape \(4, 5\), expected \(frames, channels"),
        ({"aux_target": "latents"}, r"'latents' has shape .* \(4, tokens, dim\)"),
        ({"aux_target": "nothing"}, r"'nothing' has shape \(\)"),
    ],
)
def test_targets_of_other_shapes_are_an_error(changes, said):
    with pytest.raises(ConfigError, match=said):
        SMALL.model_copy(update=changes).build(SIZES)
