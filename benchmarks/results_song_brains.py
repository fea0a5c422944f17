"""Protocol A (does one brain's time course find itself in the others'?) and protocol C (who saw this sequence?)."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from benchmarks.results_song_data import Rows, Song
from numpy.typing import NDArray
from scipy.stats import binomtest

from cineray.training.bootstrap import Interval, draw, interval, of_values
from cineray.training.metrics.segments import SegmentMatch, match_segments
from cineray.training.protocols.matched_space import MatchedSpace, pair_in, spaces_without_each
from cineray.training.protocols.segments import match_all, pairs_as_recorded, pairs_in_srm
from cineray.training.protocols.sequences import own_sequence_ranks

WINDOW_S, BLOCK_S = 10.0, 20.0
NUM_BOOTSTRAP = 4000
PENALTY = 10_000.0
PENALTIES = (100.0, 1000.0, PENALTY, 100_000.0)
"""Of protocol C: the one of the protocol, and others that tell how much hangs on it."""
NUM_MISPAIRED = 10
"""Draws of wrong pairs; one draw moves by several people of 27."""

SPACE_GRID = {
    "noise_penalty": (100.0, 300.0, 1000.0, 3000.0),
    "map_penalty": (1000.0, 3000.0, 10_000.0),
    "own_noise": (0.3, 0.6, 0.9),
    "shrinkage": (0.03, 0.1, 0.3),
}
WHITENED_GRID = {"shrinkage": (0.01, 0.03, 0.1, 0.3, 1.0)}
SPACE_PEOPLE = 4
"""Held out in turn while the space is chosen: each costs as much as in the test."""

Matches = dict[str, SegmentMatch]


def alignment(
    song: Song, train: str, test: str, rest: list[str], subjects: tuple[str, ...], say: Any
) -> dict[str, Any]:
    """Segments of the test film found in spaces fitted on the training film; the same maps on rest as the null."""
    window = round(WINDOW_S / song.dataset.tr_s)
    fit, tested = song.brains(train, subjects), song.brains(test, subjects)
    say(f"{test}: segments without alignment and in an SRM fitted on {train}")
    plain = match_all(pairs_as_recorded(tested), window)
    srm = match_all(pairs_in_srm(fit, tested, dim=min(50, *(min(x.shape) for x in fit.values()))), window)
    say(f"{test}: settings of the matched space, chosen on {train}")
    chosen = choose_space(fit, window, MatchedSpace(), SPACE_GRID)
    white = choose_space(fit, window, MatchedSpace(personal=False), WHITENED_GRID)
    say(f"{test}: segments in whitened parcels and in the matched space, fitted on {train}")
    whitened = match_all((pair_in(maps, held, tested) for held, maps in spaces_without_each(fit, white)), window)
    films: dict[str, Rows] = {run: song.brains(run, subjects) for run in (test, *rest)}
    found: dict[str, Matches] = {run: {} for run in films}
    for held, maps in spaces_without_each(fit, chosen):
        for run, brains in films.items():
            present = {s: maps[s] for s in maps if s in brains}
            if held in brains:
                found[run] |= match_all([pair_in(present, held, brains)], window)
    ours, tr_s = found.pop(test), song.dataset.tr_s
    return {
        "train": train,
        "space": "whitened response of the group of others, in parcels",
        "chosen": chosen.model_dump(),
        "whitened_chosen": white.model_dump(include=set(WHITENED_GRID)),
        **dict(_figures("", ours, tr_s)),
        **dict(_figures("srm_", srm, tr_s)),
        **dict(_figures("parcels_", plain, tr_s)),
        **dict(_figures("whitened_", whitened, tr_s)),
        "minus_whitened": list(_interval(_values(ours, "top1") - _values(whitened, "top1"), tr_s)),
        "ci": list(_interval(_values(ours, "top1") - _values(srm, "top1"), tr_s)[1:]),
        "n_subjects": len(subjects),
        "nominal_chance": float(np.mean(_values(ours, "chance"))),
        # Runs differ in length, and with it in the number of wrong windows.
        "null": {
            run: dict(_figures("", matches, tr_s)) | {"nominal_chance": float(np.mean(_values(matches, "chance")))}
            for run, matches in found.items()
        },
    }


def choose_space(film: Rows, window: int, start: MatchedSpace, grid: Mapping[str, tuple[float, ...]]) -> MatchedSpace:
    """One setting after the other, by top-1 on each half of the training film in a space fitted on the other half."""
    num = len(next(iter(film.values())))
    halves = [{s: x[part].astype(np.float64) for s, x in film.items()} for part in np.array_split(np.arange(num), 2)]
    held = list(film)[:: max(1, len(film) // SPACE_PEOPLE)][:SPACE_PEOPLE]

    def top1(config: MatchedSpace) -> float:
        pairs = (pair_in(config.fit(halves[i], s), s, halves[1 - i]) for i in (0, 1) for s in held)
        return float(np.mean([match_segments(query, template, window).top1.mean() for _, query, template in pairs]))

    chosen = start
    for name, values in grid.items():
        chosen = max((chosen.model_copy(update={name: value}) for value in values), key=top1)
    return chosen


def sequences(song: Song, run: str, people: tuple[str, ...], say: Any) -> dict[str, Any] | None:
    """Share of people whose own sequence comes first, and the same after training on wrong pairs."""
    subjects = tuple(s for s in song.subjects(run) if not people or s in people)
    if len(subjects) < 3:
        say(f"{run}: left out, {len(subjects)} of the people have it and one held out needs at least two others")
        return None
    brains, labels = song.brains(run, subjects), song.labels(run, subjects)
    say(f"{run}: own sequences")
    ranks = {p: np.array(list(own_sequence_ranks(brains, labels, penalty=p).values())) for p in PENALTIES}
    own = ranks[PENALTY]
    exact = binomtest(int((own == 1).sum()), len(own)).proportion_ci(method="exact")
    wrong = []
    for seed in range(NUM_MISPAIRED):
        mispaired = own_sequence_ranks(brains, labels, penalty=PENALTY, mispair=np.random.default_rng(seed))
        wrong.append(list(mispaired.values()))
    first = (np.array(wrong) == 1).mean(1)
    return {
        "run": run,
        "top1": float((own == 1).mean()),
        "top1_ci": [float(exact.low), float(exact.high)],
        "top1_by_penalty": {f"{p:g}": float((found == 1).mean()) for p, found in ranks.items()},
        "mean_rank": float(own.mean()),
        "mispaired": float(first.mean()),
        "mispaired_max": float(first.max()),
        "mispaired_mean_rank": float(np.mean(wrong)),
        "n_subjects": len(subjects),
        "chance": 1 / len(subjects),
    }


def _figures(prefix: str, matches: Matches, tr_s: float) -> Iterator[tuple[str, Any]]:
    mean, low, high = _interval(_values(matches, "top1"), tr_s)
    yield f"{prefix}top1", mean
    yield f"{prefix}top1_ci", [low, high]
    yield f"{prefix}percentile", float(_values(matches, "percentile").mean())


def _values(matches: Matches, field: str) -> NDArray[np.float64]:
    """(subjects, windows)."""
    return np.stack([getattr(m, field) for m in matches.values()])


def _interval(values: NDArray[np.float64], tr_s: float) -> Interval:
    """People and 20-s stretches of film resampled; a window belongs to the stretch it begins in."""
    blocks = (np.arange(values.shape[1]) * tr_s // BLOCK_S).astype(int)
    draws = draw(len(values), blocks.tolist(), num=NUM_BOOTSTRAP, seed=0)
    return interval(of_values(values, draws.weights), draws)
