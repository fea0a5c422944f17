"""Optimiser and schedule against torch's own."""

import copy

import numpy as np
import pytest
import torch

from cineray.training.models.base import subject_of
from cineray.training.models.shared import SharedConfig
from cineray.training.optim import OptimConfig, learning_rate
from toys import SIZES


@pytest.mark.parametrize("num_steps", [7, 10, 137])
@pytest.mark.parametrize("warmup", [0.0, 0.25, 0.5])
def test_one_cycle_is_torchs(num_steps, warmup):
    config = OptimConfig(lr=3e-4, warmup_fraction=warmup)
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 3e-4, total_steps=num_steps, pct_start=warmup, div_factor=25, final_div_factor=1000
    )
    expected = []
    for _ in range(num_steps):
        expected.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    np.testing.assert_allclose([learning_rate(config, i, num_steps) for i in range(num_steps)], expected, rtol=1e-9)


def test_a_warm_up_of_one_step_is_the_peak():
    """Where torch divides by zero."""
    assert learning_rate(OptimConfig(lr=0.5, warmup_fraction=0.5), 0, 2) == 0.5


def test_constant():
    config = OptimConfig(lr=0.5, schedule="constant")
    assert {learning_rate(config, i, 7) for i in range(7)} == {0.5}


def a_model():
    torch.manual_seed(0)
    return SharedConfig(dim=8, depth=1).build(SIZES)


def test_biases_and_norms_do_not_decay_and_read_ins_have_their_own():
    model = a_model()
    optimiser = OptimConfig(weight_decay=0.1, read_in_weight_decay=0.7).build(model, subject_of)
    names = {id(p): name for name, p in model.named_parameters()}
    found = {names[id(p)]: g["weight_decay"] for g in optimiser.param_groups for p in g["params"]}
    assert set(found) == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        expected = 0.0 if parameter.ndim == 1 else 0.7 if subject_of(name) else 0.1
        assert found[name] == expected, name


def test_an_absent_subject_is_left_alone_and_the_rest_is_adamw():
    ours, theirs = a_model(), copy.deepcopy(a_model())
    config = OptimConfig(weight_decay=0.1)
    optimiser = config.build(ours, subject_of)
    decay, rest = ([p for p in theirs.parameters() if (p.ndim > 1) is big] for big in (True, False))
    reference = torch.optim.AdamW(
        [{"params": decay, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}], foreach=False
    )
    for step in range(4):
        for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            b.grad = torch.randn(b.shape, generator=torch.Generator().manual_seed(step))
            a.grad = b.grad.clone()
            if step == 2 and subject_of(name) == "sub.b":
                b.grad = None  # torch skips such a parameter: weights, moments and counter
                a.grad.zero_()  # what a layer without rows gets
        for group in reference.param_groups:
            group["lr"] = 0.01 * (step + 1)
        optimiser.prepare(0.01 * (step + 1), ["sub.b"] if step == 2 else [])
        optimiser.step()
        reference.step()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
        assert optimiser.state[a]["step"] == reference.state[b]["step"]
