"""Lines of the table of reconstructions: value, interval, chance, shuffled null, baselines, subject by subject.

Intervals resample blocks of consecutive clips inside the subjects at hand: they speak of other clips for these people.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cineray.training.bootstrap import Draws, draw, interval, of_values
from cineray.training.pictures import VideoMetric
from cineray.training.pictures.bank import Bank, Pairing
from cineray.training.pictures.base import STILL, Networks
from cineray.training.pictures.frechet import frechet_distance
from cineray.training.video_clips import SubjectClips, Truths
from cineray.training.video_settings import fvd_role

__all__ = ["Found", "clip_draws", "fvd_line", "line", "measure"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Found:
    """One metric, everywhere: each (subjects, stimuli), NaN where not seen or not defined."""

    own: Array
    nulls: list[Array]
    baselines: dict[str, Array]
    truth: Array
    """The truth in place of its reconstruction: the best that can be reached, or the film's own smoothness."""
    chance: Array | None
    """Of a guess among the candidates each clip has; None where only wrong pairs can tell."""


def measure(
    metric: VideoMetric,
    people: list[SubjectClips],
    truths: Truths,
    wrong: list[list[NDArray[np.int64]]],
    baselines: Mapping[str, Any],
    networks: Networks,
) -> Found:
    """``wrong`` holds, for each subject, the clips beside which each reconstruction stands in each null draw."""
    seen: dict[tuple[str, bytes, str], Array] = {}

    def score(shown: NDArray[np.int64], pairing: Pairing) -> Array:
        """``shown`` is what was on screen, whatever stands beside it."""
        return _by_stimulus(shown, metric.values(pairing, networks), len(truths.ids))

    def held(person: SubjectClips, name: str, bank: Bank, place: NDArray[np.int64]) -> Array:
        """Once for all who saw the same clips."""
        key = (name, person.pool.tobytes(), person.subject if metric.level == "brain" else "")
        if key not in seen:
            seen[key] = score(person.pool, person.standing_in(truths, bank, place))
        return seen[key]

    stand_in = {name: baselines[name] for name in metric.baselines if name in baselines}
    return Found(
        np.stack([score(p.own, p.pairing(truths)) for p in people]),
        [
            np.stack([score(p.own, p.pairing(truths, beside)) for p, beside in zip(people, draw_, strict=True)])
            for draw_ in zip(*wrong, strict=True)
        ],
        {name: np.stack([held(p, name, *found) for p in people]) for name, found in stand_in.items()},
        np.stack([held(p, "truth", truths.bank, np.arange(len(truths.ids))) for p in people]),
        np.stack([_by_stimulus(p.own, metric.chance(p.pairing(truths)), len(truths.ids)) for p in people])
        if metric.chance
        else None,
    )


def _by_stimulus(own: NDArray[np.int64], values: Array, num: int) -> Array:
    """(clips,) to (stimuli,): mean over the repeats of a stimulus; NaN where it was not seen or is not defined."""
    defined = ~np.isnan(values)
    count = np.bincount(own[defined], minlength=num)
    total = np.bincount(own[defined], values[defined], minlength=num)
    return np.divide(total, count, out=np.full(num, np.nan), where=count > 0)


def clip_draws(num_subjects: int, blocks: list[Any], *, num: int, seed: int) -> Draws:
    """Blocks of clips with replacement; the subjects stay."""
    draws = draw(num_subjects, blocks, num=num, seed=seed)
    return draws._replace(subjects=np.ones_like(draws.subjects))


def line(metric: VideoMetric, found: Found, subjects: list[str], draws: Draws, networks: Networks) -> dict[str, Any]:
    """The metric's line of the table."""
    scores = of_values(found.own, draws.weights, metric.centre)
    value, low, high = interval(scores, draws)
    nulls = [c for null in found.nulls if (c := _centre(null, metric)) is not None]
    num_clips = int((~np.isnan(found.own)).any(0).sum())
    return {
        "metric": metric.name,
        "meaning": metric.meaning,
        "networks": [networks[role].name for role in metric.needs],
        "level": metric.level,
        "value": value,
        "low": low,
        "high": high,
        "chance": None
        if found.chance is None
        else _centre(np.where(np.isnan(found.own), np.nan, found.chance), metric),
        "null": float(np.mean(nulls)) if nulls else None,
        "null_sd": float(np.std(nulls)) if nulls else None,
        "baselines": {name: _centre(values, metric) for name, values in found.baselines.items()},
        "truth": _centre(found.truth, metric),
        "higher_is_better": metric.higher_is_better,
        "num_subjects": len(subjects),
        "num_clips": num_clips,
        "per_subject": {
            subject: interval(scores[:, [k]], draws._replace(subjects=draws.subjects[:, [k]]))._asdict()
            for k, subject in enumerate(subjects)
        },
    }


def fvd_line(
    people: list[SubjectClips], truths: Truths, blocks: list[Any], baselines: Mapping[str, Any], networks: Networks
) -> dict[str, Any]:
    """The Fréchet distance of videos, which has no value for a single clip and no wrong pairs.

    A bootstrap would repeat clips and so change the distance itself; its interval is 1.96 standard errors of a
    jackknife that leaves out one block at a time.
    """
    network = networks[fvd_role(networks)]
    true = _features(truths.bank, network)
    scores = []
    for person in people:
        own = _features(person.predicted, network)
        scores.append(_jackknife(lambda k, p=person, f=own: frechet_distance(f[k], true[p.own[k]]), person.own, blocks))
    value, error = (np.array(x) for x in zip(*scores, strict=True))
    whole = float(np.sqrt((error**2).sum()) / len(people))
    stand_in = {n: _features(baselines[n][0], network)[baselines[n][1]] for n in STILL if n in baselines}
    return {
        "metric": "fvd",
        "meaning": "Fréchet distance of video features, sample covariances; interval by jackknife over blocks",
        "networks": [network.name],
        "level": "set",
        **_around(float(value.mean()), whole),
        "chance": None,
        "null": None,
        "null_sd": None,
        "baselines": {
            name: float(np.mean([frechet_distance(f[p.pool], true[p.pool]) for p in people]))
            for name, f in stand_in.items()
        },
        "truth": 0.0,
        "higher_is_better": False,
        "num_subjects": len(people),
        "num_clips": len(truths.ids),
        "per_subject": {p.subject: _around(float(v), float(e)) for p, v, e in zip(people, value, error, strict=True)},
    }


def _features(bank: Any, network: Any) -> Array:
    return np.stack([np.asarray(v, np.float64).reshape(-1) for v in bank.by_video(network, "embedding")])


def _jackknife(
    distance: Callable[[NDArray[np.int64]], float], own: NDArray[np.int64], blocks: list[Any]
) -> tuple[float, float]:
    """The value of all clips, and its standard error over blocks left out one at a time."""
    names = [str(blocks[number]) for number in own]
    every = np.arange(len(own))
    left_out = [distance(kept) for name in sorted(set(names)) if len(kept := every[[n != name for n in names]]) > 1]
    num = len(left_out)
    error = np.sqrt((num - 1) * np.var(left_out)) if num > 1 else float("nan")
    return distance(every), float(error)


def _around(value: float, error: float) -> dict[str, float]:
    return {"value": value, "low": value - 1.96 * error, "high": value + 1.96 * error}


def _centre(values: Array, metric: VideoMetric) -> float | None:
    """Over clips, then mean over subjects; None where no clip is defined."""
    centre = {"mean": np.mean, "median": np.median}[metric.centre]
    rows = [centre(row[~np.isnan(row)]) for row in values if not np.isnan(row).all()]
    return float(np.mean(rows)) if rows else None
