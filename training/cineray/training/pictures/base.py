"""What a metric of reconstructions is, and how the usual kinds are made from small functions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cineray.training.backbones import Backbone
from cineray.training.metrics.similarity import cosine_matrix, pearson_matrix
from cineray.training.pictures.bank import Bank, Pairing
from cineray.training.pictures.flow import farneback
from cineray.training.pictures.identify import rivals
from cineray.training.pictures.resize import resized

__all__ = [
    "STILL",
    "Networks",
    "Values",
    "VideoMetric",
    "always",
    "identification",
    "mean_features",
    "motion",
    "pixels",
    "rows_cosine",
    "similarity",
]

Networks = Mapping[str, Any]
"""Role -> `Backbone`, or `TextBackbone` where sentences are read."""
Values = Callable[[Pairing, Networks], NDArray[np.float64]]
Chance = Callable[[Pairing], NDArray[np.float64]]
Level = Literal["pixels", "motion", "smoothness", "semantics", "features", "retrieval", "text", "brain", "set"]

STILL = ("mean_training_frame", "flat_grey", "first_frame")
"""Baselines: what knows nothing of the clip, and what knows its first frame and nothing of its motion."""


@dataclass(frozen=True)
class VideoMetric:
    """One value for each pair of prediction and truth; NaN where it is not defined."""

    name: str
    meaning: str
    level: Level
    values: Values
    chance: Chance | None = None
    """(pairs,) expected value of a guess among the candidates that pair has; None where only wrong pairs can tell."""
    centre: Literal["mean", "median"] = "mean"
    """What a subject's score is, over clips."""
    higher_is_better: bool = True
    needs: tuple[str, ...] = ()
    """Roles of networks."""
    moving: bool = False
    """Whether it takes at least two frames."""
    min_clips: int = 1
    min_fps: float = 0.0
    """Compared frames a second."""
    min_classes: int = 0
    """Classes that its networks must know."""
    baselines: tuple[str, ...] = STILL
    annotated: bool = False
    """Whether it takes the data set's own classes."""
    roi: str | None = None
    """Region of the brain that is looked at; None is all of it."""
    missing: Callable[[], str | None] = lambda: None
    """Why it cannot be computed on this machine, None if it can."""


def always(value: float) -> Chance:
    """A chance level that does not depend on the candidates."""
    return lambda pairing: np.full(len(pairing.rows), value)


def pixels(
    name: str,
    meaning: str,
    function: Callable[[NDArray[np.floating], NDArray[np.floating]], float],
    *,
    px: int,
    antialias: bool = True,
    chance: Chance | None = None,
) -> VideoMetric:
    """A function of two videos, both resized to ``px`` x ``px``."""

    def values(pairing: Pairing, networks: Networks) -> NDArray[np.float64]:
        def compare(predicted: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
            return function(*(resized(video, px, antialias=antialias) for video in (predicted, truth)))

        return pairing.each(compare, pairing.predicted.videos, pairing.truth.videos)

    kernel = "antialiased" if antialias else "no antialias"
    return VideoMetric(name, f"{meaning}; {px} px, {kernel}", "pixels", values, chance)


def motion(
    name: str,
    meaning: str,
    function: Callable[[Any, Any], float],
    *,
    px: int,
    per_second: bool = True,
    published: bool = False,
    higher_is_better: bool = False,
) -> VideoMetric:
    """A function of two flows at ``px`` x ``px``; ``published`` resizes and weighs colours as Mind-Animator does."""

    def flows(bank: Bank) -> list[NDArray[np.float16]]:
        return bank.described(
            ("flow", px, published), lambda v: farneback(resized(v, px, antialias=not published), swapped=published)
        )

    def values(pairing: Pairing, networks: Networks) -> NDArray[np.float64]:
        found = pairing.each(function, flows(pairing.predicted), flows(pairing.truth))
        return found * (pairing.fps if per_second else 1.0)

    return VideoMetric(
        name,
        f"{meaning}; {px} px",
        "motion",
        values,
        higher_is_better=higher_is_better,
        moving=True,
        baselines=("zero_flow",),
    )


def rows_cosine(p: NDArray[Any], t: NDArray[Any]) -> float:
    """Mean over rows of the cosine of (rows, dim) and (rows, dim); 0 where one is all zeros."""
    p, t = (np.atleast_2d(np.asarray(x, np.float64)) for x in (p, t))
    p, t = (x.reshape(len(x), -1) for x in (p, t))
    scale = np.linalg.norm(p, axis=1) * np.linalg.norm(t, axis=1)
    return float(np.divide((p * t).sum(1), scale, out=np.zeros_like(scale), where=scale > 0).mean())


def mean_features(bank: Bank, network: Backbone) -> NDArray[np.float64]:
    """(videos, values): the network's embedding, mean over a video's frames."""
    rows = [np.asarray(v, np.float64).reshape(len(v), -1).mean(0) for v in bank.by_frame(network, "embedding")]
    return np.stack(rows)


def identification(name: str, role: str, source: str) -> VideoMetric:
    """Two-way identification by one network's features (MindEye2): chance .5."""

    def values(pairing: Pairing, networks: Networks) -> NDArray[np.float64]:
        p, t = (mean_features(bank, networks[role]) for bank in (pairing.predicted, pairing.truth))
        return rivals(pearson_matrix(p, t), pairing.rows, pairing.own, pairing.pool, "image").two_way

    meaning = f"share of wrong clips whose features ({source}) fit less well than the true one's"
    return VideoMetric(name, meaning, "features", values, always(0.5), needs=(role,), min_clips=2)


def similarity(bank_p: Bank, bank_t: Bank, network: Backbone) -> NDArray[np.float64]:
    """(predictions, truths): cosine of mean embeddings."""
    return cosine_matrix(mean_features(bank_p, network), mean_features(bank_t, network))
