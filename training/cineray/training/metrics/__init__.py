"""The registry of metrics: one definition a name, its chance level beside it.

Retrieval metrics score the matrix of similarities (predicted clip, true clip); feature metrics score sums over rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cineray.training.metrics.features import Moments, mean_variance, mse, pearson, r2
from cineray.training.metrics.presence import (
    accuracy,
    balanced_accuracy,
    dice,
    dice_of_all,
    half,
    recall,
    said_rate,
    usual,
)
from cineray.training.metrics.retrieval import expected_top1, ranks, top_k, two_afc

__all__ = [
    "CONCEPT_METRICS",
    "FEATURE_METRICS",
    "MASK_METRICS",
    "RETRIEVAL_METRICS",
    "FeatureMetric",
    "PresenceMetric",
    "RetrievalMetric",
    "retrieve",
]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RetrievalMetric:
    """One value for every query of a square similarity matrix."""

    name: str
    meaning: str
    values: Callable[[Array], Array]
    chance: Callable[[int], float]
    """Number of candidates -> expected value of a guess."""
    centre: Literal["mean", "median"] = "mean"
    higher_is_better: bool = True
    min_candidates: int = 2


@dataclass(frozen=True)
class FeatureMetric:
    """One value for every feature, from sums over the rows; a table shows the mean over features."""

    name: str
    meaning: str
    values: Callable[[Moments], Array]
    chance: Callable[[Moments], Array]
    higher_is_better: bool = True


@dataclass(frozen=True)
class PresenceMetric:
    """Of targets of 0 and 1: of marks (clips, rows, pixels) said and true for masks, of `Counts` for concepts."""

    name: str
    meaning: str
    values: Callable[..., Array]
    chance: Callable[..., Array]
    higher_is_better: bool = True


def retrieve(direction: Literal["image", "brain"], pool: int) -> RetrievalMetric:
    """``retrieve_image@pool``: brain as query, images as candidates; ``retrieve_brain@pool``: the reverse."""
    query = "a brain finds its stimulus" if direction == "image" else "a stimulus finds its brain"
    return RetrievalMetric(
        f"retrieve_{direction}@{pool}",
        f"{query} among {pool}, exact expectation",
        lambda s: expected_top1(s if direction == "image" else s.T, pool),
        lambda n: 1 / pool,
        min_candidates=pool,
    )


RETRIEVAL_METRICS = {
    m.name: m
    for m in (
        RetrievalMetric("top1", "the true clip is the most alike", lambda s: top_k(s, 1), lambda n: 1 / n),
        RetrievalMetric("top5", "the true clip is among the five", lambda s: top_k(s, 5), lambda n: min(5, n) / n),
        RetrievalMetric("2afc", "share of wrong clips below the true one", two_afc, lambda n: 0.5),
        RetrievalMetric(
            "rank",
            "median rank of the true clip",
            lambda s: ranks(s).astype(np.float64),
            lambda n: (n + 1) / 2,
            centre="median",
            higher_is_better=False,
        ),
        *(retrieve(direction, pool) for pool in (10, 50, 300) for direction in ("image", "brain")),
    )
}

FEATURE_METRICS = {
    m.name: m
    for m in (
        FeatureMetric("pearson", "correlation over time, mean over features", pearson, lambda m: np.zeros_like(m.p)),
        FeatureMetric("r2", "share of variance explained, mean over features", r2, lambda m: np.zeros_like(m.p)),
        FeatureMetric("mse", "mean squared error", mse, mean_variance, higher_is_better=False),
    )
}

MASK_METRICS = {
    m.name: m
    for m in (
        PresenceMetric("dice", "overlap of masks, picture by picture; chance marks everything", dice, dice_of_all),
    )
}

CONCEPT_METRICS = {
    m.name: m
    for m in (
        PresenceMetric(
            "concept_accuracy",
            "share of rows told right, mean over concepts; chance is the usual answer by the base rate",
            accuracy,
            usual,
        ),
        PresenceMetric(
            "concept_balanced", "mean of shares told right with and without the concept", balanced_accuracy, half
        ),
        PresenceMetric(
            "concept_recall@neurons",
            "share of rows with the concept told to have it; chance says yes as often, blindly (NEURONS)",
            recall,
            said_rate,
        ),
    )
}
