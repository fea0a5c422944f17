"""The loop on a data set in memory: exact resume, every row once, selection by validation, closed forms."""

import collections
import math

import numpy as np
import pytest
import torch

from cineray.core.errors import CinerayError, ConfigError, StorageError
from cineray.core.records import read_records
from cineray.core.storage import LocalStore, Store
from cineray.training.checkpoint import best, committed, latest, read_manifest, read_tensors
from cineray.training.feed import open_feed
from cineray.training.ledger import read_ledger
from cineray.training.loop import Callbacks, seeded, train
from cineray.training.losses import InfoNCEConfig, MSEConfig, total_loss
from cineray.training.optim import learning_rate
from cineray.training.resume import identity
from cineray.training.run import Run
from cineray.training.world import World
from multiprocess import on_ranks
from tiny_run import tiny_run
from toys import SIZES, ToyStream, toy_feed, toy_run

MIXED = [{"name": "bimixco", "temperature": 0.5, "phase": [0, 0.7]}, {"name": "mse"}]
FULL = {"model.dropout": 0.3, "losses": MIXED, "optim.accumulate": 2}
"""Everything that uses chance: dropout and mixing."""


class StopError(Exception):
    """The worker's end."""


def tensors_at(store, step):
    return read_tensors(store, read_manifest(store, step), ("weights", "moments", "normaliser"))


def _train(world, folder, stop_at, changes):
    def stop(step, metrics):
        if step == stop_at and "norm" in metrics:
            raise StopError

    try:
        run = toy_run(**changes, num_workers=world.size)
        train(run, world, toy_feed(), Store.at(folder), callbacks=Callbacks(on_step=stop))
    except StopError:
        pass


@pytest.mark.parametrize(
    ("name", "size", "stops"), [("plain", 1, [3, 6, 7, 12, 13, 17]), ("ddp", 2, [3, 7, 13]), ("ddp", 3, [5])]
)
def test_killed_and_resumed_is_bitwise_the_same(tmp_path, name, size, stops):
    changes = {**FULL, "strategy.name": name, "fault.checkpoint_every_steps": 4}
    for folder, ends in (("whole", [None]), ("broken", [*stops, None])):
        for stop_at in ends:
            on_ranks(size, _train, tmp_path / folder, stop_at, changes)
    whole, broken = (tensors_at(Store.at(tmp_path / name), 18) for name in ("whole", "broken"))
    assert whole.keys() == broken.keys()
    for key in whole:
        assert torch.equal(whole[key], broken[key]), key
    entries = list(read_ledger(Store.at(tmp_path / "broken"), 18))
    assert [entry.step for entry in entries] == list(range(18))
    for epoch in range(3):
        rows = collections.Counter(row for entry in entries if entry.epoch == epoch for row in entry.rows)
        assert rows == dict.fromkeys(range(90), 1)


def test_it_is_ordinary_training(tmp_path):
    """The same numbers from twenty lines of torch."""
    run, stream = toy_run(), ToyStream()
    store = Store.at(tmp_path)
    train(run, World(), toy_feed(), store)
    with seeded(torch.device("cpu"), run.seed):
        model = run.model.build(SIZES)
    decays, rest = ([p for p in model.parameters() if (p.ndim > 1) is d] for d in (True, False))
    optimiser = torch.optim.AdamW([{"params": decays, "weight_decay": 1e-2}, {"params": rest, "weight_decay": 0}])
    for step in range(18):
        reference = list(stream.references(step // 6))[step % 6]
        batch = stream.batch(reference)
        assert all(len(x) for x in batch.brain.values()), "an absent subject would need more than twenty lines"
        torch.nn.functional.mse_loss(model(batch.brain)["features"], batch.targets["features"]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(run.optim, step, 18)
        optimiser.step()
        optimiser.zero_grad()
    for name, tensor in tensors_at(store, 18).items():
        if name.startswith("weights/"):
            torch.testing.assert_close(tensor, model.state_dict()[name[8:]], rtol=1e-4, atol=1e-6)


def test_the_best_epoch_is_kept_and_is_the_best(tmp_path):
    losses = {}

    def note(step, metrics):
        if "val/loss" in metrics:
            losses[step] = metrics["val/loss"]

    store = Store.at(tmp_path)
    changes = {"optim.epochs": 12, "optim.lr": 2e-2, "optim.schedule": "constant", "fault.keep": 1}
    trained = train(toy_run(**changes), World(), toy_feed(), store, callbacks=Callbacks(on_step=note))
    assert len(losses) == 12
    best_step = min(losses, key=losses.__getitem__)
    assert best_step < 72, "the toy should overfit, or nothing is tested"
    assert committed(store) == [best_step, 72]
    assert (best(store), trained.position.best_step) == (best_step, best_step)
    assert trained.position.best_value == losses[best_step]
    stream = ToyStream(num_rows=40, seed=1)
    model = toy_run().model.build(SIZES).eval()
    model.load_state_dict(
        {k.removeprefix("weights/"): v for k, v in tensors_at(store, best_step).items() if "weights/" in k}
    )
    with torch.no_grad():
        rows = stream.rows(np.arange(40), 40)
        expected = torch.nn.functional.mse_loss(model(rows.brain)["features"], rows.targets["features"])
    assert math.isclose(losses[best_step], float(expected), rel_tol=1e-5)


def test_accumulated_micro_batches_are_one_batch(tmp_path):
    """For a loss that is a mean over rows; the last step of an epoch (10 rows of 16) is cut unevenly."""
    ends = []
    for parts in (1, 3):
        store = Store.at(tmp_path / str(parts))
        train(toy_run(**{"optim.accumulate": parts}), World(), toy_feed(), store)
        ends.append(tensors_at(store, 18))
    for key in ends[0]:
        torch.testing.assert_close(ends[1][key], ends[0][key], rtol=1e-3, atol=1e-5, msg=key)


def test_more_micro_batches_than_rows(tmp_path):
    """90 rows by 11: a last step of two rows in four parts, two of them empty."""
    changes = {"optim.batch_size": 11, "optim.accumulate": 4, "optim.epochs": 1}
    make = toy_feed(num_rows=90, batch_size=11)
    assert train(toy_run(**changes), World(), make, Store.at(tmp_path)).position.step == 9


def test_the_run_folder_tells_what_happened(tmp_path):
    store, heard = Store.at(tmp_path), []
    callbacks = Callbacks(on_step=lambda step, metrics: heard.append({"step": step, **metrics}))
    train(toy_run(), World(), toy_feed(), store, callbacks=callbacks)
    assert read_records(store, "metrics.jsonl") == heard
    assert len(heard) == 18 + 3
    assert Run.loads(store.get("run.yaml").decode()) == toy_run()


def _published(world, run, folder):
    """Train on a data set that was ingested."""
    made = []

    def make(normaliser):
        made.append(normaliser)
        return open_feed(run, normaliser)

    metrics = train(run, world, make, Store.at(folder)).metrics
    return metrics.get("val/loss"), made[0] is not None


def test_an_ingested_data_set_trains_the_same_on_two_workers(tmp_path):
    folder = tiny_run(tmp_path, model__dropout=0.0)  # dropout is drawn for each rank
    run = Run.loads(Store.at(folder).get("run.yaml").decode()).override({"strategy.name": "ddp", "num_workers": 2})
    (found, _), (again, _) = on_ranks(2, _published, run, tmp_path / "two")
    assert found == again
    trained = [read_manifest(Store.at(f), latest(Store.at(f))) for f in (folder, tmp_path / "two")]
    assert math.isclose(trained[0].metrics["val/loss"], trained[1].metrics["val/loss"], rel_tol=1e-4)
    stored = read_tensors(Store.at(folder), trained[0], ["normaliser"])
    assert {name.split("/")[1] for name in stored} == {"brain", "targets"}
    longer = run.override({"fault.checkpoint_every_steps": 3})
    assert all(handed_in for _, handed_in in on_ranks(2, _published, longer, tmp_path / "two")), "resumed: no new fit"


def test_checkpoints_are_announced_once_they_exist(tmp_path):
    store, heard = Store.at(tmp_path), []

    def hear(manifest):
        assert read_manifest(store, manifest.step).position == manifest.position
        heard.append(manifest.step)

    changes = {"fault.checkpoint_every_steps": 4, "fault.keep": 9}
    train(toy_run(**changes), World(), toy_feed(), store, callbacks=Callbacks(on_checkpoint=hear))
    assert heard == committed(store)
    assert {4, 8, 16, 18} <= set(heard)
    train(toy_run(**changes), World(), toy_feed(), store, callbacks=Callbacks(on_checkpoint=hear))
    assert heard == committed(store), "a finished run has nothing left to do"


def test_mistakes_in_the_settings_are_found_before_the_first_step(tmp_path):
    losses = [{"name": "mse", "phase": [0, 0.5]}]
    with pytest.raises(ConfigError, match="epoch 1 of 3 has no loss"):
        train(toy_run(losses=losses), World(), toy_feed(), Store.at(tmp_path))
    with pytest.raises(AssertionError, match=r"ConfigError: Run: found 2 workers under strategy plain"):
        on_ranks(2, _train, tmp_path, None, {})


def test_other_settings_do_not_go_on_from_a_checkpoint(tmp_path):
    store = Store.at(tmp_path)
    train(toy_run(**{"optim.epochs": 1}), World(), toy_feed(), store)
    with pytest.raises(ConfigError, match="holds a run of other settings"):
        train(toy_run(**{"optim.epochs": 1, "optim.lr": 0.5}), World(), toy_feed(), store)
    same = {"strategy.name": "ddp", "num_workers": 2, "fault.keep": 5, "name": "other", "evaluation.clip_s": 3.0,
            "view.dataset": "elsewhere"}  # fmt: skip
    assert identity(toy_run(**same)) == identity(toy_run())
    others = [{"seed": 1}, {"optim.lr": 0.5}, {"view.split.gap_s": 1.0}, {"view.window.last": 1}, {"model.depth": 3}]
    assert len({identity(toy_run(**changes)) for changes in [{}, *others]}) == 1 + len(others)


def test_what_decides_no_weights_may_change_and_is_written_down(tmp_path):
    store = Store.at(tmp_path)
    before = train(toy_run(**{"optim.epochs": 1}), World(), toy_feed(), store)
    changed = toy_run(**{"optim.epochs": 1, "name": "other", "evaluation.clip_s": 3.0})
    assert train(changed, World(), toy_feed(), store).position == before.position
    assert Run.loads(store.get("run.yaml")) == changed


def test_a_loss_that_is_no_number_stops_the_run_before_it_is_kept(tmp_path):
    def make(normaliser=None):
        feed = toy_feed()(normaliser)
        feed.train.brain[1][feed.train.owner == 1] = math.nan
        return feed

    with pytest.raises(CinerayError, match=r"'loss' of step 0 is nan.*optim\.lr"):
        train(toy_run(), World(), make, Store.at(tmp_path))
    assert latest(Store.at(tmp_path)) is None


class Full(LocalStore):
    """A store whose disk is full from some write on."""

    def put(self, key, data):
        raise StorageError(f"write of {key} found no space left on the disk; free some space and repeat")


def test_a_failed_write_ends_the_run_with_its_sentence(tmp_path):
    with pytest.raises(StorageError, match="no space left"):
        train(toy_run(**{"fault.checkpoint_every_steps": 1}), World(), toy_feed(), Full(str(tmp_path)))


def _solve(world, folder):
    strategy = {"strategy.name": "ddp" if world.size > 1 else "plain"}
    run = toy_run(**{"model": {"name": "ridge"}, "optim.epochs": 0}, **strategy, num_workers=world.size)
    return train(run, world, toy_feed(), Store.at(folder)).metrics["val/loss"]


def test_a_solved_model_is_the_same_on_every_rank_and_reads_back(tmp_path):
    alone = _solve(World(), tmp_path / "alone")
    together = on_ranks(2, _solve, tmp_path / "together")
    assert together[0] == together[1]
    assert math.isclose(together[0], alone, rel_tol=1e-5)
    ends = [tensors_at(Store.at(tmp_path / name), 0) for name in ("alone", "together")]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])
    run = toy_run(**{"model": {"name": "ridge"}, "optim.epochs": 0})
    model = run.model.build(SIZES)
    model.load_state_dict({k.removeprefix("weights/"): v for k, v in ends[0].items() if k.startswith("weights/")})
    rows = ToyStream(num_rows=40, seed=1).rows(np.arange(40), 40)
    found, _ = total_loss([MSEConfig()], model(rows.brain), rows, World())
    assert math.isclose(found.item(), alone, rel_tol=1e-5)


def test_validation_uses_the_last_epochs_losses(tmp_path):
    losses = [{"name": "mse", "phase": [0, 0.5]}, {"name": "info_nce", "phase": [0.5, 1]}]
    trained = train(toy_run(losses=losses), World(), toy_feed(), Store.at(tmp_path))
    assert {name for name in trained.metrics if name.startswith("val/")} == {"val/loss", "val/info_nce/features"}
    assert InfoNCEConfig().label == "info_nce/features"
