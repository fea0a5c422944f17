"""Protocol B: every decoder trained by `cineray.training.loop`, predicted from its run folder, scored on one film."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.results_song_choice import HIGH_PASS_SD_TR, OWN_GRID, Choice
from benchmarks.results_song_data import Song
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from cineray.core.storage import Store
from cineray.training.bootstrap import Interval, interval, of_values
from cineray.training.cuts import Part, Scoring, Table, tabulate
from cineray.training.evaluate import parts_of
from cineray.training.feed import open_feed
from cineray.training.loop import train
from cineray.training.metrics import RETRIEVAL_METRICS
from cineray.training.predict import predict
from cineray.training.recipes import song as recipes
from cineray.training.run import Run
from cineray.training.scores import per_clip
from cineray.training.world import World

METRICS = ("top1", "top5", "2afc")
HOW = Scoring(num_bootstrap=4000)

ABLATED = ("unseen_no_gain", "unseen_no_high_pass")
"""One thing fixed at 0 and all other settings chosen again."""
POOLED = ("pooled_unseen", "pooled_unseen_high_pass", "pooled_within", "pooled_within_high_pass")

COMPARED = {
    "within": ("ridge_within", "ridge_within_tuned", "ridge_within_tuned_high_pass",
               "pooled_within", "pooled_within_high_pass"),
    "unseen": ("ridge_unseen", "ridge_unseen_tuned", "ridge_unseen_tuned_high_pass",
               "pooled_unseen", "pooled_unseen_high_pass", "unseen_no_gain", "unseen_no_high_pass"),
    "unseen_aligned": ("ridge_unseen", "ridge_unseen_tuned", "unseen",
                       "pooled_unseen", "pooled_unseen_high_pass", "pooled_within", "pooled_within_high_pass"),
}  # fmt: skip
"""Ours against the baselines, the reference first; ``_tuned``: penalty chosen on the training film;
``_high_pass``: with ours, for ``ridge`` as strong as chosen for ours, for ``pooled`` chosen along with the penalty."""


@dataclass(frozen=True)
class Decoded:
    """One decoder on the test film."""

    values: dict[str, NDArray[np.float64]]
    """Metric -> (subjects, clips)."""
    null: dict[str, float]
    table: Table

    @classmethod
    def of(cls, parts: list[Part]) -> "Decoded":
        """Scores beside those of predictions shifted in time."""
        table = tabulate(parts, HOW)
        metrics = {m: RETRIEVAL_METRICS[m] for m in METRICS}
        values = {m: per_clip(metric, table) for m, metric in metrics.items()}
        shifts = range(1, table.num_null + 1)
        null = {
            m: float(np.nanmean([per_clip(metric, table, shift) for shift in shifts])) for m, metric in metrics.items()
        }
        return cls(values, null, table)

    def interval(self, metric: str) -> Interval:
        """Mean over subjects and clips, both resampled for the interval."""
        return _interval(self.values[metric], self.table)

    def above(self, other: "Decoded", metric: str) -> Interval:
        """Mean paired difference, resampled likewise."""
        return _interval(self.values[metric] - other.values[metric], self.table)


@dataclass(frozen=True)
class Direction:
    """Train on one film, test on another, with the people who have both."""

    song: Song
    train: str
    test: str
    subjects: tuple[str, ...]
    folder: Path

    def figures(self, say: Any) -> dict[str, Any]:
        """Everything the results page holds on this direction."""
        chosen = self._choose(say)
        decoded = {}
        for name, run in self.runs(chosen).items():
            say(f"{self.test}: {name}")
            parts = self._parts(run, name)
            if name in POOLED:
                parts = [_high_passed(p, chosen[name]["high_pass"]) for p in parts]
            decoded[name] = Decoded.of(parts)
            if name in ("ridge_within_tuned", "ridge_unseen_tuned"):
                decoded[f"{name}_high_pass"] = Decoded.of(
                    [_high_passed(p, chosen["unseen"]["high_pass"]) for p in parts]
                )
        return self._summary(decoded) | {"chosen": chosen}

    def runs(self, chosen: Mapping[str, Any]) -> dict[str, Run]:
        """Ours with the settings chosen on the training film, the same with the recipes' settings, the baselines."""
        about = {"dataset": self.song.url, "train": self.train, "test": self.test, "subjects": self.subjects}
        ours = {
            "within": recipes.matched_filter(**about),
            "unseen": recipes.matched_filter_unseen(**about),
            "unseen_aligned": recipes.matched_filter_aligned(**about),
        }
        within, unseen, pool = (
            recipe(**about) for recipe in (recipes.ridge_within, recipes.ridge_unseen, recipes.pooled_ridge)
        )
        return {
            **{name: run.override(_of_model(chosen[name])) for name, run in ours.items()},
            **{f"{name}_fixed": run for name, run in ours.items()},
            **{name: ours["unseen"].override(_of_model(chosen[name])) for name in ABLATED},
            "ridge_within": within,
            "ridge_within_tuned": within.override({"model.penalties": [chosen["ridge_within"]]}),
            "ridge_unseen": unseen,
            "ridge_unseen_tuned": unseen.override({"model.penalties": [chosen["ridge_unseen"]]}),
            **{
                name: pool.override({f"model.{key}": chosen[name][key] for key in ("own", "penalty")})
                for name in POOLED
            },
        }

    def _choose(self, say: Any) -> dict[str, Any]:
        brains, labels = (rows(self.train, self.subjects) for rows in (self.song.brains, self.song.labels))
        choice = Choice(brains, labels, tr_s=self.song.dataset.tr_s, clip_s=HOW.clip_s)
        say(f"{self.test}: penalties of the ridges, chosen on {self.train}")
        ridge = {"ridge_within": choice.ridge_within(), "ridge_unseen": choice.ridge_unseen()}
        say(f"{self.test}: settings of the pooled ridges, chosen on {self.train}")
        pools = dict(zip(POOLED, (*choice.pooled((0.0,)), *choice.pooled(OWN_GRID)), strict=True))
        say(f"{self.test}: settings of the matched filter, chosen on {self.train}")
        ours = choice.matched_filter()
        return ridge | pools | ours

    def _parts(self, run: Run, name: str) -> list[Part]:
        """Train, predict; each subject's predictions beside what it saw, z-scored over the test film."""
        folder = self.folder / f"{self.test}-{name}"
        train(run, World(), lambda normaliser: open_feed(run, normaliser), Store.at(folder))
        predictions = predict(folder)
        truth = np.empty((len(predictions.subject), *predictions.predicted["features"].shape[1:]))
        for subject in self.subjects:
            rows = predictions.subject == subject
            truth[rows] = self.song.truth(predictions.stimulus_row[rows])
        # A run in which each saw an own sequence is one film per person; its clips still share one clock.
        return [replace(part, film=part.run) for part in parts_of(predictions, "features", truth)]

    def _summary(self, decoded: Mapping[str, Decoded]) -> dict[str, Any]:
        found: dict[str, Any] = {"train": self.train, "n_subjects": len(self.subjects)}
        found["n_clips"] = len(next(iter(decoded.values())).table.clips)
        for name, one in decoded.items():
            for metric in METRICS:
                mean, low, high = one.interval(metric)
                found |= {f"{name}_{metric}": mean, f"{name}_{metric}_ci": [low, high]}
        for name, baselines in COMPARED.items():
            found[f"{name}_diff_ci"] = list(decoded[name].above(decoded[baselines[0]], "2afc")[1:])
            for baseline in baselines:
                for metric in ("top1", "2afc"):
                    mean, low, high = decoded[name].above(decoded[baseline], metric)
                    found[f"{name}_minus_{baseline}_{metric}"] = [mean, low, high]
        return found | {"null": {name: one.null for name, one in decoded.items()}}


def _of_model(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {f"model.{name}": value for name, value in settings.items()}


def _interval(values: NDArray[np.float64], table: Table) -> Interval:
    return interval(of_values(values, table.draws.weights), table.draws)


def _high_passed(part: Part, amount: float) -> Part:
    running = gaussian_filter1d(part.predicted, HIGH_PASS_SD_TR, axis=0, mode="nearest")
    return replace(part, predicted=part.predicted - amount * running)
