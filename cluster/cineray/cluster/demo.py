"""The whole way on data made on the spot: ingest, check, train, evaluate, a new subject, search, serve, reconstruct."""

import io
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from cineray.core.records import progress
from cineray.core.storage import Store
from cineray.datasets.sources.synthetic import SyntheticConfig
from cineray.training.recipes import synthetic
from cineray.training.run import Run

if TYPE_CHECKING:
    from cineray.training.tune import TrialResult

__all__ = ["demonstrate"]

SOURCE = SyntheticConfig(films="own", num_subjects=5, minutes=30, test_minutes=7, frame_px=16, frames=False)
SEEN = ("sub-01", "sub-02", "sub-03", "sub-04")
NEW, NEW_MINUTES = "sub-05", 5.0
METRICS = ("top1", "2afc")

say = Console(soft_wrap=True).print


def demonstrate(out: str) -> dict[str, Any]:
    """Do all of it below ``out`` and print the table, the report's path and, last, one line of JSON (returned too).

    A second call with the same ``out`` goes on where the first one stopped.
    """
    from cineray.cluster.connect import connected

    began = time.monotonic()
    data = f"{out}/data"
    with _step(f"films with known content, brains with a known code: {SOURCE.num_subjects} subjects"):
        _publish(SOURCE, data)
    runs = _runs(out, data)
    with connected(searching=True):
        figures: dict[str, Any] = {name: _train(name, make(), f"{out}/{name}") for name, make in runs.items()}
        with _step("a search over two settings on Ray Tune, three trials"):
            figures["search"] = _search(runs["shared"](), f"{out}/search")
        with _step("the decoder behind HTTP on Ray Serve"):
            figures["serve"] = _serve(f"{out}/shared", data)
        figures["video"] = _videos(f"{out}/films")
    _print_table(figures, list(runs))
    say(f"report: {_report(out)}")
    say(f"gallery: {figures['video'].pop('gallery')}")
    found = {"demo": figures, "seconds": round(time.monotonic() - began, 1)}
    print(json.dumps(found))
    return found


@contextmanager
def _step(text: str) -> Iterator[None]:
    began = time.monotonic()
    say(f"[bold]{text}[/bold]")
    yield
    say(f"  [dim]{time.monotonic() - began:.1f} s[/dim]")


def _publish(source: SyntheticConfig, data: str) -> None:
    from cineray.datasets.check import check, show
    from cineray.datasets.dataset import Dataset
    from cineray.datasets.ingest import ingest

    if not Store.at(data).list():
        ingest(source, data, progress=progress)
    show(check(data, progress=progress))
    dataset = Dataset.open(data)
    say(f"  {len(dataset.runs)} runs, voxels {dict(dataset.num_voxels)}, TR {dataset.tr_s:g} s")


def _runs(out: str, data: str) -> dict[str, Callable[[], Run]]:
    """Recipes by folder, in order: the adapted run can only be described once the shared one is there."""
    spread = {"optim.batch_size": 64, "optim.epochs": 12, "num_workers": _num_workers(), "strategy.name": "zero2"}
    return {
        "shared": lambda: synthetic.shared(subjects=SEEN, dataset=data).override(spread),
        "ridge": lambda: synthetic.ridge(subjects=SEEN, dataset=data),
        "adapted": lambda: synthetic.adapt(from_=f"{out}/shared", subject=NEW, minutes=NEW_MINUTES),
        "scratch": lambda: synthetic.scratch(subject=NEW, minutes=NEW_MINUTES, dataset=data),
    }


def _num_workers() -> int:
    """Two, but one where they would have to share a GPU."""
    import torch

    return 1 if torch.cuda.device_count() == 1 else 2


EXPLAINED = {
    "shared": "one decoder for four subjects: Ray Data + Ray Train, DeepSpeed ZeRO-2 on all workers",
    "ridge": "the baseline: ridge for each of the four subjects",
    "adapted": f"a fifth subject joins the shared decoder with {NEW_MINUTES:g} minutes of data",
    "scratch": f"the same {NEW_MINUTES:g} minutes without the shared decoder",
}


def _train(name: str, run: Run, folder: str) -> dict[str, Any]:
    from cineray.training.evaluate import evaluate
    from cineray.training.predict import predict

    with _step(EXPLAINED[name]):
        _fit(name, run, folder)
        predict(folder, "test")
        scores = evaluate(folder, "test")["targets"]["features"]["metrics"]
    kept = ("value", "low", "high", "chance", "null")
    return {metric: {key: scores[metric][key] for key in kept} for metric in METRICS}


def _fit(name: str, run: Run, folder: str) -> None:
    from cineray.cluster.watch import watched
    from cineray.training.feed import open_schedule
    from cineray.training.launch import launch

    with watched(Store.at(folder), name, run.optim.epochs * open_schedule(run).num_steps):
        launch(run, folder)


def _videos(out: str) -> dict[str, Any]:
    """Films to brains to videos, in a folder of its own."""
    from cineray.cluster import demo_video as video

    data = f"{out}/data"
    with _step(f"films to look at: {video.FILMS.num_subjects} subjects, pictures of {video.FILMS.frame_px} px"):
        _publish(video.FILMS, data)
    with _step("features of the films: Ray Data, a pool of actors"):
        video.compute_features(data)
    for name, (text, _) in video.RECONSTRUCTORS.items():
        with _step(text):
            _fit(name, video.run_of(name, data), f"{out}/{name}")
    with _step("videos out of held-out brains, on Ray actors"):
        say(f"  {video.reconstruct(out)} clips")
    with _step("scores and gallery"):
        return video.score(out)


def _search(run: Run, folder: str) -> dict[str, Any]:
    from cineray.training.space import SearchConfig, parse_space
    from cineray.training.tune import Search, search

    run = run.override({"strategy.name": "ddp", "optim.epochs": 2})
    how = SearchConfig(num_trials=3, metric="val/mse/features")
    space = parse_space({"optim.lr": "log:5e-4..5e-3", "model.dropout": "0.1..0.5"}, run, how)
    trials = search(Search(run=run, space=space, search=how), folder, on_trial=_tell)
    return {"trials": len(trials), "best": trials[0].settings, "value": trials[0].value}


def _tell(trial: "TrialResult") -> None:
    from cineray.training.tune import format_trials

    say(f"  {format_trials([trial])}")


def _serve(folder: str, data: str) -> dict[str, Any]:
    """Ask over HTTP about a held-out recording; the answer is what evaluation scored."""
    import httpx
    from ray import serve

    from cineray.datasets.dataset import Dataset
    from cineray.serving.app import ServeConfig, serve_run
    from cineray.serving.keys import generate_key
    from cineray.training.predict import Predictions

    dataset, key, where = Dataset.open(data), generate_key(), []
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = ServeConfig(num_cpus=0.5)
    serve_run(folder, key=key, port=port, dataset_url=data, config=config, on_ready=where.append, block=False)
    try:
        run = next(run for run in dataset.runs if run.subject == SEEN[0] and run.film == "test")
        sent = io.BytesIO()
        np.save(sent, dataset.gather_samples(np.arange(run.first_row, run.first_row + run.num_rows)))
        headers = {"authorization": f"Bearer {key}", "content-type": "application/x-npy", "accept": "application/x-npy"}
        answer = httpx.post(
            f"{where[0]}decode?subject={run.subject}", headers=headers, content=sent.getvalue(), timeout=60
        ).raise_for_status()
    finally:
        serve.shutdown()
    found = Predictions.read(Store.at(folder), "test")
    mine = (found.subject == run.subject) & (found.run == run.run)
    scans = np.load(io.BytesIO(answer.content))[found.sample_row[mine] - run.first_row]
    difference = float(np.abs(scans - found.predicted["features"][mine]).max())
    say(f"  {where[0]} decoded run {run.run} of {run.subject}; largest difference from `eval`: {difference:.1e}")
    return {"scans": len(scans), "max_abs_difference": difference}


def _print_table(figures: dict[str, Any], names: list[str]) -> None:
    say(f"\n{'run':<10}" + "".join(f"{metric:>8}{'95 % interval':>18}{'chance':>8}{'null':>7}" for metric in METRICS))
    for name in names:
        cells = ""
        for metric in METRICS:
            s = figures[name][metric]
            between = f"{s['low']:.3f} … {s['high']:.3f}"
            cells += f"{s['value']:>8.3f}{between:>18}{s['chance']:>8.3f}{s['null']:>7.3f}"
        say(f"{name:<10}{cells}")


def _report(out: str) -> str:
    from cineray.training.report import report

    return report(f"{out}/shared", "test")
