"""What a run folder stands on: a data set published anew is noticed by every use of the run, and so is damage."""

import hashlib
import json
import shutil
from dataclasses import replace

import pytest

from cineray.core.errors import CinerayError, ConfigError
from cineray.core.storage import Store
from cineray.datasets.dataset import Dataset
from cineray.datasets.ingest import ingest
from cineray.datasets.sources.synthetic import SyntheticConfig
from cineray.serving.pipeline import Pipeline
from cineray.training.checkpoint import latest, read_manifest
from cineray.training.evaluate import evaluate
from cineray.training.feed import open_feed
from cineray.training.launch import launch
from cineray.training.ledger import read_ledger
from cineray.training.loop import train
from cineray.training.predict import predict, read_run
from cineray.training.report import report
from cineray.training.world import World
from multiprocess import on_ranks
from tiny_run import tiny_run
from toys import toy_feed, toy_run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    predict(tiny_run(folder), "test")
    return folder


def source_of(folder):
    return SyntheticConfig.parse(Dataset.open(folder / "data").manifest.source)


def go_on(folder):
    store = Store.at(folder / "run")
    run = read_run(store)
    return train(run, World(), lambda normaliser: open_feed(run, normaliser), store)


USES = {
    "train": go_on,
    "predict": lambda folder: predict(folder / "run", "test"),
    "evaluate": lambda folder: evaluate(folder / "run", "test"),
    "serve": lambda folder: Pipeline.open(str(folder / "run")),
}


def test_the_fingerprint_is_that_of_the_files(trained, tmp_path):
    manifest = Dataset.open(trained / "data").manifest
    found = [hashlib.sha256((trained / "data" / info.key).read_bytes()).hexdigest() for info in manifest.objects]
    expected = hashlib.sha256(json.dumps({"objects": found}, separators=(",", ":")).encode()).hexdigest()[:16]
    shutil.copytree(trained / "data", tmp_path / "moved")
    store = Store.at(trained / "run")
    assert read_manifest(store, latest(store)).data == Dataset.open(tmp_path / "moved").fingerprint == expected


@pytest.mark.parametrize("use", USES)
def test_the_same_source_published_again_is_the_same_data(trained, use):
    before = Dataset.open(trained / "data").manifest
    after = ingest(source_of(trained), trained / "data")
    assert (after.version, after.commit != before.commit) == (before.version + 1, True)
    USES[use](trained)


@pytest.fixture(scope="module")
def republished(tmp_path_factory):
    """The same subjects, voxels, runs and targets as before: nothing but the values tells the data apart."""
    folder = tmp_path_factory.mktemp("republished")
    predict(tiny_run(folder, voxels=(30, 30)), "test")
    before = Dataset.open(folder / "data")
    ingest(source_of(folder).override({"seed": 1}), folder / "data")
    after = Dataset.open(folder / "data")
    assert (after.num_voxels, after.runs) == (before.num_voxels, before.runs)
    return folder, before.fingerprint


REFUSED = USES | {"launch": lambda folder: launch(read_run(Store.at(folder / "run")), str(folder / "run"))}
"""Ray Train is not asked to start anything: it would start it again and again."""


@pytest.mark.parametrize("use", REFUSED)
def test_other_data_at_the_same_place_are_refused(republished, use):
    folder, trained_on = republished
    with pytest.raises(ConfigError, match=rf"has fingerprint \w{{16}}, .* made from {trained_on}; publish") as caught:
        REFUSED[use](folder)
    assert "\n" not in str(caught.value)


def _open_at_different_times(world, folder):
    """Rank 1 opens the data set after somebody has published the next version."""

    def make(normaliser):
        return replace(toy_feed()(normaliser), data=f"version-{world.rank}")

    train(toy_run(**{"strategy.name": "ddp"}, num_workers=world.size), world, make, Store.at(folder))


def test_ranks_that_read_different_versions_are_told(tmp_path):
    with pytest.raises(AssertionError, match=r"ConfigError: .*fingerprint version-1, what rank 0 reads .* version-0"):
        on_ranks(2, _open_at_different_times, tmp_path)


@pytest.mark.parametrize("use", ["train", "predict", "serve"])
@pytest.mark.parametrize(
    "edit", [{"view.split.val.blocks.take": [2]}, {"view.window.last": 1}, {"model.depth": 5}, {"view.split.gap_s": 0}]
)
def test_an_edited_run_is_refused(trained, use, edit):
    path = trained / "run" / "run.yaml"
    good = path.read_bytes()
    path.write_text(read_run(Store.at(trained / "run")).override(edit).dump())
    try:
        with pytest.raises(ConfigError, match=r"checkpoint \d+ was trained with fingerprint \w{16}, these") as caught:
            USES[use](trained)
    finally:
        path.write_bytes(good)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("use", USES)
def test_a_run_whose_data_moved_is_the_same_run(trained, tmp_path, use):
    shutil.copytree(trained / "run", tmp_path / "run")
    shutil.copytree(trained / "data", tmp_path / "data")
    before = predict(tmp_path / "run", "test").predicted["features"]
    moved = read_run(Store.at(tmp_path / "run")).override(
        {"view.dataset": str(tmp_path / "data"), "name": "moved", "evaluation.num_bootstrap": 10}
    )
    (tmp_path / "run" / "run.yaml").write_text(moved.dump())
    USES[use](tmp_path)
    assert (predict(tmp_path / "run", "test").predicted["features"] == before).all()


DAMAGES = {
    "empty": lambda good: b"",
    "cut": lambda good: good[: len(good) // 2],
    "a flipped bit": lambda good: good[:120] + bytes([good[120] ^ 0x80]) + good[121:],
}

NUM_STEPS = 2
"""Two epochs of one step: fewer rows than a batch are left after the gap."""

READS = {
    "predictions/test.npz": lambda folder: evaluate(folder / "run"),
    "evaluation/test.json": lambda folder: report(folder / "run"),
    "ledger/00000000.jsonl": lambda folder: list(read_ledger(Store.at(folder / "run"), NUM_STEPS)),
    "run.yaml": lambda folder: predict(folder / "run"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("key", READS)
def test_a_damaged_file_of_a_run_is_one_sentence(trained, key, damage):
    evaluate(trained / "run")
    READS[key](trained)
    path = trained / "run" / key
    good = path.read_bytes()
    path.write_bytes(DAMAGES[damage](good))
    try:
        with pytest.raises(CinerayError) as caught:
            READS[key](trained)
    finally:
        path.write_bytes(good)
    assert "\n" not in str(caught.value)
