"""Real brains: protocols A, B and C on a folder of the SONG layout, from its files to the figures.

    make results-song [TRAIN=run TEST=run] [SUBJECTS=name,name]      or      python -m benchmarks.results_song

Without TRAIN and TEST the two episodes train and test each other; one of them named picks its direction. The folder is
``$CINERAY_DATA/song``. The table goes to the terminal; the last line is JSON. docs/results/song.md explains it.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

from benchmarks.results_song_brains import alignment, sequences
from benchmarks.results_song_data import Runs, Song
from benchmarks.results_song_films import Direction

from cineray.core.errors import CinerayError, ConfigError

EPISODES = ("sitcomep1", "sitcomep2")
FEWEST = 4
"""People: one held out, and a group in which each has at least two others."""


def main(words: Sequence[str] | None = None) -> None:
    """An error meant for people is one sentence and exit code 2."""
    parser = argparse.ArgumentParser(prog="results-song", description=__doc__)
    for name in ("train", "test", "subjects"):
        parser.add_argument(f"--{name}", default=os.environ.get(name.upper(), ""))
    parser.add_argument("--data", default=os.environ.get("CINERAY_DATA", ""))
    asked = parser.parse_args(words)
    try:
        if not asked.data:
            raise ConfigError("found no CINERAY_DATA, expected the folder that holds song/; set it or give --data")
        people = tuple(asked.subjects.replace(",", " ").split())
        found = results(Path(asked.data) / "song", directions(asked.train, asked.test), people)
    except CinerayError as error:
        print(f"results-song: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print("\n".join(table(found)))
    print(json.dumps(rounded(found)))


def directions(train: str, test: str) -> list[tuple[str, str]]:
    """Pairs of training and test run."""
    if train and test:
        return [(train, test)]
    pairs = [(a, b) for b, a in permutations(EPISODES) if train in ("", a) and test in ("", b)]
    if not pairs:
        raise ConfigError(f"found TRAIN='{train}' and TEST='{test}', expected both or one of {' and '.join(EPISODES)}")
    return pairs


def results(folder: Path, pairs: list[tuple[str, str]], people: tuple[str, ...]) -> dict[str, Any]:
    """All figures; ``people`` empty takes everybody who has both runs."""
    started = time.perf_counter()

    def say(text: str) -> None:
        print(f"[{time.perf_counter() - started:4.0f} s] {text}", file=sys.stderr, flush=True)

    runs = Runs.of(folder)
    for train, test in pairs:
        runs.check(train, test)
    found: dict[str, Any] = {"A": {}, "B": {}, "C": None, "null": {"A": {}, "B": {}}}
    with tempfile.TemporaryDirectory(prefix="song-") as scratch:
        say("the folder goes into shards")
        needed = sorted({run for pair in pairs for run in pair} | set(runs.rest))
        song = Song.ingest(folder, Path(scratch) / "films", needed, people)
        for train, test in pairs:
            subjects = _subjects(song, train, test)
            found["B"][test] = Direction(song, train, test, subjects, Path(scratch) / "runs").figures(say)
            found["A"][test] = alignment(song, train, test, runs.rest, subjects, say)
            for protocol in ("A", "B"):
                found["null"][protocol][test] = found[protocol][test].pop("null")
        if runs.sequences:
            own = Song.ingest(folder, Path(scratch) / "sequences", runs.sequences[:1], ())
            found["C"] = sequences(own, runs.sequences[0], people, say)
    return found | {"seconds": time.perf_counter() - started}


def _subjects(song: Song, train: str, test: str) -> tuple[str, ...]:
    subjects = song.subjects(train, test)
    if len(subjects) < FEWEST:
        raise ConfigError(f"found {len(subjects)} subjects with both {train} and {test}, expected at least {FEWEST}")
    return subjects


def table(found: dict[str, Any]) -> Iterator[str]:
    """What a person wants to see, as Markdown."""
    for test, b in found["B"].items():
        null = found["null"]["B"][test]
        yield f"\nB, {test} after {b['train']}: {b['n_subjects']} people, {b['n_clips']} clips; 95 % intervals\n"
        yield "| decoder | top-1 | top-5 | 2AFC | null top-1 | null 2AFC |\n|---|---|---|---|---|---|"
        for name in null:
            cells = (_cell(b[f"{name}_{m}"], b[f"{name}_{m}_ci"]) for m in ("top1", "top5", "2afc"))
            yield f"| {name} | {' | '.join(cells)} | {null[name]['top1']:.3f} | {null[name]['2afc']:.3f} |"
        yield "\n| difference | 2AFC | top-1 |\n|---|---|---|"
        for pair in (k.removesuffix("_2afc") for k in b if "_minus_" in k and k.endswith("_2afc")):
            cells = (_cell(b[f"{pair}_{m}"][0], b[f"{pair}_{m}"][1:]) for m in ("2afc", "top1"))
            yield f"| {pair.replace('_minus_', ' − ')} | {' | '.join(cells)} |"
        yield f"\nchosen on {b['train']}: {json.dumps(b['chosen'])}"
    for test, a in found["A"].items():
        yield f"\nA, {test}, space fitted on {a['train']}: {a['n_subjects']} people, 95 % intervals\n"
        yield "| space | top-1 | percentile |\n|---|---|---|"
        for name, prefix in (
            ("ours", ""),
            ("SRM", "srm_"),
            ("parcels, no alignment", "parcels_"),
            ("whitened parcels, no personal map", "whitened_"),
        ):
            yield f"| {name} | {_cell(a[prefix + 'top1'], a[prefix + 'top1_ci'])} | {a[prefix + 'percentile']:.3f} |"
        for run, rest in found["null"]["A"][test].items():
            yield f"| ours, {run} (null) | {_cell(rest['top1'], rest['top1_ci'])} | {rest['percentile']:.3f} |"
        yield f"\nours − SRM, top-1: {a['ci'][0]:.3f} … {a['ci'][1]:.3f}"
        mean, *between = a["minus_whitened"]
        yield f"ours − whitened parcels, top-1: {_cell(mean, between)}"
        yield f"chosen on {a['train']}: {json.dumps([a['chosen'], a['whitened_chosen']])}"
    if c := found["C"]:
        yield (
            f"\nC, {c['run']}, {c['n_subjects']} people: top-1 {_cell(c['top1'], c['top1_ci'])}, "
            f"mean rank {c['mean_rank']:.2f}; mispaired {c['mispaired']:.3f} (at most {c['mispaired_max']:.3f}), "
            f"chance {c['chance']:.3f}; top-1 by penalty: {json.dumps(c['top1_by_penalty'])}"
        )


def _cell(value: float, between: Sequence[float]) -> str:
    return f"{value:.3f} ({between[0]:.3f} … {between[1]:.3f})"


def rounded(value: Any) -> Any:
    """Four decimals, all through."""
    if isinstance(value, dict):
        return {key: rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part) for part in value]
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
