"""Score a run's predictions: reads the predictions and the data set's truths, never a model.

``evaluation/<split>.json`` holds the table of every target and what the report draws. The test split is read by
prediction and evaluation alone; whatever is chosen, is chosen on validation data.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cineray.core.errors import ConfigError
from cineray.core.storage import Store
from cineray.datasets.dataset import Dataset
from cineray.datasets.manifest import require_data
from cineray.training.bootstrap import Interval
from cineray.training.cuts import Part, Scoring, Table, tabulate
from cineray.training.metrics import RETRIEVAL_METRICS
from cineray.training.predict import Predictions, read_run
from cineray.training.presence import concept_by_concept, is_presence, presence_scores
from cineray.training.row_labels import SINGLE, num_scored, selection
from cineray.training.run import EvaluationConfig, Run
from cineray.training.scores import compare, per_clip, score_table

__all__ = ["compare_runs", "describe", "evaluate", "format_table", "parts_of"]

SHOWN_CLIPS = 100
"""Clips of the similarity matrix in the report; more cannot be told apart on a page."""


def evaluate(run_dir: str | Path, split: str = "test") -> dict[str, Any]:
    """Score every target and write ``evaluation/<split>.json``; returns what was written."""
    store = Store.at(run_dir)
    run, predictions, dataset = _opened(store, split)
    how = scoring(run.evaluation, run.seed)
    found = {
        "run": run.name,
        "fingerprint": run.fingerprint(),
        "dataset": run.view.dataset,
        "split": split,
        "step": predictions.step,
        "notes": predictions.notes.tolist(),
        "labels": [SINGLE, num_scored(split, len(np.unique(predictions.stimulus_row))), *selection(run)],
        "model": run.model.name,
        "scoring": asdict(how),
        "targets": {
            target: _described(tabulate(list(parts_of(predictions, target, truth.rows)), how), truth)
            for target, truth in _truths(predictions, dataset)
        },
    }
    store.put(f"evaluation/{split}.json", json.dumps(found, indent=1, allow_nan=False).encode())
    return found


def compare_runs(
    first: str | Path, second: str | Path, split: str = "test", target: str = "features"
) -> dict[str, Interval]:
    """Metric -> paired 95 % interval of the first run's score minus the second's, on the same subjects and clips."""
    run = read_run(Store.at(first))
    a, b = (_parts_in(Store.at(folder), split, target) for folder in (first, second))
    return compare(a, b, scoring(run.evaluation, run.seed))


def _parts_in(store: Store, split: str, target: str) -> list[Part]:
    _, predictions, dataset = _opened(store, split)
    truths = dict(_truths(predictions, dataset, (target,)))
    return list(parts_of(predictions, target, truths[target].rows))


def _opened(store: Store, split: str) -> tuple[Run, Predictions, Dataset]:
    """A run, its predictions of a split, and the data set that both were made from."""
    run, predictions = read_run(store), Predictions.read(store, split)
    dataset = Dataset.open(run.view.dataset)
    data = dataset.fingerprint_of(run.view.targets)
    require_data(data, predictions.data, url=dataset.store.url, user="the predictions")
    return run, predictions, dataset


def scoring(config: EvaluationConfig, seed: int) -> Scoring:
    """The scorer's settings out of a run's."""
    return Scoring(**config.model_dump(), seed=seed)


def parts_of(predictions: Predictions, target: str, truth: NDArray[np.floating]) -> Iterator[Part]:
    """One part for each run of each subject; ``truth`` (rows, ...) beside the predictions' rows."""
    predicted = predictions.predicted[target]
    edges = (predictions.subject[1:] != predictions.subject[:-1]) | (predictions.run[1:] != predictions.run[:-1])
    for rows in np.split(np.arange(len(predicted)), np.flatnonzero(edges) + 1):
        yield Part(
            subject=str(predictions.subject[rows[0]]),
            film=str(predictions.film[rows[0]]),
            run=str(predictions.run[rows[0]]),
            time_s=predictions.time_s[rows],
            stimulus_row=predictions.stimulus_row[rows],
            predicted=predicted[rows],
            truth=truth[rows],
        )


def format_table(evaluation: Mapping[str, Any], target: str | None = None) -> str:
    """The table of one target (by default the first) in plain text."""
    target = target or next(iter(evaluation["targets"]))
    lines = [", ".join(evaluation["labels"])]
    lines += [f"{'metric':<24}{'value':>9}{'95 % interval':>20}{'chance':>9}{'null':>9}  units"]
    for name, s in evaluation["targets"][target]["metrics"].items():
        units = f"{s['num_subjects']} subjects, {s['num_clips']} clips"
        between = f"{s['low']:.3f} … {s['high']:.3f}"
        lines.append(f"{name:<24}{s['value']:>9.3f}{between:>20}{s['chance']:>9.3f}{s['null']:>9.3f}  {units}")
    for number, s in enumerate(evaluation["targets"][target].get("concepts", ())):
        known = {name: "–" if value is None else f"{value:.3f}" for name, value in s.items()}
        lines.append(
            "concept {:<12}accuracy {accuracy} beside {usual_answer} of the usual answer, recall {recall}, "
            "base rate {base_rate}".format(number, **known)
        )
    return "\n".join(lines)


class _Truth(NamedTuple):
    rows: NDArray[np.float32]
    """(rows, ...) in the units of the predictions."""
    yes: NDArray[np.float32] | None
    """(values,) or (1,): .5 of what is stored, in these units, where that is nothing but 0 and 1."""


def _truths(predictions: Predictions, dataset: Dataset, targets: tuple[str, ...] = ()) -> Iterator[tuple[str, _Truth]]:
    """Each target's truth beside the predictions' rows."""
    if unknown := set(targets) - set(predictions.predicted):
        raise ConfigError(f"there are no predictions of '{unknown.pop()}'; found {', '.join(predictions.predicted)}")
    shown, row = np.unique(predictions.stimulus_row, return_inverse=True)
    for target in targets or predictions.predicted:
        truth = dataset.gather_stimuli(target, shown).astype(np.float32)
        mean, sd = predictions.scale.get(target, (np.float32(0), np.float32(1)))
        yes = ((np.float32(0.5) - mean) / sd).reshape(-1) if is_presence(truth) else None
        yield target, _Truth(((truth - mean) / sd)[row], yes)


def _described(table: Table, truth: _Truth) -> dict[str, Any]:
    """`describe`, and what is told of yes and no where the truth is nothing else."""
    found = describe(table)
    if truth.yes is None:
        return found
    mask = truth.rows.ndim > 2
    found["metrics"] |= {name: asdict(s) for name, s in presence_scores(table, truth.yes, mask=mask).items()}
    return found if mask else found | {"concepts": concept_by_concept(table, truth.yes)}


def describe(table: Table) -> dict[str, Any]:
    """What the report needs of one target: the table, the rank of every clip, one similarity matrix."""
    ranks = per_clip(RETRIEVAL_METRICS["rank"], table)
    return {
        "metrics": {name: asdict(s) for name, s in score_table(table).items()},
        "ranks": {s: [int(r) for r in own if not np.isnan(r)] for s, own in zip(table.subjects, ranks, strict=True)},
        "similarity": _mean_similarity(table),
    }


def _mean_similarity(table: Table) -> dict[str, Any]:
    """Mean over subjects of the similarity matrix of the run that most of them share."""
    runs = [tuple(c.keys[:SHOWN_CLIPS]) for c in table.cuts]
    shared = max(runs, key=runs.count)
    matrices = [
        c.similarity[0][: len(shared), : len(shared)] for c, run in zip(table.cuts, runs, strict=True) if run == shared
    ]
    return {
        "film": shared[0][0],
        "run": shared[0][1],
        "start_s": [start for _, _, start in shared],
        "num_subjects": len(matrices),
        "matrix": np.mean(matrices, axis=0).round(4).tolist(),
    }
