"""Runs on Ray Train: the same as without it, whoever dies, on however many workers it goes on."""

import collections
import os
import random
import signal

import pytest
import torch

from cineray.core.errors import CinerayError, ConfigError
from cineray.core.storage import Store
from cineray.datasets.order import Schedule
from cineray.training.checkpoint import latest, read_manifest, read_tensors
from cineray.training.feed import open_feed, open_schedule
from cineray.training.ledger import read_ledger
from cineray.training.loop import Callbacks, train
from cineray.training.run import Run
from killing import InterruptAt, KillAt
from multiprocess import on_ranks
from tiny_run import tiny_run

pytestmark = pytest.mark.cluster

EPOCHS = 3


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A run with dropout, on a data set that was ingested: 3 epochs of about ten steps."""
    folder = tiny_run(tmp_path_factory.mktemp("tiny"), optim__epochs=0)
    run = Run.loads(Store.at(folder).get("run.yaml").decode())
    return run.override({"optim.epochs": EPOCHS, "optim.batch_size": 12, "fault.checkpoint_every_steps": 3})


def spread(run, num_workers, **changes):
    return run.override({"num_workers": num_workers, "strategy.name": "ddp" if num_workers > 1 else "plain"} | changes)


def without_ray(world, run, folder):
    train(run, world, lambda normaliser: open_feed(run, normaliser), Store.at(folder))


def last_tensors(url):
    store = Store.at(url)
    return read_tensors(store, read_manifest(store, latest(store)), ("weights", "moments", "normaliser"))


def assert_every_row_once_an_epoch(url, schedule: Schedule):
    store = Store.at(url)
    entries = list(read_ledger(store, latest(store)))
    assert [entry.step for entry in entries] == list(range(EPOCHS * schedule.num_steps))
    for epoch in range(EPOCHS):
        rows = collections.Counter(row for entry in entries if entry.epoch == epoch for row in entry.rows)
        assert rows == dict.fromkeys(range(schedule.num_examples), 1)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(("num_workers", "num_kills"), [(1, 10), (2, 2), pytest.param(2, 12, marks=pytest.mark.faults)])
def test_killed_workers_change_nothing(ray_cluster, tiny, tmp_path, num_workers, num_kills):
    from cineray.training.launch import launch

    run, schedule = spread(tiny, num_workers, **{"fault.max_failures": num_kills}), open_schedule(tiny)
    on_ranks(num_workers, without_ray, run, tmp_path / "whole")
    steps = random.Random(num_workers).sample(range(1, EPOCHS * schedule.num_steps), num_kills)
    (tmp_path / "marks").mkdir()
    kill = KillAt(tmp_path / "marks", tuple(steps))
    trained = launch(run, str(tmp_path / "broken"), callbacks=Callbacks(on_step=kill))
    assert kill.killed == sorted(steps)
    assert trained.position.step == EPOCHS * schedule.num_steps
    whole, broken = last_tensors(tmp_path / "whole"), last_tensors(tmp_path / "broken")
    assert whole.keys() == broken.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, broken[name]), name
    assert_every_row_once_an_epoch(tmp_path / "broken", schedule)


def test_a_run_that_failed_goes_on_with_other_workers_in_a_bucket(ray_cluster, tiny, tmp_path, s3_url):
    from cineray.training.launch import launch

    out, schedule = f"{s3_url}/run", open_schedule(tiny)
    (tmp_path / "marks").mkdir()
    kill = KillAt(tmp_path / "marks", (schedule.num_steps + 2,))
    run = spread(tiny, 2, **{"fault.max_failures": 0})
    with pytest.raises(CinerayError, match=r"ended after 0 restarts .* keeps the last checkpoint"):
        launch(run, out, callbacks=Callbacks(on_step=kill))
    assert latest(Store.at(out)) in range(1, schedule.num_steps + 3)
    trained = launch(spread(tiny, 1), out)
    assert trained.metrics["epoch"] == EPOCHS
    assert_every_row_once_an_epoch(out, schedule)
    with pytest.raises(ConfigError, match="holds a run of other settings"):
        launch(tiny.override({"optim.lr": 0.5}), out)


def test_an_error_of_a_worker_is_told_in_its_own_sentence(ray_cluster, tiny, tmp_path):
    from cineray.training.launch import launch

    run = tiny.override({"optim.lr": 1e30, "optim.clip_norm": 1e30, "fault.max_failures": 0})
    with pytest.raises(CinerayError, match=r"expected a number; lower optim\.lr"):
        launch(run, str(tmp_path / "run"))


def test_folders_may_be_relative_and_a_finished_run_starts_nothing(ray_cluster, tiny, tmp_path, monkeypatch):
    from cineray.training.launch import launch

    monkeypatch.chdir(tmp_path)
    run = tiny.override(
        {"view.dataset": os.path.relpath(tiny.view.dataset), "optim.epochs": 1, "fault.max_failures": 0}
    )
    trained = launch(run, "run")
    found = Run.loads(Store.at(tmp_path / "run").get("run.yaml"))
    assert found == run.override({"view.dataset": tiny.view.dataset})
    monkeypatch.setattr("ray.train.torch.TorchTrainer", None)
    assert launch(run, "run") == trained
    assert launch(found, "run") == trained


def test_an_interrupt_reaches_the_caller_and_stays_his(ray_cluster, tiny, tmp_path):
    from cineray.training.launch import launch

    handler, interrupt = signal.getsignal(signal.SIGINT), InterruptAt(os.getpid(), 2)
    with pytest.raises(KeyboardInterrupt):
        launch(tiny.override({"optim.epochs": 1000}), str(tmp_path / "run"), callbacks=Callbacks(on_step=interrupt))
    assert signal.getsignal(signal.SIGINT) is handler


def test_plain_is_one_process(tiny):
    with pytest.raises(ConfigError, match="2 workers under strategy plain"):
        tiny.override({"num_workers": 2})


@pytest.mark.parametrize(
    ("nodes", "num_workers", "threads", "share", "expected"),
    [
        ([8], 2, 1, 1.0, 1.0),
        ([2], 2, 4, 0.95, 0.95),
        ([2], 3, 1, 1.0, 0.66),
        ([3, 3], 1, 4, 1.0, 3.0),  # not 4, which no node has
        ([3, 3], 3, 2, 1.0, 1.5),  # not 2, of which a node has room for one
        ([0, 4], 2, 8, 1.0, 2.0),
        ([1, 7], 4, 2, 1.0, 1.75),
    ],
)
def test_every_worker_fits_on_a_node(tiny, monkeypatch, nodes, num_workers, threads, share, expected):
    from cineray.training.launch import _cpus_each

    found = [{"Alive": True, "Resources": {"CPU": cpus} if cpus else {}} for cpus in nodes]
    monkeypatch.setattr("ray.nodes", lambda: [*found, {"Alive": False, "Resources": {"CPU": 64}}])
    run = spread(tiny, num_workers, **{"strategy.threads_per_worker": threads})
    assert _cpus_each(run, share) == expected
    assert sum(cpus * share // expected for cpus in nodes) >= num_workers


def test_more_workers_than_there_is_room_for(tiny, monkeypatch):
    from cineray.training.launch import _cpus_each

    monkeypatch.setattr("ray.nodes", lambda: [{"Alive": True, "Resources": {}}])
    with pytest.raises(ConfigError, match="found 0 CPUs"):
        _cpus_each(tiny, 1.0)


def test_an_error_of_the_controller_is_told_in_its_own_sentence(tiny, tmp_path):
    from ray.train import ControllerError

    from cineray.training.launch import _explained

    damage = ConfigError("found this, expected that; do so")
    assert _explained(ControllerError(damage), tiny, Store.at(tmp_path)) is damage
    told = str(_explained(ControllerError(OSError("no route")), tiny, Store.at(tmp_path)))
    assert "no route" in told
    assert "restarts" not in told
