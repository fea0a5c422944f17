"""Engines, one step at a time, on two processes: state out and in, absent subjects, uneven ranks."""

import dataclasses

import numpy as np
import pytest
import torch

from cineray.training.losses import MSEConfig, total_loss
from cineray.training.models import MODELS
from cineray.training.models.base import ClosedForm, Generative, subject_of
from cineray.training.models.semantic import SemanticConfig
from cineray.training.strategies import STRATEGIES, StrategyConfig, build_engine
from cineray.training.strategies.base import recompute_activations
from cineray.training.world import World
from multiprocess import on_ranks
from toys import SIZES, ToyStream, toy_run

SPREAD = [name for name in STRATEGIES if name != "plain"]
C_ROWS = np.array([2] * 6 + [0, 1] * 42)
"""Subject c (number 2) has the first six rows only."""


def an_engine(world, strategy, state=None, run=None):
    run = run or toy_run()
    torch.manual_seed(1)
    model = run.model.build(SIZES)
    return build_engine(strategy, model, run.optim, world, subject_of=subject_of, state=state)


def take_step(engine, world, reference, lr=1e-3, scale=1.0):
    """One step on the rows of ``reference``, rank r taking its slice."""
    batch = ToyStream(owner=C_ROWS).batch(np.asarray(reference), world.rank, world.size)
    loss, _ = total_loss(toy_run().losses, engine.forward(batch.brain), batch, world)
    engine.backward(loss * scale)
    counts = world.sum(torch.tensor([len(x) for x in batch.brain.values()])).tolist()
    norm = engine.step(lr, [s for s, count in zip(SIZES.voxels, counts, strict=True) if count == 0])
    return float(world.sum(loss.detach())), norm


def state_of(engine):
    return {name: tensor.clone() for name, tensor in engine.full_state()}


STEPS = [range(16), range(40, 56), range(0, 16, 2)]
"""c on rank 0 only (its rows come first); c absent; c again."""


def _story(world, names, precision):
    """For each strategy: losses and norms of three steps, the state after each, and after a way out and in."""
    told = {}
    for name in names:
        strategy = StrategyConfig(name=name, precision=precision)
        engine = an_engine(world, strategy)
        states, numbers = [state_of(engine)], []
        for reference in STEPS[:2]:
            numbers.append(take_step(engine, world, reference))
            states.append(state_of(engine))
        again = an_engine(world, strategy, state=states[-1])
        restored = state_of(again)
        numbers += [take_step(engine, world, STEPS[2]), take_step(again, world, STEPS[2])]
        states += [state_of(engine), state_of(again)]
        told[name] = numbers, states, restored
    return told if world.rank == 0 else None


@pytest.fixture(scope="module")
def stories():
    """Two processes go through all strategies; 60 s are the limit for each precision, hangs included."""
    import deepspeed  # noqa: F401 (5 s that forked children need not spend)

    plain = {p: _story(World(), ["plain"], p)["plain"] for p in ("fp32", "bf16")}
    return {p: on_ranks(2, _story, SPREAD, p, deadline_s=60)[0] | {"plain": plain[p]} for p in plain}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", STRATEGIES)
class TestStory:
    def test_equals_one_process(self, stories, name, precision):
        """A subject on rank 0 only, then nowhere, then again: no hang, the same losses, norms and weights."""
        numbers, states, _ = stories[precision][name]
        expected, plain_states, _ = stories["fp32"]["plain"]
        tolerance = 1e-5 if precision == "fp32" else 2e-2
        np.testing.assert_allclose(numbers, expected, rtol=tolerance)
        for key, tensor in states[3].items():
            if key.startswith("weights/"):
                torch.testing.assert_close(
                    tensor, plain_states[3][key], rtol=0, atol=5e-5 if tolerance < 1e-3 else 4e-3
                )

    def test_state_is_whole_and_exact(self, stories, name, precision):
        _, states, restored = stories[precision][name]
        plain = stories["fp32"]["plain"][1][0]
        assert set(states[0]) == set(plain)
        for key, tensor in states[0].items():
            assert tensor.dtype == torch.float32, key
            assert torch.equal(tensor, plain[key]), key  # also in bf16: the fp32 master starts where the model was
        for key, tensor in states[2].items():
            assert torch.equal(tensor, restored[key]), key
        for key, tensor in states[3].items():
            assert torch.equal(tensor, states[4][key]), key  # the step after: nothing was left out

    def test_an_absent_subject_does_not_move(self, stories, name, precision):
        _, (_, before, after, _, _), _ = stories[precision][name]
        for key in before:
            moved = not torch.equal(before[key], after[key])
            assert moved == (subject_of(key.partition("/")[2]) != "sub-c"), key
        assert any(x.abs().sum() > 0 for key, x in before.items() if "exp_avg" in key and "sub-c" in key)


SHAPES = {"features": (24,), "clip_tokens": (4, 6), "latents": (2, 3, 2, 2)}
"""The toy target in all the shapes that models want."""


def _shaped(batch):
    targets = {name: batch.targets["features"].reshape(-1, *shape) for name, shape in SHAPES.items()}
    return dataclasses.replace(batch, targets=targets)


def _one_step(world, configs, names):
    """Loss and norm; a model that draws noise draws other noise on one process than on two."""
    found = {}
    for config in configs:
        for name in names:
            torch.manual_seed(1)
            run = toy_run()
            model = config.build(dataclasses.replace(SIZES, targets=SHAPES))
            draws = isinstance(model, Generative)
            engine = build_engine(StrategyConfig(name=name), model, run.optim, world, subject_of=subject_of)
            batch = _shaped(ToyStream(owner=C_ROWS).batch(np.asarray(STEPS[0]), world.rank, world.size))
            torch.manual_seed(world.rank)
            outputs = engine.forward(batch.brain, batch.targets) if draws else engine.forward(batch.brain)
            losses = [MSEConfig(target=target) for target in SHAPES if target in outputs]
            loss, _ = total_loss(losses, outputs, batch, world)
            engine.backward(loss)
            found[config.name, name, draws] = float(world.sum(loss.detach())), engine.step(1e-3, [])
    return found


def _still(settings):
    """The same settings without dropout, of the parts too."""
    parts = {k: _still(v) for k, v in settings.items() if isinstance(v, dict)}
    return settings | parts | {k: 0.0 for k in settings if k.endswith("dropout")}


def test_every_model_under_every_strategy():
    """Layers that a rank runs without rows, parameters that get no gradient, outputs that no loss reads."""
    alike = dataclasses.replace(SIZES, voxels={"a": 4, "b": 4}, targets=SHAPES)  # what every model can be built for
    descended = [c for c in MODELS if not isinstance(c().build(alike), ClosedForm)]
    configs = [c.parse(_still(c().model_dump())) for c in descended]
    alone, together = _one_step(World(), configs, ["plain"]), on_ranks(2, _one_step, configs, SPREAD, deadline_s=120)[0]
    for (model, name, draws), found in together.items():
        expected = together[model, "ddp", True] if draws else alone[model, "plain", False]
        np.testing.assert_allclose(found, expected, rtol=1e-4, err_msg=f"{model} under {name}")


def _steep(world, names, clip_norm):
    """Weights after three steps down a slope that is steeper than 1, the usual limit."""
    found = {}
    for name in names:
        engine = an_engine(world, StrategyConfig(name=name), run=toy_run(**{"optim.clip_norm": clip_norm}))
        norms = [
            take_step(engine, world, step, scale=scale)[1] for step, scale in zip(STEPS, (10, 1000, 100), strict=True)
        ]
        assert min(norms) > 1
        found[name] = {k: x for k, x in state_of(engine).items() if k.startswith("exp_avg/")}
    return found


@pytest.mark.parametrize("clip_norm", [0.1, 1e9])
def test_every_strategy_clips_where_it_is_told(clip_norm):
    """AdamW hides the scale of a gradient from the weights, not from the moments."""
    import deepspeed  # noqa: F401 (once, before forking)

    alone = _steep(World(), ["plain"], clip_norm)["plain"]
    for name, moments in on_ranks(2, _steep, SPREAD, clip_norm)[0].items():
        for key, expected in alone.items():
            np.testing.assert_allclose(
                moments[key], expected, rtol=1e-3, atol=1e-5 * expected.abs().max(), err_msg=name
            )


def _recomputed(world, name):
    plain = an_engine(world, StrategyConfig(name=name))
    thrifty = an_engine(world, StrategyConfig(name=name, activation_checkpointing=True))
    return [take_step(plain, world, step) for step in STEPS], [take_step(thrifty, world, step) for step in STEPS]


@pytest.mark.parametrize("name", ["ddp", "fsdp2", "zero3"])
def test_recomputing_activations_changes_nothing(name):
    for usual, thrifty in on_ranks(2, _recomputed, name):
        np.testing.assert_allclose(usual, thrifty, rtol=1e-6)


def test_a_chain_of_single_layers_is_computed_again_as_a_whole():
    """What lies between them is as large as what goes in: kept apart, they would save nothing."""
    sizes = dataclasses.replace(SIZES, targets={"clip_tokens": (16, 32)})

    def kept(thrifty):
        model = SemanticConfig(dim=8).build(sizes)
        if thrifty:
            recompute_activations(model)
        total = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: (total.append(x.numel()), x)[1], lambda x: x):
            model.projector(torch.randn(64, 16, 32, requires_grad=True))
        return sum(total)

    assert kept(True) < 0.3 * kept(False)


def test_recomputing_keeps_fewer_activations():
    def kept(thrifty):
        engine = an_engine(World(), StrategyConfig(activation_checkpointing=thrifty), run=toy_run(**{"model.depth": 6}))
        batch = ToyStream().batch(np.arange(64))
        total = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: (total.append(x.numel()), x)[1], lambda x: x):
            engine.forward(batch.brain)
        return sum(total)

    assert kept(True) < 0.7 * kept(False)
