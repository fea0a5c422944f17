"""The diffusion prior against its published sizes and its equations written out."""

import cmath
import math

import numpy as np
import pytest
import torch

from cineray.core.errors import ConfigError
from cineray.training.models.base import Sizes, subject_of
from cineray.training.models.prior import PriorConfig
from cineray.training.models.prior_network import PriorNetwork, relative_buckets, rotary_angles, rotated
from cineray.training.models.semantic import SemanticConfig
from parameter_formulas import linear, mindeye2_low_level, prior_network

SIZES = Sizes(voxels={"sub-a": 9, "sub.b": 5}, scans=3, targets={"clip_tokens": (4, 6), "clip_text": (5,)})
TINY = PriorConfig(semantic=SemanticConfig(dim=8, text_target="clip_text"), depth=2, heads=2, head_dim=40, steps=5)


def brain(rows=(3, 2)):
    generator = torch.Generator().manual_seed(0)
    return {s: torch.randn(n, 3, v, generator=generator) for (s, v), n in zip(SIZES.voxels.items(), rows, strict=True)}


def targets(num):
    generator = torch.Generator().manual_seed(1)
    return {t: torch.randn(num, *shape, generator=generator) for t, shape in SIZES.targets.items()}


def test_parameters_of_the_published_network():
    with torch.device("meta"):
        model = PriorConfig().build(Sizes({"1": 15724}, 1, {"clip_tokens": (256, 1664)}))
    assert sum(p.numel() for p in model.network.parameters()) == prior_network(1664, 256, 6, 32, 52) == 259_865_200


def test_parameters_of_mindeye2_with_its_prior():
    config = PriorConfig(semantic=SemanticConfig(mixer="released"), condition="backbone")
    with torch.device("meta"):
        large, small = (
            config.override({"semantic.dim": dim}).build(Sizes({"1": 15724}, 1, {"clip_tokens": (256, 1664)}))
            for dim in (4096, 1024)
        )
    frequencies = 16  # a table that is no weight of ours
    assert sum(p.numel() for p in large.parameters()) + frequencies + mindeye2_low_level() == 2_227_294_844
    assert sum(p.numel() for p in small.parameters()) + frequencies == 729_327_896


def test_full_size_settings_build_and_a_tokenwise_head_too():
    config = PriorConfig(semantic=SemanticConfig(head="tokenwise", text_target="clip_text"))
    sizes = Sizes({"1": 13447}, 1, {"clip_tokens": (257, 768), "clip_text": (768,)})
    with torch.device("meta"):
        model = config.build(sizes).train()
        rows = {t: torch.randn(2, *s) for t, s in sizes.targets.items()}
        out = model({"1": torch.randn(2, 1, 13447)}, rows)
    assert {name: tuple(x.shape) for name, x in out.items()} == {
        "clip_tokens": (2, 257, 768),
        "clip_text": (2, 768),
        "retrieval": (2, 257, 768),
    }


def bucket(back):
    """T5's bucket of a distance, one number at a time."""
    if back <= 0:
        return 0
    if back < 16:
        return back
    return min(31, 16 + int(math.log(back / 16) / math.log(128 / 16) * 16))


def test_relative_buckets_are_those_of_t5_counted_by_hand():
    found = relative_buckets(300, 301)
    expected = [[bucket(query - key) for key in range(301)] for query in range(300)]
    off = (found - torch.tensor(expected)).abs()
    assert off.max() <= 1  # a logarithm in fp32 may fall on the other side of an edge
    assert (off > 0).float().mean() < 0.01


def test_rotary_turns_pairs_as_complex_numbers_and_leaves_the_rest():
    x = torch.randn(7, 10, dtype=torch.float64)
    found = rotated(x, rotary_angles(7, 6))
    for place in range(7):
        for pair in range(3):
            number = complex(*x[place, 2 * pair : 2 * pair + 2].tolist())
            turned = number * cmath.exp(1j * place * 10000.0 ** (-2 * pair / 6))
            np.testing.assert_allclose(found[place, 2 * pair : 2 * pair + 2], [turned.real, turned.imag], atol=1e-5)
    assert torch.equal(found[:, 6:], x[:, 6:])


def norm(x, gain):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * gain


def test_the_network_is_its_equations_written_out_head_by_head():
    torch.manual_seed(0)
    network = PriorNetwork(tokens=3, dim=8, depth=2, heads=2, head_dim=36).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    p = {name: x.detach().numpy() for name, x in network.named_parameters()}
    noisy, given = torch.randn(2, 1, 3, 8, dtype=torch.float64)
    expected = written_out(p, noisy[0].numpy(), 42, given[0].numpy())
    found = network(noisy, torch.tensor([42]), given)
    np.testing.assert_allclose(found[0].detach().numpy(), expected, rtol=1e-4, atol=1e-5)


def written_out(p, noisy, time, given):
    """Three tokens, width 8, two layers, two heads of 36 numbers of which 32 turn."""
    angles = time * np.exp(-np.arange(4) * math.log(10000) / 3)
    t = np.concatenate([np.sin(angles), np.cos(angles)])
    for number in (0, 2):
        t = p[f"time.{number}.weight"] @ t + p[f"time.{number}.bias"]
        t = t / (1 + np.exp(-t))
    t = p["time.4.weight"] @ t + p["time.4.bias"]
    x = np.concatenate([given, t[None], noisy + p["place"]])
    turns = np.exp(1j * np.arange(7)[:, None] * 10000.0 ** (-np.arange(16) / 16))

    def turned(y):
        pairs = (y[:, 0:32:2] + 1j * y[:, 1:32:2]) * turns
        y = y.copy()
        y[:, 0:32:2], y[:, 1:32:2] = pairs.real, pairs.imag
        return y

    for layer in (f"layers.{number}" for number in range(2)):
        y = norm(x, p[f"{layer}.attention_norm.weight"])
        queries, both = y @ p[f"{layer}.query.weight"].T, y @ p[f"{layer}.key_value.weight"].T
        null = p[f"{layer}.null_key_value"]
        keys = np.concatenate([null[:1], turned(both[:, :36])])
        values = np.concatenate([null[1:], both[:, 36:]])
        keys = keys / np.linalg.norm(keys, axis=1, keepdims=True)
        attended = []
        for head in range(2):
            own = turned(queries[:, 36 * head : 36 * head + 36])
            own = own / np.linalg.norm(own, axis=1, keepdims=True)
            logits = 16 * own @ keys.T
            logits += [[p["bias.weight"][bucket(i - j), head] for j in range(8)] for i in range(7)]
            weights = np.exp(logits - logits.max(1, keepdims=True))
            attended.append(weights / weights.sum(1, keepdims=True) @ values)
        out = np.concatenate(attended, axis=1) @ p[f"{layer}.attention_out.weight"].T
        x = x + norm(out, p[f"{layer}.attention_out_norm.weight"])
        up, gate = np.split(norm(x, p[f"{layer}.forward_norm.weight"]) @ p[f"{layer}.forward_in.weight"].T, 2, axis=1)
        x = x + (up * gate / (1 + np.exp(-gate))) @ p[f"{layer}.forward_out.weight"].T
    x = x[-3:] / x[-3:].max(1, keepdims=True)
    return norm(x, p["norm.weight"]) @ p["out.weight"].T


def test_null_tokens_take_the_place_of_what_is_dropped_row_by_row():
    torch.manual_seed(0)
    network = PriorNetwork(3, 8, 1, 2, 8)
    noisy, given = torch.randn(2, 2, 3, 8)
    times, keep = torch.tensor([5, 80]), torch.tensor([True, False])
    both = network(noisy, times, given, keep, keep)
    torch.testing.assert_close(both[:1], network(noisy[:1], times[:1], given[:1]))
    alone = network(network.null_image[None], times[1:], network.null_brain[None])
    torch.testing.assert_close(both[1:], alone)


def test_how_often_brain_and_image_are_dropped():
    torch.manual_seed(0)
    model = TINY.build(SIZES)
    kept = []
    model.network.register_forward_pre_hook(lambda _, inputs: kept.append(torch.stack(inputs[3:])))
    model({"sub-a": torch.randn(4000, 3, 9), "sub.b": torch.randn(0, 3, 5)}, targets(4000))
    brain_kept, image_kept = kept[0].float()
    assert brain_kept.mean() == pytest.approx(0.8, abs=0.03)
    assert image_kept.mean() == pytest.approx(0.8, abs=0.03)
    assert (brain_kept * image_kept).mean() == pytest.approx(0.64, abs=0.03)


@pytest.mark.parametrize("condition", ["projected", "backbone"])
@pytest.mark.parametrize("sampler", ["ddim", "dalle2-legacy"])
def test_a_row_is_drawn_alike_whoever_stands_beside_it_and_again(condition, sampler):
    model = TINY.override({"condition": condition, "sampler": sampler, "eta": 0.5}).build(SIZES).eval()
    both, alone, again = model(brain()), model(brain((3, 0))), model(brain())
    assert set(both) == {"clip_tokens", "clip_text", "retrieval"}
    for name, rows in both.items():
        torch.testing.assert_close(rows[:3], alone[name])
        assert torch.equal(rows, again[name])
    assert not torch.allclose(both["clip_tokens"][0], both["clip_tokens"][1])


def test_the_condition_is_the_tokens_that_it_names():
    model = TINY.build(SIZES).eval()
    found = model.semantic.decode(brain())
    seen = []
    model.network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[2]))
    model(brain())
    model.config = TINY.override({"condition": "backbone"})
    model(brain())
    torch.testing.assert_close(seen[0], found.projected)
    torch.testing.assert_close(seen[-1], found.backbone)


def test_guidance_goes_on_from_the_estimate_without_the_brain():
    model = TINY.override({"steps": 2}).build(SIZES).eval()
    nobody = torch.zeros(5, dtype=torch.bool)
    given = model.semantic.decode(brain()).projected
    seen = []
    hook = model.network.register_forward_hook(lambda _, inputs, out: seen.append((inputs, out)))
    model.config = model.config.override({"guidance": 3.0})
    drawn = model(brain())["clip_tokens"]
    hook.remove()
    (last_with, with_brain), (_, without) = seen[-2:]
    torch.testing.assert_close(drawn, without + 3 * (with_brain - without))
    torch.testing.assert_close(without, model.network(*last_with[:2], given, nobody, nobody))


def test_a_width_of_its_own_leads_in_and_out_of_the_sequence():
    wide, d, w = TINY.override({"width": 10}).build(SIZES).network, 6, 10
    layer = w + w * 80 + w * 2 * 40 + 2 * 40 + 80 * w + w + w + 8 * w * w + 4 * w * w
    time = linear(w, 2 * w) + linear(2 * w, 2 * w) + linear(2 * w, w)
    expected = 2 * layer + 32 * 2 + w + w * d + time + 4 * (2 * d + w) + 2 * linear(d, w)
    assert sum(p.numel() for p in wide.parameters()) == expected
    assert wide(torch.randn(3, 4, 6), torch.tensor([1, 2, 3]), torch.randn(3, 4, 6)).shape == (3, 4, 6)


@pytest.mark.parametrize("width", [None, 10])
@pytest.mark.parametrize("condition", ["projected", "backbone"])
def test_gradient_reaches_everything_and_the_reconstructor_below(condition, width):
    torch.manual_seed(0)
    model = TINY.override({"condition": condition, "width": width}).build(SIZES).train()
    out = model(brain((20, 20)), targets(40))
    sum(x.square().mean() for x in out.values()).backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert {subject_of(n) for n, _ in model.named_parameters()} == {None, "sub-a", "sub.b"}


def test_a_vector_is_one_token_and_stays_a_vector():
    """The same network as on (1, dim), while it trains and when it draws."""
    found = []
    for shape in ((6,), (1, 6)):
        torch.manual_seed(0)
        model = TINY.build(Sizes(SIZES.voxels, SIZES.scans, {**SIZES.targets, "clip_tokens": shape}))
        clean = {"clip_tokens": targets(5)["clip_tokens"][:, 0].reshape(5, *shape)}
        found.append([model(brain(), clean), model.eval()(brain())])
    for vector, token in zip(*found, strict=True):
        for name in ("clip_tokens", "retrieval"):
            assert vector[name].shape == (5, 6)
            assert torch.equal(vector[name], token[name][:, 0])


def test_a_frozen_reconstructor_has_no_dropout_while_the_prior_trains():
    model = TINY.override({"semantic.head_dropout": 0.5}).build(SIZES)
    assert model.train().semantic.training
    model.semantic.requires_grad_(False)
    assert not model.train().semantic.training
    assert model.network.training


def test_a_batch_without_rows_passes():
    model = TINY.build(SIZES)
    out = model(brain((0, 0)), targets(0))
    sum(x.sum() for x in out.values()).backward()
    assert out["clip_tokens"].shape == (0, 4, 6)


def test_half_precision_stays_near_full():
    torch.manual_seed(0)
    model = TINY.build(SIZES).eval()
    full = model(brain())["clip_tokens"]
    with torch.autocast("cpu", torch.bfloat16):
        half = model(brain())["clip_tokens"]
    assert half.dtype == torch.float32
    assert (half - full).square().mean() < 0.01 * full.square().mean()


def test_steps_that_the_sampler_cannot_take_equally_are_refused():
    with pytest.raises(ConfigError, match=r"model.steps is 30, expected a divisor of 100"):
        PriorConfig.parse({"steps": 30})
    assert PriorConfig(steps=30, sampler="dalle2-legacy").steps == 30
