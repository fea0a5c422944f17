"""Every strategy on two workers against one process, through the whole loop; two ways to be wrong must show."""

import numpy as np
import pytest

from cineray.core.storage import Store
from cineray.training.checkpoint import latest, read_manifest, read_tensors
from cineray.training.loop import Callbacks, train
from cineray.training.strategies import STRATEGIES
from cineray.training.strategies.native import DDPEngine, NativeEngine
from cineray.training.world import World
from multiprocess import on_ranks
from toys import SIZES, ToyStream, toy_feed, toy_run

SPREAD = [name for name in STRATEGIES if name != "plain"]
TOLERANCE = {"fp32": 1e-3, "bf16": 5e-3}
LOSSES = [{"name": "mse"}, {"name": "info_nce", "temperature": 0.5, "weight": 0.3}]
CHANGES = {"optim.epochs": 9, "optim.accumulate": 2, "losses": LOSSES, "fault.checkpoint_every_steps": 1000}
"""54 steps of two micro-batches, the last of an epoch short."""


def curve(world, folder, **changes):
    """Loss and gradient norm of every step."""
    found = []

    def note(step, metrics):
        if "norm" in metrics:
            found.append((metrics["loss"], metrics["norm"]))

    run = toy_run(**CHANGES, **changes, num_workers=world.size)
    train(run, world, toy_feed(validate=False), Store.at(folder), callbacks=Callbacks(on_step=note))
    return np.array(found)


def _curves(world, folder, names, precision):
    changes = {"strategy.precision": precision}
    return {name: curve(world, f"{folder}/{name}", **{"strategy.name": name}, **changes) for name in names}


def difference(found, expected):
    """Largest relative difference of a step's loss or norm: **the** comparison, for the right and for the wrong."""
    assert found.shape == expected.shape
    return np.abs(found / expected - 1).max()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    found = curve(World(), tmp_path_factory.mktemp("alone"))
    assert len(found) >= 50
    assert found[-6:, 0].mean() < 0.7 * found[:6, 0].mean(), "it must learn, or equality would mean little"
    return found


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    import deepspeed  # noqa: F401 (once, before forking)

    folder = tmp_path_factory.mktemp("together")
    return {p: on_ranks(2, _curves, f"{folder}/{p}", SPREAD, p, deadline_s=200)[0] for p in TOLERANCE}


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("name", SPREAD)
def test_two_workers_are_one_process(alone, together, name, precision):
    assert difference(together[precision][name], alone) <= TOLERANCE[precision]


def _summed(world, folder):
    right = DDPEngine.backward
    DDPEngine.backward = lambda self, share: right(self, share * self.setting.world.size)
    return curve(world, folder, **{"strategy.name": "ddp"})


def _dropped(world, folder):
    right, calls = NativeEngine.backward, []

    def skip(self, share):
        calls.append(share)
        right(self, share * 0 if world.rank == 1 and len(calls) == 20 else share)

    NativeEngine.backward = skip
    return curve(world, folder, **{"strategy.name": "ddp"})


@pytest.mark.parametrize("wrong", [_summed, _dropped], ids=["gradient summed", "one micro-batch dropped"])
def test_sabotage_shows(alone, tmp_path, wrong):
    found = difference(on_ranks(2, wrong, tmp_path)[0], alone)
    for tolerance in TOLERANCE.values():
        assert found > 2 * tolerance


class StopError(Exception):
    """The worker's end."""


LEGS = [("ddp", 2), ("fsdp2", 3), ("zero1", 2), ("zero3", 3), ("plain", 1), ("zero2", 2), ("zero0", 1)]
"""Who carries the run on, and on how many workers."""


def _leg(world, folder, name, until):
    """Go on from the newest checkpoint to just after step ``until``, where the checkpoint of that step exists."""

    def stop(step, metrics):
        if step > until:
            raise StopError

    try:
        run = toy_run(**{"strategy.name": name, "fault.checkpoint_every_steps": 2}, num_workers=world.size)
        train(run, world, toy_feed(), Store.at(folder), callbacks=Callbacks(on_step=stop))
    except StopError:
        pass


def test_a_run_goes_on_under_another_strategy_and_number_of_workers(tmp_path):
    import deepspeed  # noqa: F401 (once, before forking)

    for number, (name, size) in enumerate(LEGS):
        on_ranks(size, _leg, tmp_path / "relay", name, 2 * number + 2)
        assert latest(Store.at(tmp_path / "relay")) == 2 * number + 2
    train(toy_run(), World(), toy_feed(), Store.at(tmp_path / "relay"))
    train(toy_run(), World(), toy_feed(), Store.at(tmp_path / "alone"))
    ends = [Store.at(tmp_path / name) for name in ("relay", "alone")]
    relay, alone = (read_tensors(end, read_manifest(end, 18), ("weights", "moments")) for end in ends)
    assert relay.keys() == alone.keys()
    for key in alone:
        np.testing.assert_allclose(relay[key], alone[key], rtol=1e-3, atol=1e-5, err_msg=key)


def _one_sided(world, folder, names):
    """Rows sorted so that the last subject's all fall to rank 0."""
    stream = ToyStream()

    def references(epoch, first_step):
        for reference in stream.references(epoch, first_step):
            others = stream.owner[reference] != len(SIZES.voxels) - 1
            yield reference[np.argsort(others, kind="stable")]

    for name in names:
        run = toy_run(**{"strategy.name": name, "optim.epochs": 1}, num_workers=world.size)
        done = train(run, world, toy_feed(), Store.at(f"{folder}/{name}"), references=references)
        assert done.position.step == stream.num_steps


def test_one_subject_on_rank_0_only(tmp_path):
    import deepspeed  # noqa: F401 (once, before forking)

    on_ranks(2, _one_sided, tmp_path, SPREAD, deadline_s=60)
