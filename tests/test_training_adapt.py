"""A new subject on a trained model: what is carried over, what is its own, what is refused, and that it helps."""

import shutil

import numpy as np
import pytest
import torch

from cineray.core.errors import ConfigError
from cineray.core.storage import Store
from cineray.datasets.dataset import Dataset
from cineray.datasets.ingest import ingest
from cineray.datasets.sources.synthetic import SyntheticConfig
from cineray.training.checkpoint import best, latest, read_manifest, read_tensors
from cineray.training.evaluate import evaluate
from cineray.training.feed import open_feed
from cineray.training.loop import Callbacks, train
from cineray.training.models.base import subject_of
from cineray.training.predict import predict, read_run
from cineray.training.recipes.synthetic import adapt, ridge, scratch, shared
from cineray.training.world import World

NEW = "sub-03"


def finish(run, folder, **callbacks):
    train(
        run, World(), lambda normaliser: open_feed(run, normaliser), Store.at(folder), callbacks=Callbacks(**callbacks)
    )
    return str(folder)


def weights(folder, step=None):
    store = Store.at(folder)
    found = read_tensors(store, read_manifest(store, best(store) if step is None else step), ("weights",))
    return {name.removeprefix("weights/"): x for name, x in found.items()}


def normaliser(folder):
    store = Store.at(folder)
    return read_tensors(store, read_manifest(store, best(store)), ("normaliser",))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Two people and a shared model of them; a third person waits. Little noise: minutes suffice."""
    folder = tmp_path_factory.mktemp("adapt")
    films = SyntheticConfig(
        num_subjects=3, minutes=30, test_minutes=5, films="own", fps=2, frame_px=8, frames=False, noise=0.2
    )
    ingest(films, folder / "data")
    run = shared(subjects=("sub-01", "sub-02"), dataset=str(folder / "data"))
    return finish(run.override({"optim.epochs": 30, "optim.batch_size": 64}), folder / "source")


@pytest.fixture(scope="module")
def adapted(source, tmp_path_factory):
    run = adapt(from_=source, subject=NEW, minutes=3)
    return run, finish(run, tmp_path_factory.mktemp("adapted") / "run")


def test_frozen_layers_are_those_of_the_best_checkpoint(source, adapted):
    theirs, ours = weights(source), weights(adapted[1])
    names = [name for name in ours if subject_of(name) is None]
    assert names
    assert all(torch.equal(ours[name], theirs[name]) for name in names)
    assert {subject_of(name) for name in ours} == {None, NEW}


def test_only_the_new_subjects_layer_has_moments(adapted):
    store = Store.at(adapted[1])
    moments = read_tensors(store, read_manifest(store, best(store)), ("moments",))
    assert {subject_of(name.partition("/")[2]) for name in moments} == {NEW}


def test_targets_are_scaled_as_in_the_source_and_brains_by_their_own_training_rows(source, adapted):
    theirs, ours = normaliser(source), normaliser(adapted[1])
    for which in ("mean", "sd"):
        assert torch.equal(ours[f"normaliser/targets/features/{which}"], theirs[f"normaliser/targets/features/{which}"])
    dataset = Dataset.open(adapted[0].view.dataset)
    info = next(r for r in dataset.runs if r.subject == NEW and r.film == f"train-{NEW}")
    rows = dataset.gather_samples(np.arange(info.first_row, info.first_row + 45)).astype(np.float64)  # 3 min of 4 s
    np.testing.assert_allclose(ours[f"normaliser/brain/{NEW}/mean"].numpy(), rows.mean(0), atol=1e-5)
    np.testing.assert_allclose(ours[f"normaliser/brain/{NEW}/sd"].numpy(), rows.std(0), rtol=1e-4)


def test_layers_that_are_not_frozen_begin_at_the_source_and_move(source, tmp_path):
    run = adapt(from_=source, subject=NEW, minutes=3).override({"start.freeze": False, "optim.epochs": 1})
    begun = finish(run.override({"optim.lr": 1e-12, "optim.weight_decay": 0}), tmp_path / "begun")
    moved = finish(run, tmp_path / "moved")
    theirs, first, last = weights(source), weights(begun), weights(moved)
    for name in (n for n in theirs if subject_of(n) is None):
        torch.testing.assert_close(first[name], theirs[name])
        assert not torch.equal(last[name], theirs[name]), name


class StopError(Exception):
    """Raised where a test wants the process to die."""


def test_an_interrupted_adaptation_goes_on_to_the_same_end(adapted, tmp_path):
    def stop(step, metrics):
        if step == 40:
            raise StopError

    run = adapted[0].override({"fault.checkpoint_every_steps": 30})
    with pytest.raises(StopError):
        finish(run, tmp_path, on_step=stop)
    assert latest(Store.at(tmp_path)) == 30
    finish(run, tmp_path)
    ours, whole = weights(tmp_path), weights(adapted[1])
    assert all(torch.equal(ours[name], whole[name]) for name in whole)


def test_adapting_beats_starting_from_nothing_on_the_same_test_rows(adapted, tmp_path):
    alone = finish(scratch(subject=NEW, minutes=3, dataset=adapted[0].view.dataset), tmp_path / "alone")
    rows, top1 = [], []
    for folder in (adapted[1], alone):
        rows.append(predict(folder).sample_row)
        top1.append(evaluate(folder)["targets"]["features"]["metrics"]["retrieve_image@50"]["value"])
    np.testing.assert_array_equal(*rows)
    assert top1[0] > top1[1] + 0.1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"view.window.last": 3}, r"view\.window of this run is .*last=3.*is .*last=4"),
        ({"view.normalise": False}, r"view\.normalise of this run is False"),
        ({"model.depth": 2}, r"tensor 'trunk\.1\..* is \(.*\) in this run and does not exist in"),
        ({"model.dim": 32}, r"tensor '.*' is \(.*32.*\) in this run and is \(.*48.*\) in .*source"),
    ],
)
def test_another_view_or_model_is_refused(source, tmp_path, change, said):
    with pytest.raises(ConfigError, match=said):
        finish(adapt(from_=source, subject=NEW, minutes=1).override(change), tmp_path)


def test_a_model_without_shared_layers_cannot_start_from_another_run(source, tmp_path):
    alone = finish(
        ridge(subjects=("sub-01",), minutes=3, dataset=read_run(Store.at(source)).view.dataset), tmp_path / "ridge"
    )
    with pytest.raises(ConfigError, match="take the model and targets"):
        finish(adapt(from_=alone, subject=NEW, minutes=1), tmp_path / "adapted")


def test_a_source_whose_settings_were_edited_is_refused(source, tmp_path):
    edited = tmp_path / "edited"
    shutil.copytree(source, edited)
    run = read_run(Store.at(source)).override({"optim.lr": 0.5})
    Store.at(edited).put("run.yaml", run.dump().encode())
    with pytest.raises(ConfigError, match=r"edited holds a run of other settings"):
        finish(adapt(from_=str(edited), subject=NEW, minutes=3), tmp_path / "run")


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"holds no run\.yaml"):
        adapt(from_=str(tmp_path), subject=NEW, minutes=1)
