"""Published totals, the same from formulas layer by layer, and from networks made without memory."""

import pytest
import torch
from diffusers.models.autoencoders.vae import Decoder
from torch import nn

from cineray.training.models.base import Sizes, parameter_table
from cineray.training.models.prior import PriorConfig
from cineray.training.models.prior_network import PriorNetwork
from cineray.training.models.semantic import SemanticConfig
from parameter_formulas import decoder, linear, mindeye1_network, mindeye2_backbone, mindeye2_low_level, prior_network

ROTARY = 16
"""Entries of a table of frequencies that published totals count and that is no weight."""
VOXELS = 15_724
"""Of NSD's first subject."""


def size(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.fixture(autouse=True)
def without_memory():
    with torch.device("meta"):
        yield


@pytest.mark.parametrize(
    ("shape", "published"), [((257, 768, 6, 12, 64), 56_055_168), ((256, 1664, 6, 32, 52), 259_865_200)]
)
def test_the_priors_of_mindeye1_and_mindeye2(shape, published):
    tokens, dim, depth, heads, head_dim = shape
    assert size(PriorNetwork(*shape)) == prior_network(dim, tokens, depth, heads, head_dim) == published


def unit(inputs, outputs, drop):
    return nn.Sequential(nn.Linear(inputs, outputs), nn.LayerNorm(outputs), nn.GELU(), nn.Dropout(drop))


def test_mindeye1():
    """No class of ours has its residual units: the network is put together here, layer after layer."""
    layers: list[nn.Module] = [unit(VOXELS, 4096, 0.5), *(unit(4096, 4096, 0.15) for _ in range(4))]
    layers += [nn.Linear(4096, 257 * 768), nn.LayerNorm(768), nn.GELU(), nn.Linear(768, 2048)]
    layers += [nn.LayerNorm(2048), nn.GELU(), nn.Linear(2048, 2048), nn.LayerNorm(2048), nn.GELU()]
    layers += [nn.Linear(2048, 768)]
    assert size(nn.Sequential(*layers)) == mindeye1_network(VOXELS) == 947_579_904
    prior = size(PriorNetwork(257, 768, 6, 12, 64))
    assert mindeye1_network(VOXELS) + prior + ROTARY == 1_003_635_088


def test_the_low_level_branch_of_mindeye2():
    """No class of ours, for the perception reconstructor takes its place; its decoder is the library's."""
    widths = (32, 64, 128)
    theirs = Decoder(64, 4, ("UpDecoderBlock2D",) * 3, widths, layers_per_block=1)
    assert size(theirs) == decoder(64, 4, widths[::-1])
    head = nn.Sequential(
        nn.Conv2d(64, 512, 1, bias=False),
        nn.GroupNorm(1, 512),
        nn.ReLU(),
        nn.Conv2d(512, 512, 1, bias=False),
        nn.GroupNorm(1, 512),
        nn.ReLU(),
        nn.Conv2d(512, 512, 1),
    )
    branch = nn.ModuleList([nn.Linear(4096, 64 * 7 * 7), nn.GroupNorm(1, 64), theirs, head])
    assert size(branch) == mindeye2_low_level() == 15_158_628
    assert linear(4096, 64 * 7 * 7) == 12_848_192


@pytest.mark.parametrize(
    ("hidden", "low_level", "backbone", "with_ridge", "whole"),
    [
        (4096, True, 1_903_020_028, 1_967_429_628, 2_227_294_844),
        (1024, False, 453_360_280, 469_462_680, 729_327_896),
    ],
)
def test_mindeye2(hidden, low_level, backbone, with_ridge, whole):
    branch = mindeye2_low_level(hidden) if low_level else 0
    ridge = linear(VOXELS, hidden)
    prior = prior_network(1664, 256, 6, 32, 52)
    found = mindeye2_backbone(hidden) + branch
    assert (found, found + ridge, found + ridge + prior + ROTARY) == (backbone, with_ridge, whole)
    config = PriorConfig(semantic=SemanticConfig(mixer="released", dim=hidden), condition="backbone")
    model = config.build(Sizes({"1": VOXELS}, 1, {"clip_tokens": (256, 1664)}))
    assert parameter_table(model.semantic) == {"shared": mindeye2_backbone(hidden), "1": ridge}
    assert size(model) == whole - branch - ROTARY
