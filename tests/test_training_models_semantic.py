"""The semantic reconstructor against the published sizes and the same sums written out."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import gelu, layer_norm

from cineray.core.errors import ConfigError
from cineray.datasets.batch import Batch
from cineray.training.losses import BiMixCoConfig, InfoNCEConfig, MSEConfig, SoftCLIPConfig, active, total_loss
from cineray.training.mixing import mix
from cineray.training.models.base import Sizes, parameter_table, subject_of
from cineray.training.models.mixers import ReleasedMixer
from cineray.training.models.semantic import SemanticConfig
from cineray.training.optim import OptimConfig
from cineray.training.world import World
from parameter_formulas import linear, mindeye2_low_level

SIZES = Sizes(voxels={"sub-a": 9, "sub.b": 5}, scans=3, targets={"clip_tokens": (4, 6), "clip_text": (5,)})
TINY = SemanticConfig(dim=8, text_target="clip_text")
HEADS = [TINY, TINY.override({"head": "low_rank", "rank": 3}), TINY.override({"head": "tokenwise", "rank": 3})]


def brain(rows=(3, 2), sizes=SIZES):
    generator = torch.Generator().manual_seed(0)
    return {
        s: torch.randn(n, sizes.scans, v, generator=generator)
        for (s, v), n in zip(sizes.voxels.items(), rows, strict=True)
    }


def batch(rows=(20, 12)):
    generator = torch.Generator().manual_seed(1)
    num = sum(rows)
    targets = {t: torch.randn(num, *shape, generator=generator) for t, shape in SIZES.targets.items()}
    return Batch(brain(rows), targets, torch.arange(num), torch.arange(num), num)


VOXELS = {"1": 13447, "2": 14828, "3": 9114}
PUBLISHED = {"1": 55_083_008, "2": 60_739_584, "3": 37_335_040}


@pytest.mark.parametrize(("mixer", "mixers"), [("released", 134_283_264 + 24), ("none", 0)])
def test_parameters_of_the_published_network(mixer, mixers):
    sizes = Sizes(VOXELS, 1, {"clip_tokens": (256, 1664), "clip_text": (1280,)})
    with torch.device("meta"):
        model = SemanticConfig(mixer=mixer, text_target="clip_text").build(sizes)
    table = parameter_table(model)
    assert {s: table[s] for s in VOXELS} == PUBLISHED
    text = 1664 * 1280
    expected = mixers + linear(4096, 256 * 1664) + 3 * (2 * 1664 + linear(1664, 1664))
    assert table["shared"] - text == expected
    assert expected == 1_887_861_400 - (0 if mixers else 134_283_288)


MINDEYE2 = {
    "1": 64_409_600, "2": 58_486_784, "3": 62_369_792, "4": 53_878_784,
    "5": 53_411_840, "6": 73_351_168, "7": 51_949_568, "8": 58_929_152,
}  # fmt: skip
LOW_LEVEL = mindeye2_low_level()
"""Parameters of a branch that the perception reconstructor takes the place of."""


def test_parameters_of_mindeye2():
    voxels = {s: (n - 4096) // 4096 for s, n in MINDEYE2.items()}
    assert voxels["1"] == 15724
    with torch.device("meta"):
        model = SemanticConfig(mixer="released").build(Sizes(voxels, 1, {"clip_tokens": (256, 1664)}))
        small = SemanticConfig(mixer="released", dim=1024).build(
            Sizes({"1": voxels["1"]}, 1, {"clip_tokens": (256, 1664)})
        )
    table = parameter_table(model)
    assert {s: table[s] for s in MINDEYE2} == MINDEYE2
    assert sum(table[s] for s in MINDEYE2 if s != "1") == 412_377_088
    assert table["shared"] + LOW_LEVEL == 1_903_020_028
    assert table["shared"] + LOW_LEVEL + table["1"] == 1_967_429_628
    assert parameter_table(small) == {"shared": 453_360_280, "1": 16_102_400}


@pytest.mark.parametrize(
    ("config", "expected"),
    zip(HEADS, [linear(8, 4 * 6), 8 * 3 + linear(3, 4 * 6), linear(8, 4 * 3) + linear(3, 6)], strict=True),
    ids=lambda x: getattr(x, "head", ""),
)
def test_parameters_of_the_heads(config, expected):
    model = config.build(SIZES)
    assert sum(p.numel() for p in model.head.parameters()) == expected


def test_tokens_are_those_of_the_sums_written_out():
    model = TINY.build(SIZES).double()
    p = {name: x.detach() for name, x in model.named_parameters()}
    rows = brain()["sub.b"].double()
    vector = rows.reshape(2, -1) @ p["read_in.sub·b.weight"].T + p["read_in.sub·b.bias"]
    tokens = (vector @ p["head.0.weight"].T + p["head.0.bias"]).reshape(2, 4, 6)
    for first in (0, 3, 6):
        tokens = gelu(layer_norm(tokens, (6,), p[f"projector.{first}.weight"], p[f"projector.{first}.bias"]))
        tokens = tokens @ p[f"projector.{first + 2}.weight"].T + p[f"projector.{first + 2}.bias"]
    found = model({s: x.double() for s, x in brain().items()})
    torch.testing.assert_close(found["clip_tokens"][3:], tokens)
    text = np.einsum("btd,od->bo", tokens.numpy() / 4, p["text.weight"].numpy())
    np.testing.assert_allclose(found["clip_text"][3:].detach().numpy(), text)


def test_a_tokenwise_head_makes_every_token_of_its_own_numbers():
    model = TINY.override({"head": "tokenwise", "rank": 3}).build(SIZES)
    with torch.no_grad():
        before = model.head(torch.ones(1, 8))
        model.get_parameter("head.0.weight")[3:6] += 1.0  # the second token's
        changed = (model.head(torch.ones(1, 8)) != before).any(-1)[0]
    assert changed.tolist() == [False, True, False, False]


def test_the_released_mixer_adds_one_number_a_block_and_its_declared_parameters_stay_without_gradient():
    mixer = ReleasedMixer(6, 3, dropout=0.15).double().eval()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(parameter.numel()))
    x = torch.randn(5, 6, dtype=torch.float64)
    added = mixer(x) - x
    p = {name: x.detach() for name, x in mixer.named_parameters()}
    expected = 0.0
    for first in (f"tokens.{block}" for block in range(3)):
        hidden = gelu(p[f"{first}.1.weight"][0] * p[f"{first}.0.bias"] + p[f"{first}.1.bias"])
        expected += (p[f"{first}.4.weight"][0] * hidden + p[f"{first}.4.bias"]).item()
    torch.testing.assert_close(added, torch.full_like(added, expected))
    mixer(x).square().sum().backward()
    size = {n: p.grad.abs().sum() for n, p in mixer.named_parameters() if p.grad is not None}
    dead = {n for n, found in size.items() if found < 1e-12 * max(size.values())}
    assert dead == mixer.without_gradient()
    live = sum(p.numel() for n, p in mixer.named_parameters() if n not in dead)
    assert live == 3 * (1 + 2 * 2)


@pytest.mark.parametrize(
    "config", [*HEADS, TINY.override({"mixer": "residual-mlp"}), TINY.override({"read_in": "scan"})], ids=str
)
def test_gradient_reaches_every_parameter_of_every_variant(config):
    model = config.build(SIZES).eval()
    sum(x.square().mean() for x in model(brain()).values()).backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def test_contrastive_losses_fall_in_their_phases_on_flattened_tokens():
    losses = (
        BiMixCoConfig(target="clip_tokens", phase=(0, 0.33)),
        SoftCLIPConfig(target="clip_tokens", phase=(0.33, 1), last_temperature=0.0075),
        InfoNCEConfig(target="clip_text", temperature=0.1, weight=0.25),
        MSEConfig(target="clip_tokens"),
    )
    torch.manual_seed(0)
    model = TINY.override({"dim": 64}).build(SIZES)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rows, generator = batch(), torch.Generator().manual_seed(0)
    history = []
    for epoch in range(60):
        now = active(losses, epoch, 60)
        seen = mix(rows, generator) if any(loss.mixes for loss in now) else rows
        total, parts = total_loss(now, model(seen.brain), seen, World())
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        history.append({k: v.item() for k, v in parts.items()})
    assert [set(history[e]) for e in (0, 59)] == [
        {f"{first}/clip_tokens", "info_nce/clip_text", "mse/clip_tokens"} for first in ("bimixco", "soft_clip")
    ]
    tokens = model(rows.brain)["clip_tokens"].flatten(1)
    likeness = nn.functional.cosine_similarity(tokens[:, None], rows.targets["clip_tokens"].flatten(1)[None], dim=-1)
    assert (likeness.argmax(1) == torch.arange(32)).float().mean() > 0.8  # chance 1 / 32


def test_dropout_before_the_head_acts_in_training_only():
    model = TINY.override({"head_dropout": 0.5}).build(SIZES)
    first, second = model(brain())["clip_tokens"], model(brain())["clip_tokens"]
    assert not torch.equal(first, second)
    model.eval()
    assert torch.equal(model(brain())["clip_tokens"], model(brain())["clip_tokens"])


def test_a_vector_is_one_token_and_stays_a_vector():
    """The same network as on (1, dim)."""
    found = []
    for shape in ((6,), (1, 6)):
        torch.manual_seed(0)
        sizes = Sizes(SIZES.voxels, SIZES.scans, {**SIZES.targets, "clip_tokens": shape})
        found.append(TINY.build(sizes)(brain()))
    vector, token = found
    assert vector["clip_tokens"].shape == (5, 6)
    assert torch.equal(vector["clip_tokens"], token["clip_tokens"][:, 0])
    assert torch.equal(vector["clip_text"], token["clip_text"])


def test_a_frozen_text_matrix_and_targets_that_are_not_there():
    model = TINY.override({"train_text": False}).build(SIZES)
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["text.weight"]
    with pytest.raises(ConfigError, match=r"targets features, the model predicts 'clip_tokens'; add it"):
        SemanticConfig().build(Sizes({"s": 3}, 1, {"features": (4,)}))
    with pytest.raises(ConfigError, match=r"shape \(2, 4, 4\), the model expects \(tokens, dim\)"):
        SemanticConfig(target="features").build(Sizes({"s": 3}, 1, {"features": (2, 4, 4)}))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"depth": 2}, r"found depth=2 beside mixer=none, where it does nothing; leave depth at 4"),
        ({"dropout": 0.3}, r"found dropout=0\.3 beside mixer=none"),
        ({"rank": 3}, r"found rank=3 beside head=full, where it does nothing; .* or set another head"),
        ({"head": "low_rank", "depth": 2}, r"depth=2"),
        ({"mixer": "released", "rank": 3}, r"rank=3"),
    ],
)
def test_settings_that_do_nothing_are_refused(settings, sentence):
    with pytest.raises(ConfigError, match=sentence):
        TINY.override(settings)
    assert SemanticConfig.loads(TINY.dump()) == TINY, "defaults that a run.yaml states are no such settings"


def test_a_full_size_step_at_a_width_of_1024_lowers_the_loss():
    """134 million parameters and 256 x 1664 tokens: 3 GB, three seconds of one core."""
    torch.manual_seed(0)
    sizes = Sizes({"1": 13447}, 1, {"clip_tokens": (256, 1664), "clip_text": (1280,)})
    model = SemanticConfig(dim=1024, head="low_rank", text_target="clip_text").build(sizes)
    seen = {"1": torch.randn(2, 1, 13447)}
    targets = {name: torch.randn(2, *shape) for name, shape in sizes.targets.items()}
    rows = Batch(seen, targets, torch.arange(2), torch.arange(2), 2)
    losses = [BiMixCoConfig(target="clip_tokens"), InfoNCEConfig(target="clip_text", temperature=0.1, weight=0.25)]
    optimiser = OptimConfig().build(model, subject_of)
    before, _ = total_loss(losses, model(seen), rows, World())
    before.backward()
    optimiser.prepare(1e-4, ())
    optimiser.step()
    with torch.no_grad():
        after, _ = total_loss(losses, model(seen), rows, World())
    assert after < before - 0.1
