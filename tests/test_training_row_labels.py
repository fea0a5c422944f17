"""Labels beside scores: from settings through runs that start from others, into tables, files and pages."""

import json

import pytest

from cineray.core.storage import Store
from cineray.training.evaluate import evaluate, format_table
from cineray.training.evaluate_video import EvaluateVideoConfig, evaluate_video, format_video_table
from cineray.training.predict import predict, read_run
from cineray.training.report import report
from cineray.training.resume import identity
from cineray.training.row_labels import SELECTED, UNKNOWN, selection
from cineray.training.run import Run
from cineray.training.video_report import video_report
from tiny_run import tiny_run
from video_run import reconstruct, synthetic_films


def a_run(name, *, published=(), start=None):
    values = {
        "name": name,
        "view": {"dataset": "nowhere", "targets": ["tokens"], "split": {"train": {}, "test": {}}},
        "model": {"name": "semantic", "target": "tokens", "published": list(published)},
        "losses": [{"name": "mse", "target": "tokens"}],
    }
    return Run.parse(values | ({"start": {"run_dir": str(start), "part": "semantic"}} if start else {}))


def test_what_was_chosen_by_test_scores_is_told_of_all_that_start_from_it(tmp_path):
    weights = {"file": "stage1.pth", "parts": ["backbone"]}
    assert selection(a_run("own")) == ()
    chosen, last = (
        a_run("chosen", published=[weights]),
        a_run("last", published=[weights | {"selected_on_test": False}]),
    )
    assert selection(chosen) == (SELECTED,), "unless the settings deny it"
    assert selection(last) == ()
    for run in (chosen, last):
        Store.at(tmp_path / run.name).put("run.yaml", run.dump().encode())
    child = a_run("child", start=tmp_path / "chosen")
    Store.at(tmp_path / "child").put("run.yaml", child.dump().encode())
    assert selection(child) == (SELECTED,)
    assert selection(a_run("grandchild", start=tmp_path / "child")) == (SELECTED,)
    assert selection(a_run("other", start=tmp_path / "last")) == ()
    assert selection(a_run("orphan", start=tmp_path / "gone")) == (UNKNOWN,)


def test_a_corrected_label_is_no_other_run():
    weights = {"file": "stage1.pth", "parts": ["backbone"]}
    said, corrected, other = (
        a_run("own", published=[weights | more]) for more in ({}, {"selected_on_test": False}, {"file": "other.pth"})
    )
    assert identity(said) == identity(corrected) != identity(other)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tiny_run(tmp_path_factory.mktemp("tiny"), optim__epochs=1)
    predict(folder)
    return folder


def test_tables_and_pages_of_predictions_are_labelled(trained, tmp_path):
    found = evaluate(trained)
    (stimuli,) = [label for label in found["labels"] if label.startswith("testset@")]
    assert stimuli == f"testset@{len(set(predict(trained).stimulus_row.tolist()))}"
    assert found["labels"] == ["single", stimuli]
    assert format_table(found).splitlines()[0] == f"single, {stimuli}"
    Store.at(tmp_path).put(
        "run.yaml", a_run("chosen", published=[{"file": "a.pth", "parts": ["text"]}]).dump().encode()
    )
    store = Store.at(trained)
    started = read_run(store).override({"start.run_dir": str(tmp_path)})
    store.put("run.yaml", started.dump().encode())
    assert evaluate(trained)["labels"] == ["single", stimuli, "selected_on_test"]
    assert "selected_on_test" in format_table(evaluate(trained)).splitlines()[0]
    with open(report(trained), encoding="utf-8") as page:
        text = page.read()
    assert all(f"<code>{label}</code>" in text for label in ("single", stimuli, "selected_on_test"))


def test_tables_and_pages_of_videos_are_labelled(tmp_path):
    run = reconstruct(tmp_path / "run", synthetic_films(tmp_path / "data"), noise=20)
    store, key = Store.at(run), "reconstructions/test/origin.json"
    origin = json.loads(store.get(key)) | {"labels": ["test_average@input", "selected_on_test"]}
    store.put(key, json.dumps(origin).encode())
    found = evaluate_video(run, "test", EvaluateVideoConfig(metrics=("psnr",), num_bootstrap=20))
    assert found["labels"] == ["test_average@input", "selected_on_test", "testset@30"]
    assert format_video_table(found).splitlines()[0] == "test_average@input, selected_on_test, testset@30"
    with open(video_report(run, num_clips=3), encoding="utf-8") as page:
        text = page.read()
    assert all(f"<code>{label}</code>" in text for label in found["labels"])
