"""Real brains, real pictures: reconstructions of figures that the decoder never learnt from.

    make results-miyawaki [PERMUTATIONS=300]      or      python -m benchmarks.results_miyawaki

The folder is ``$CINERAY_DATA/miyawaki2008_figures``. Tables go to the terminal; the last line is JSON.
docs/results/miyawaki.md explains them.
"""

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from benchmarks.results_miyawaki_data import Array, Study, load, permuted
from benchmarks.results_miyawaki_decoders import (
    Criterion,
    Decoded,
    MatchedFilter,
    Nested,
    Ridge,
    identified,
    own_correlation,
)
from numpy.typing import NDArray

from cineray.core.errors import CinerayError, ConfigError
from cineray.training.bootstrap import Draws, draw, interval, of_values

OURS = "matched filter"
ROWS: dict[str, tuple[type[MatchedFilter] | type[Ridge], Criterion, bool]] = {
    OURS: (MatchedFilter, own_correlation, True),
    "matched filter, not clipped": (MatchedFilter, own_correlation, False),
    "matched filter, settings by identification": (MatchedFilter, identified, True),
    "ridge, penalty by pixel r": (Ridge, own_correlation, False),
    "ridge, penalty by identification": (Ridge, identified, False),
    "ridge, clipped, penalty by pixel r": (Ridge, own_correlation, True),
    "ridge, clipped, penalty by identification": (Ridge, identified, True),
}
"""Decoder -> what is fitted, what chooses its settings in the inner folds, and whether pixels end at 0 and 1."""

METRICS = ("identification", "own_condition", "pixel_r")
DRAWS = 10_000
SEED = 0


class Scores(NamedTuple):
    """Of each block."""

    identification: Array
    """1 where the own picture of all 20 has the highest correlation with the prediction."""
    own_condition: Array
    """The same among the five pictures of the own condition."""
    pixel_r: Array
    """Correlation over pixels with the own picture."""

    @classmethod
    def of(cls, predicted: NDArray[np.floating], study: Study, pictures: Array) -> "Scores":
        """``pictures`` may be permuted against what was shown."""
        same = study.condition[study.shown][:, None] == study.condition[None]
        return cls(
            identified(predicted, pictures, study.shown, np.ones_like(same)),
            identified(predicted, pictures, study.shown, same),
            own_correlation(predicted, pictures, study.shown, same),
        )


def main(words: Sequence[str] | None = None) -> None:
    """An error meant for people is one sentence and exit code 2."""
    parser = argparse.ArgumentParser(prog="results-miyawaki", description=__doc__)
    parser.add_argument("--data", default=os.environ.get("CINERAY_DATA", ""))
    parser.add_argument("--permutations", type=int, default=int(os.environ.get("PERMUTATIONS") or 300))
    asked = parser.parse_args(words)
    try:
        if not asked.data:
            raise ConfigError(
                "found no CINERAY_DATA, expected the folder of miyawaki2008_figures; set it or use --data"
            )
        if asked.permutations < 1:
            raise ConfigError(f"found {asked.permutations} permutations, expected at least 1")
        found = results(load(Path(asked.data) / "miyawaki2008_figures"), asked.permutations)
    except CinerayError as error:
        print(f"results-miyawaki: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print("\n".join(table(found)))
    print(json.dumps(rounded(found)))


def results(study: Study, num_permutations: int) -> dict[str, Any]:
    """All figures."""
    started = time.perf_counter()
    found: dict[str, Any] = {"n_blocks": len(study.shown), "n_pictures": len(study.pictures)}
    units = {"leave_one_stimulus_out": study.by_picture, "leave_one_condition_out": study.by_condition}
    for protocol, held in units.items():
        print(f"[{time.perf_counter() - started:4.0f} s] {protocol}", file=sys.stderr, flush=True)
        found[protocol] = _protocol(study, held, num_permutations)
    return found | {"permutations": num_permutations, "seconds": time.perf_counter() - started}


def _protocol(study: Study, units: list[tuple[int, ...]], num_permutations: int) -> dict[str, Any]:
    """Every decoder, the floor, paired differences and the null of ours."""
    fitted = {make: Nested(study, units, make) for make in (MatchedFilter, Ridge)}
    scores, chosen = {}, {}
    for name, (make, criterion, clip) in ROWS.items():
        decoded: Decoded = fitted[make].decode(study.pictures, criterion, clip=clip)
        scores[name] = Scores.of(decoded.predicted, study, study.pictures)
        chosen[name] = [[count, setting] for setting, count in Counter(decoded.chosen).most_common()]
    draws = draw(1, study.shown.tolist(), num=DRAWS, seed=SEED)
    rng = np.random.default_rng(SEED)
    nulls = []
    for _ in range(num_permutations):
        pictures = permuted(study, rng)
        decoded = fitted[MatchedFilter].decode(pictures, own_correlation, clip=True)
        nulls.append([metric.mean() for metric in Scores.of(decoded.predicted, study, pictures)])
    return {
        "rows": {name: {m: _interval(s, draws) for m, s in score._asdict().items()} for name, score in scores.items()},
        "minus": {name: _differences(scores[OURS], score, draws) for name, score in scores.items() if name != OURS},
        "floor_pixel_r": float(own_correlation(*_floor(study, units)).mean()),
        "null": {
            metric: _null(np.array(nulls)[:, at], float(scores[OURS][at].mean())) for at, metric in enumerate(METRICS)
        },
        "chosen": chosen,
    }


def _floor(study: Study, units: list[tuple[int, ...]]) -> tuple[Array, Array, NDArray[np.int64], NDArray[np.bool_]]:
    """The mean of the training pictures as the guess for every block."""
    means = np.empty_like(study.pictures)
    for held in units:
        means[list(held)] = np.delete(study.pictures, held, axis=0).mean(0)
    shape = (len(study.shown), len(study.pictures))
    return means[study.shown], study.pictures, study.shown, np.ones(shape, bool)


def _interval(score: Array, draws: Draws) -> list[float]:
    """Mean over blocks and its 95 % interval over pictures."""
    return list(interval(of_values(score[None], draws.weights), draws))


def _differences(ours: Scores, other: Scores, draws: Draws) -> dict[str, list[float]]:
    return {m: _interval(a - b, draws) for m, a, b in zip(METRICS, ours, other, strict=True)}


def _null(values: Array, observed: float) -> dict[str, float]:
    """What chance gives with pictures permuted inside conditions, settings chosen anew each time."""
    reached = int((values >= observed - 1e-12).sum())
    return {
        "mean": float(values.mean()),
        "95": float(np.quantile(values, 0.95)),
        "max": float(values.max()),
        "p": (1 + reached) / (1 + len(values)),
    }


def table(found: dict[str, Any]) -> Iterator[str]:
    """What a person wants to see, as Markdown."""
    for protocol in ("leave_one_stimulus_out", "leave_one_condition_out"):
        part = found[protocol]
        yield f"\n{protocol.replace('_', ' ')}: {found['n_blocks']} blocks, {found['n_pictures']} pictures\n"
        yield "| decoder | 1 of 20 | 1 of 5 of the own condition | pixel r |\n|---|---|---|---|"
        for name, row in part["rows"].items():
            yield f"| {name} | {' | '.join(_cell(row[m]) for m in METRICS)} |"
        yield f"| mean of the training pictures | – | – | {part['floor_pixel_r']:.3f} |"
        for what in ("mean", "95", "max", "p"):
            yield f"| null: {what} | {' | '.join(format(part['null'][m][what], '.3f') for m in METRICS)} |"
        yield f"\n| {OURS} − | 1 of 20 | 1 of 5 | pixel r |\n|---|---|---|---|"
        for name, row in part["minus"].items():
            yield f"| {name} | {' | '.join(_cell(row[m]) for m in METRICS)} |"
        yield f"\nchosen (folds, setting): {json.dumps({name: part['chosen'][name][:3] for name in ROWS})}"


def _cell(values: Sequence[float]) -> str:
    return f"{values[0]:.3f} ({values[1]:.3f} … {values[2]:.3f})"


def rounded(value: Any) -> Any:
    """Four decimals, all through."""
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part) for part in value]
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
