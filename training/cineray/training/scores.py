"""Every registered metric of a set of predictions, with its chance, a shuffled null and an interval."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cineray.core.errors import DataError
from cineray.training.bootstrap import Interval, interval, of_values
from cineray.training.cuts import Part, Scoring, Table, tabulate
from cineray.training.metrics import FEATURE_METRICS, RETRIEVAL_METRICS, FeatureMetric, PresenceMetric, RetrievalMetric
from cineray.training.metrics.features import Moments

__all__ = ["Part", "Score", "Scoring", "compare", "line", "per_clip", "score", "score_table"]

Array = NDArray[np.float64]
Metric = RetrievalMetric | FeatureMetric | PresenceMetric

FEATURES_AT_ONCE = 512
"""Bootstrapping correlations holds draws x features sums; this many features keep it near 50 MB."""


@dataclass(frozen=True)
class Score:
    """One line of the table."""

    metric: str
    meaning: str
    value: float
    low: float
    high: float
    chance: float
    null: float
    null_sd: float
    """Over single shuffles of all subjects."""
    num_subjects: int
    num_clips: int
    higher_is_better: bool
    per_subject: dict[str, float]


def score(parts: Sequence[Part], how: Scoring) -> dict[str, Score]:
    """Every metric that the number of clips allows."""
    return score_table(tabulate(parts, how))


def score_table(table: Table) -> dict[str, Score]:
    """The same for predictions already cut."""
    own = _scores(table, 0, table.draws.weights)
    nulls = [_scores(table, number, table.draws.weights[:1]) for number in range(1, table.num_null + 1)]
    chance = _chance(table)
    return {m.name: line(m, table, own[m.name], [n[m.name] for n in nulls], chance[m.name]) for m in _metrics(table)}


def compare(a: Sequence[Part], b: Sequence[Part], how: Scoring) -> dict[str, Interval]:
    """Metric -> paired interval of a - b: both under the same draws, so that what they share cancels."""
    first, second = tabulate(a, how), tabulate(b, how)
    if first.subjects != second.subjects or first.clips != second.clips:
        raise DataError(
            f"the first method has {len(first.subjects)} subjects and {len(first.clips)} clips, the second "
            f"{len(second.subjects)} and {len(second.clips)} or other ones; compare predictions of the same rows"
        )
    weights = first.draws.weights
    ours, theirs = (_scores(table, 0, weights) for table in (first, second))
    return {name: interval(ours[name] - theirs[name], first.draws) for name in ours}


def _metrics(table: Table) -> list[Metric]:
    return [*_retrieval_metrics(table), *FEATURE_METRICS.values()]


def _retrieval_metrics(table: Table) -> list[RetrievalMetric]:
    fewest = min(len(c.keys) for c in table.cuts)
    return [m for m in RETRIEVAL_METRICS.values() if m.min_candidates <= fewest]


def _scores(table: Table, pairing: int, weights: Array) -> dict[str, Array]:
    """Metric -> (draws, subjects) under clip weights; pairing 0 is the true one, the others are nulls."""
    retrieval = {m.name: of_values(per_clip(m, table, pairing), weights, m.centre) for m in _retrieval_metrics(table)}
    return retrieval | _over_features(table, pairing, weights, {m.name: m.values for m in FEATURE_METRICS.values()})


def per_clip(metric: RetrievalMetric, table: Table, pairing: int = 0) -> Array:
    """(subjects, clips): each clip against all true clips of its own run; NaN where it was not seen."""
    values = np.full((len(table.subjects), len(table.clips)), np.nan)
    for c in table.cuts:
        values[table.subjects.index(c.subject), table.columns(c)] = metric.values(c.similarity[pairing])
    return values


def _over_features(
    table: Table, pairing: int, weights: Array, functions: Mapping[str, Callable[[Moments], Array]]
) -> dict[str, Array]:
    """Mean over features of functions of the sums: (draws, subjects) each; a few features at a time."""
    found = {name: np.zeros((len(weights), len(table.subjects))) for name in functions}
    for column, subject in enumerate(table.subjects):
        cuts = table.of(subject)
        taken = weights[:, np.concatenate([table.columns(c) for c in cuts])]
        predicted = np.concatenate([c.pairing(pairing) for c in cuts])
        truth = np.concatenate([c.truth for c in cuts])
        num = truth.shape[2]
        for first in range(0, num, FEATURES_AT_ONCE):
            part = slice(first, first + FEATURES_AT_ONCE)
            moments = Moments.of(predicted[..., part], truth[..., part]).weighted(taken)
            for name, function in functions.items():
                found[name][:, column] += function(moments).sum(1) / num
        for scores in found.values():
            scores[taken.sum(1) == 0, column] = np.nan
    return found


def _chance(table: Table) -> dict[str, float]:
    num = [len(c.keys) for c in table.cuts]
    retrieval = {m.name: float(np.average([m.chance(n) for n in num], weights=num)) for m in _retrieval_metrics(table)}
    functions = {m.name: m.chance for m in FEATURE_METRICS.values()}
    features = _over_features(table, 0, table.draws.weights[:1], functions)
    return retrieval | {name: float(np.nanmean(scores)) for name, scores in features.items()}


def line(metric: Metric, table: Table, own: Array, nulls: Sequence[Array], chance: float) -> Score:
    """A metric's line out of its scores (draws, subjects) and those of each null, whose first draw counts."""
    null = [float(np.nanmean(scores)) for scores in nulls]
    value, low, high = interval(own, table.draws)
    return Score(
        metric.name,
        metric.meaning,
        value,
        low,
        high,
        chance=chance,
        null=float(np.mean(null)),
        null_sd=float(np.std(null)),
        num_subjects=len(table.subjects),
        num_clips=len(table.clips),
        higher_is_better=metric.higher_is_better,
        per_subject=dict(zip(table.subjects, own[0].tolist(), strict=True)),
    )
