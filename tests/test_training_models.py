"""Contracts that every registered model must meet."""

import pytest
import torch

from cineray.training.models import MODELS
from cineray.training.models.base import Generative, Sizes, subject_of

TARGETS = {"features": (4,), "clip_tokens": (2, 3), "latents": (2, 3, 4, 4)}
SIZES = Sizes(voxels={"sub-a": 9, "sub.b": 5}, scans=3, targets=TARGETS)


def brain(rows=(3, 2)):
    generator = torch.Generator().manual_seed(0)
    return {s: torch.randn(n, 3, v, generator=generator) for (s, v), n in zip(SIZES.voxels.items(), rows, strict=True)}


def learning(model):
    """What a model predicts while it trains; many rows, so that each way of dropping a condition occurs."""
    if not isinstance(model, Generative):
        return model(brain())
    generator = torch.Generator().manual_seed(1)
    return model(brain((20, 20)), {t: torch.randn(40, *s, generator=generator) for t, s in TARGETS.items()})


CLOSED_FORM = ("ridge", "srm", "mean_of_others", "pooled_ridge", "matched_filter", "chance")
GRADIENT_MODELS = [m for m in MODELS if m().name not in CLOSED_FORM]


@pytest.mark.parametrize("config", GRADIENT_MODELS, ids=lambda m: m().name)
def test_gradient_reaches_every_parameter(config):
    torch.manual_seed(0)
    model = config().build(SIZES)
    model.train(isinstance(model, Generative))  # these drop conditions only while they train
    sum(x.square().mean() for x in learning(model).values()).backward()
    dead = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not dead


@pytest.mark.parametrize("config", GRADIENT_MODELS, ids=lambda m: m().name)
def test_a_row_is_decoded_the_same_whoever_stands_beside_it(config):
    model = config().build(SIZES).eval()
    both, alone = model(brain()), model(brain((3, 0)))
    for name in both:
        torch.testing.assert_close(both[name][:3], alone[name])


@pytest.mark.parametrize("config", GRADIENT_MODELS, ids=lambda m: m().name)
def test_subject_layers_are_found_by_name(config):
    model = config().build(SIZES)
    owners = {subject_of(n) for n, _ in model.named_parameters()}
    assert owners == ({None, "sub-a", "sub.b"} if getattr(model, "reads_brains", True) else {None})
