"""One page about a run that any browser opens without a network: ``report.html`` in the run folder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from cineray.core.errors import ConfigError, IntegrityError
from cineray.core.records import read_records
from cineray.core.storage import Store
from cineray.training import plots
from cineray.training.predict import read_run

__all__ = ["report"]

HEADLINE = "2afc"
"""Metric of the bars and of the curve over minutes: defined for any number of clips, chance always one half."""


def report(run_dir: str | Path, split: str = "test", *, beside: Sequence[str | Path] = ()) -> str:
    """Write ``report.html`` from what evaluation left behind; returns where it is.

    Args:
        run_dir: folder of an evaluated run.
        split: which evaluation to show.
        beside: evaluated runs of the same kind with other amounts of training data; together with this one they make
            the curve over minutes. Runs with the same model and initialisation, their names ignored, share a line.
    """
    store = Store.at(run_dir)
    evaluation = _evaluation(store, split)
    run = read_run(store)
    targets = [
        {
            "name": name,
            "metrics": list(found["metrics"].values()),
            "pictures": _pictures(found),
            "concepts": found.get("concepts", ()),
        }
        for name, found in evaluation["targets"].items()
    ]
    page = _template().render(
        evaluation=evaluation,
        targets=targets,
        learning=plots.learning_curve(read_records(store, "metrics.jsonl")),
        minutes=_over_minutes([run_dir, *beside], split) if beside else None,
        headline=HEADLINE,
        settings=run.dump(),
    )
    store.put("report.html", page.encode())
    return store.path("report.html")


def _evaluation(store: Store, split: str) -> dict[str, Any]:
    if not store.exists(key := f"evaluation/{split}.json"):
        raise ConfigError(f"{store.url} holds no {key}; write it with `cineray eval {store.url} split={split}`")
    try:
        return json.loads(store.get(key))
    except ValueError:
        raise IntegrityError(f"{store.path(key)} is damaged; score this split again with `cineray eval`") from None


def _pictures(found: dict[str, Any]) -> list[dict[str, str]]:
    shown = found["similarity"]
    return [
        {
            "title": "Subject by subject",
            "source": plots.subject_bars(found["metrics"][HEADLINE]),
            "caption": "Share of wrong clips that fit the prediction less well than the true one.",
        },
        {
            "title": "Ranks of the true clips",
            "source": plots.rank_histogram(found["ranks"], found["metrics"]["rank"]["chance"]),
            "caption": "All subjects and clips. Chance is even; a decoder piles up on the left.",
        },
        {
            "title": "Predicted against true clips",
            "source": plots.similarity_matrix(shown),
            "caption": f"{shown['film'] or shown['run']}, mean of {shown['num_subjects']} subjects, "
            f"{len(shown['matrix'])} clips. A decoder that works has a bright diagonal.",
        },
    ]


def _over_minutes(folders: Sequence[str | Path], split: str) -> str:
    """Groups runs by what they are but for the amount of data."""
    curves: dict[str, list[tuple[float, float, float, float]]] = {}
    chance = 0.5
    for folder in folders:
        store = Store.at(folder)
        run, evaluation = read_run(store), _evaluation(store, split)
        minutes = run.view.split.train.minutes
        if minutes is None:
            raise ConfigError(f"{store.url} states no view.split.train.minutes; leave it out of the curve or set it")
        score = next(iter(evaluation["targets"].values()))["metrics"][HEADLINE]
        point = (float(minutes), score["value"], score["low"], score["high"])
        curves.setdefault(run.name, []).append(point)
        chance = score["chance"]
    return plots.accuracy_over_minutes(curves, HEADLINE, chance)


def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["number"] = lambda x: f"{x:.3f}".replace("-", "−")
    text = Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8")
    return environment.from_string(text)
