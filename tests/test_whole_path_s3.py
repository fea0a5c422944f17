"""From a source to served predictions with everything in a bucket: the numbers of a folder, and no file beside it."""

import json
import sys
import tempfile

import numpy as np
import pytest
import torch

from cineray.cluster.cli import main
from cineray.core.storage import Store
from cineray.datasets.check import check
from cineray.serving.pipeline import Pipeline
from cineray.training.checkpoint import committed, latest, read_manifest, read_tensors
from cineray.training.feed import open_feed
from cineray.training.ledger import read_ledger
from cineray.training.loop import Callbacks, train
from cineray.training.predict import Predictions, read_run
from cineray.training.world import World
from tiny_run import TEST_RUN, tiny_run


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """An empty home, working folder, cache and place for temporary files."""
    import matplotlib.font_manager  # noqa: F401 (its list of fonts goes into the cache of whoever imports it first)

    folder = tmp_path_factory.mktemp("machine")
    with pytest.MonkeyPatch.context() as patch:
        for variable, name in {"HOME": "home", "TMPDIR": "tmp", "XDG_CACHE_HOME": "cache"}.items():
            (folder / name).mkdir()
            patch.setenv(variable, str(folder / name))
        (folder / "work").mkdir()
        patch.chdir(folder / "work")
        patch.setattr(tempfile, "tempdir", None)
        yield folder


def run_verb(patch, *words):
    patch.setattr(sys, "argv", ["cineray", *words])
    main()


@pytest.fixture(scope="module")
def both(machine, s3_endpoint, tmp_path_factory):
    """The same path in a folder and in a bucket."""
    places = {"folder": str(tmp_path_factory.mktemp("folder")), "s3": "s3://cineray/whole/path"}
    with pytest.MonkeyPatch.context() as patch:
        for place in places.values():
            run_verb(patch, "eval", tiny_run(place, optim__batch_size=32))
    return places


def tensors(url):
    store = Store.at(url)
    return read_tensors(store, read_manifest(store, latest(store)), ("weights", "moments", "normaliser"))


def test_every_object_is_whole(both):
    report = check(f"{both['s3']}/data")
    assert (report.problems, report.orphans) == ((), ())
    assert report.num_bytes == check(f"{both['folder']}/data").num_bytes


def test_training_gives_the_same_tensors(both):
    in_folder, in_bucket = (tensors(f"{both[place]}/run") for place in ("folder", "s3"))
    assert in_folder.keys() == in_bucket.keys()
    assert all(torch.equal(in_folder[name], in_bucket[name]) for name in in_folder)


class StopError(Exception):
    """The worker's end."""


def test_a_broken_run_goes_on_in_the_bucket(both):
    run = read_run(Store.at(f"{both['s3']}/run")).override({"fault.checkpoint_every_steps": 2})
    store = Store.at(f"{both['s3']}/broken")

    def stop(step, metrics):
        if step == 3:
            raise StopError

    with pytest.raises(StopError):
        train(run, World(), lambda n: open_feed(run, n), store, callbacks=Callbacks(on_step=stop))
    assert committed(store), "nothing to go on from"
    train(run, World(), lambda n: open_feed(run, n), store)
    assert latest(store) == latest(Store.at(f"{both['s3']}/run")) > 3
    whole, broken = tensors(f"{both['s3']}/run"), tensors(store.url)
    assert all(torch.equal(whole[name], broken[name]) for name in whole)
    assert [entry.step for entry in read_ledger(store, latest(store))] == list(range(latest(store)))


def test_predictions_and_scores_are_the_same(both):
    stores = [Store.at(f"{both[place]}/run") for place in ("folder", "s3")]
    a, b = (Predictions.read(store, "test") for store in stores)
    np.testing.assert_array_equal(a.predicted["features"], b.predicted["features"])
    first, second = (json.loads(store.get("evaluation/test.json")) for store in stores)
    assert first["targets"] == second["targets"]
    assert second["dataset"] == f"{both['s3']}/data"
    assert stores[1].get("report.html").startswith(b"<!doctype html>")


def test_what_is_served_from_the_bucket_is_what_was_predicted(both):
    pipeline = Pipeline.open(f"{both['s3']}/run")
    expected = Predictions.read(Store.at(f"{both['s3']}/run"), "test")
    for subject in pipeline.card.voxels:
        run = next(r for r in pipeline.dataset.runs if (r.subject, r.run) == (subject, TEST_RUN))
        found = pipeline.predict(subject, pipeline.dataset.gather_samples(np.array(run.rows)))["features"]
        mine = (expected.subject == subject) & (expected.run == TEST_RUN)
        rows = expected.sample_row[mine] - run.first_row
        np.testing.assert_array_equal(found[rows], expected.predicted["features"][mine])


def test_everything_is_in_the_bucket_and_only_pages_on_this_machine(both, machine):
    in_folder, in_bucket = (
        {key for key in Store.at(both[place]).list() if not key.startswith("broken/")} for place in ("folder", "s3")
    )
    assert in_folder == in_bucket
    assert {"data/manifest.json", "run/run.yaml", "run/metrics.jsonl", "run/report.html"} <= in_bucket
    here = {path.relative_to(machine) for path in machine.rglob("*") if path.is_file()}
    objects = {f"{info.sha256}.parquet" for info in Pipeline.open(f"{both['s3']}/run").dataset.manifest.objects}
    assert {str(path.parent) for path in here} == {"cache/cineray"}
    assert {path.name for path in here} <= objects
