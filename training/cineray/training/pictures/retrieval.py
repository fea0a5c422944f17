"""Retrieval: who finds whom among all clips a subject saw, or among some of them drawn at random; ties fail."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cineray.training.pictures.bank import Pairing
from cineray.training.pictures.base import Networks, VideoMetric, similarity
from cineray.training.pictures.drawing import miss_all
from cineray.training.pictures.identify import Direction, num_others, rivals

__all__ = ["RETRIEVAL_METRICS"]

Array = NDArray[Any]
Counts = NDArray[np.int64]
DIRECTIONS: tuple[Direction, ...] = ("image", "brain")
QUERY = {"image": "a reconstruction finds its clip", "brain": "a clip finds its reconstruction"}


def _ranking(
    name: str,
    meaning: str,
    direction: Direction,
    score: Callable[[Counts, Counts], Array],
    chance: Callable[[Counts], Array],
    **settings: Any,
) -> VideoMetric:
    """``score`` of the number of better wrong candidates, and of all; ``chance`` of all wrong candidates alone."""

    def values(pairing: Pairing, networks: Networks) -> Array:
        alike = similarity(pairing.predicted, pairing.truth, networks["clip"])
        return score(*rivals(alike, pairing.rows, pairing.own, pairing.pool, direction))

    return VideoMetric(
        name,
        f"{QUERY[direction]} {meaning}, by picture embedding",
        "retrieval",
        values,
        lambda pairing: chance(num_others(pairing.own, pairing.pool, direction)),
        needs=("clip",),
        **settings,
    )


def _retrieve(direction: Direction, pool: int, name: str = "") -> VideoMetric:
    """Among the true candidate and ``pool - 1`` drawn from the others."""
    return _ranking(
        name or f"retrieve_{direction}@{pool}",
        f"among {pool}, exact expectation",
        direction,
        lambda better, others: miss_all(better, others, pool - 1),
        lambda others: np.full(len(others), 1 / pool),
        min_clips=pool,
    )


def _retrieve_first(direction: Direction, first: int, name: str) -> VideoMetric:
    """Among the ``first`` of all candidates."""
    return _ranking(
        name,
        f"{'first' if first == 1 else f'among the first {first}'} of all",
        direction,
        lambda better, others: (better < first).astype(float),
        lambda others: np.minimum(first / (others + 1), 1.0),
        min_clips=2,
    )


def _retrieve_rank(direction: Direction) -> VideoMetric:
    return _ranking(
        f"retrieve_{direction}_rank",
        "at this rank among all, median over clips",
        direction,
        lambda better, others: better + 1.0,
        lambda others: others / 2 + 1,
        centre="median",
        higher_is_better=False,
        min_clips=2,
    )


RETRIEVAL_METRICS = (
    *(_retrieve_first(direction, 1, f"retrieve_{direction}") for direction in DIRECTIONS),
    *(_retrieve_first(direction, 5, f"retrieve_{direction}_top5") for direction in DIRECTIONS),
    *(_retrieve_rank(direction) for direction in DIRECTIONS),
    *(_retrieve(direction, pool) for pool in (10, 50, 300) for direction in DIRECTIONS),
    _retrieve("brain", 300, "retrieval@medarc_forward"),
    _retrieve("image", 300, "retrieval@medarc_backward"),
    _retrieve("image", 300, "retrieval@litemind"),
)
"""MedARC's published "forward" retrieval has images as queries: its two names are to be read crosswise."""
