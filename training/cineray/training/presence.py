"""Scores of targets that hold nothing but 0 and 1: masks of pictures (two axes or more), concepts (one axis).

A prediction says yes above .5 in the units in which the target is stored.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cineray.training.bootstrap import of_values
from cineray.training.cuts import Cut, Table
from cineray.training.metrics import CONCEPT_METRICS, MASK_METRICS
from cineray.training.metrics.presence import Counts, accuracy, recall, usual
from cineray.training.scores import Score, line

__all__ = ["concept_by_concept", "is_presence", "presence_scores"]

Array = NDArray[np.float64]
Over = Callable[[Table, int, NDArray[np.floating], Array, Callable[..., Array]], Array]


def is_presence(truth: NDArray[Any]) -> bool:
    """Whether a target holds nothing but 0 and 1."""
    return bool(np.isin(truth, (0, 1)).all())


def presence_scores(table: Table, yes: NDArray[np.floating], *, mask: bool) -> dict[str, Score]:
    """Every metric of masks or of concepts; one that is not defined for any row is left out.

    Args:
        table: predictions and truths in clips.
        yes: (values,) or (1,): what is above means yes, in the units of both.
        mask: whether the values are pixels of masks; concepts otherwise.
    """
    over: Over = _over_rows if mask else _over_concepts
    weights, found = table.draws.weights, {}
    for metric in (MASK_METRICS if mask else CONCEPT_METRICS).values():
        own = over(table, 0, yes, weights, metric.values)
        if np.isnan(own[0]).all():
            continue
        nulls = [over(table, k, yes, weights[:1], metric.values) for k in range(1, table.num_null + 1)]
        chance = over(table, 0, yes, weights[:1], metric.chance)
        found[metric.name] = line(metric, table, own, nulls, float(np.nanmean(chance)))
    return found


def concept_by_concept(table: Table, yes: NDArray[np.floating]) -> list[dict[str, float | None]]:
    """Each concept by itself, in the target's order, all rows of all subjects taken together."""
    total = _sum(_counts(c, 0, yes).weighted(np.ones(len(c.keys))) for c in table.cuts)
    columns = {
        "base_rate": total.true / total.n,
        "accuracy": accuracy(total),
        "usual_answer": usual(total),
        "recall": recall(total),
    }
    return [
        {name: None if np.isnan(values[k]) else float(values[k]) for name, values in columns.items()}
        for k in range(len(total.true))
    ]


def _marks(c: Cut, pairing: int, yes: NDArray[np.floating]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(clips, rows, values) twice: said, and true."""
    return c.pairing(pairing) > yes, c.truth > yes


def _counts(c: Cut, pairing: int, yes: NDArray[np.floating]) -> Counts:
    return Counts.of(*_marks(c, pairing, yes))


def _sum(parts: Iterable[Counts]) -> Counts:
    return Counts(*(np.sum(each, axis=0) for each in zip(*parts, strict=True)))


def _over_rows(
    table: Table, pairing: int, yes: NDArray[np.floating], weights: Array, function: Callable[..., Array]
) -> Array:
    """Mean over pictures of a function of said and true marks: (draws, subjects)."""
    values = np.full((len(table.subjects), len(table.clips)), np.nan)
    for c in table.cuts:
        values[table.subjects.index(c.subject), table.columns(c)] = function(*_marks(c, pairing, yes)).mean(1)
    return of_values(values, weights)


def _over_concepts(
    table: Table, pairing: int, yes: NDArray[np.floating], weights: Array, function: Callable[..., Array]
) -> Array:
    """Mean of a function of counts over the concepts for which it is defined: (draws, subjects)."""
    found = []
    for subject in table.subjects:
        parts = (_counts(c, pairing, yes).weighted(weights[:, table.columns(c)]) for c in table.of(subject))
        values = function(_sum(parts))
        defined = ~np.isnan(values)
        num = defined.sum(1)
        found.append(np.divide(np.where(defined, values, 0).sum(1), num, out=np.full(len(num), np.nan), where=num > 0))
    return np.stack(found, 1)
