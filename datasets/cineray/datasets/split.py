"""Which rows train, which choose, which test: by film, run, repeat, subject, group, cluster and block of time."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cineray.core.config import Config
from cineray.core.errors import DataError, LeakError
from cineray.datasets.clusters import Clusters, clusters_of
from cineray.datasets.dataset import Dataset
from cineray.datasets.examples import Examples
from cineray.datasets.leaks import Clips, check_leaks, shown
from cineray.datasets.manifest import RunInfo
from cineray.datasets.window import Window

__all__ = ["Blocks", "Clusters", "Selection", "Split", "SplitConfig", "make_split"]

NAMES = ("train", "val", "test")

ANCHOR = Window()
"""Only the scan itself."""


class Blocks(Config):
    """Cut every film into ``num`` contiguous blocks of equal length and take some of them.

    A stimulus group stays whole: it belongs to the block its first stimulus begins in.
    """

    num: int = Field(ge=2)
    take: tuple[int, ...]


class Selection(Config):
    """Rows that meet **all** conditions; an empty condition lets everything pass."""

    films: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    repeats: tuple[int, ...] = ()
    subjects: tuple[str, ...] = ()
    except_subjects: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    blocks: Blocks | None = None
    clusters: Clusters | None = None
    minutes: float | None = Field(default=None, gt=0)
    """Only the first minutes of each subject, counted in rows x TR after everything else; None takes all."""


class SplitConfig(Config):
    """Three disjoint sets, kept apart by ``gap_s`` in film time, whatever the window of scans.

    A row that ``val`` or ``test`` selects is never in ``train``. A training row is dropped if any scan of its window
    carries a stimulus of theirs or one closer than ``gap_s`` to it; rows of ``val`` near ``test`` are dropped too.
    """

    train: Selection = Selection()
    val: Selection | None = None
    """None holds nothing out to choose by: every setting was fixed beforehand."""
    test: Selection
    gap_s: float = Field(default=10.0, ge=0)
    """Film time between the stimuli in the windows of one set and the stimuli of the next."""
    allow_shared_stimuli: bool = False
    """Declares that **other** subjects may have seen the same stimuli in training (a held-out person, a known film):
    retrieval then picks from stimuli the model knows, and the split says so in its notes. One subject's own stimuli
    must differ between the sets all the same."""


@dataclass(frozen=True)
class Split:
    """Three disjoint sets and what a reader of the results must know about them."""

    train: Examples
    val: Examples
    test: Examples
    notes: tuple[str, ...] = ()


def make_split(dataset: Dataset, config: SplitConfig, subjects: Sequence[str] = (), window: Window = ANCHOR) -> Split:
    """Split the rows of ``subjects`` (all if empty), to be read with ``window`` scans around each.

    Raises:
        LeakError: test information could reach training.
    """
    subjects = tuple(subjects) or tuple(dataset.subjects)
    selections = {name: found for name in NAMES if (found := getattr(config, name)) is not None}
    clips = Clips.of(dataset.stimuli())
    _refuse_unknown_names(dataset, clips, subjects, selections.values())
    wanted = {name: _clips_wanted(dataset, clips, selection) for name, selection in selections.items()}

    sets = {name: Examples.of(subjects, []) for name in NAMES}
    sets |= {name: _examples(dataset, subjects, selections, wanted, name) for name in selections}
    notes = []
    for name, others in (("val", ("test",)), ("train", ("val", "test"))):
        kept = _without_neighbours(dataset, clips, sets, name, others, config, window)
        if len(kept) < len(sets[name]):
            dropped = len(sets[name]) - len(kept)
            notes.append(f"{dropped} rows of {name} whose windows reach within {config.gap_s:g} s were dropped")
        sets[name] = kept
    for name, selection in selections.items():
        sets[name] = _first_minutes(sets[name], selection.minutes, dataset.tr_s)
        if not len(sets[name]):
            raise DataError(f"the {name} set is empty: {_what_exists(dataset, clips, subjects)}; select other rows")
    notes += check_leaks(
        dataset, clips, sets, window=window, gap_s=config.gap_s, allow_shared=config.allow_shared_stimuli
    )
    return Split(**sets, notes=tuple(notes))


def _refuse_unknown_names(
    dataset: Dataset, clips: Clips, subjects: Sequence[str], selections: Iterable[Selection]
) -> None:
    known = {
        "films": set(clips.films),
        "runs": {run.run for run in dataset.runs},
        "repeats": {run.repeat for run in dataset.runs},
        "subjects": set(dataset.subjects),
        "groups": set(clips.groups),
    }
    asked = [("subjects", subjects)]
    for selection in selections:
        asked += [(kind, getattr(selection, kind)) for kind in known]
        asked.append(("subjects", selection.except_subjects))
    for kind, values in asked:
        if missing := [value for value in values if value not in known[kind]]:
            raise DataError(
                f"the split asks for {kind} {_listed(missing)}, which this data set does not have; "
                f"it has {_listed(sorted(known[kind]))}"
            )


def _clips_wanted(dataset: Dataset, clips: Clips, selection: Selection) -> NDArray[np.bool_]:
    """(stimuli,) whether the conditions on films, groups, blocks and clusters let a stimulus pass."""
    mask = np.ones(len(clips), bool)
    if selection.films:
        mask &= np.isin(clips.films[clips.film], selection.films)
    if selection.groups:
        mask &= np.isin(clips.groups[clips.group], selection.groups)
    if selection.blocks is not None:
        mask &= np.isin(clips.blocks(selection.blocks.num), selection.blocks.take)
    if selection.clusters is not None:
        mask &= np.isin(clusters_of(dataset, clips.group, selection.clusters), selection.clusters.take)
    return mask


def _run_wanted(run: RunInfo, selection: Selection) -> bool:
    return (
        (not selection.runs or run.run in selection.runs)
        and (not selection.repeats or run.repeat in selection.repeats)
        and (not selection.subjects or run.subject in selection.subjects)
        and run.subject not in selection.except_subjects
    )


def _examples(
    dataset: Dataset,
    subjects: tuple[str, ...],
    selections: dict[str, Selection],
    wanted: dict[str, NDArray[np.bool_]],
    name: str,
) -> Examples:
    """Rows that ``name`` selects; of training, those that no other set selects."""
    ranges = []
    for index, run in enumerate(dataset.runs):
        if run.subject not in subjects or not _run_wanted(run, selections[name]):
            continue
        clip = dataset.gather_stimulus_rows(np.arange(run.first_row, run.first_row + run.num_rows))
        mine = (clip >= 0) & wanted[name][clip]
        for other in NAMES[NAMES.index(name) + 1 :]:
            if other not in selections or not _run_wanted(run, selections[other]):
                continue
            theirs = wanted[other][clip]
            if name == "val" and (mine & theirs).any():
                raise LeakError(
                    f"run '{run.run}' of subject '{run.subject}' has rows in both val and test; "
                    "make the two selections disjoint"
                )
            mine &= ~theirs
        subject = subjects.index(run.subject)
        ranges += [(subject, index, run.first_row + a, b - a) for a, b in _stretches(mine)]
    return Examples.of(subjects, ranges)


def _without_neighbours(
    dataset: Dataset,
    clips: Clips,
    sets: dict[str, Examples],
    name: str,
    others: tuple[str, ...],
    config: SplitConfig,
    window: Window,
) -> Examples:
    """``sets[name]`` without rows whose own scan, or another of the window, has a stimulus of another set or near one.

    A row whose own stimulus is the very same is not dropped here: to select it twice is a mistake, and `check_leaks`
    refuses it.
    """
    examples, per_subject = sets[name], config.allow_shared_stimuli
    seen = [shown(dataset, sets[other], len(clips), per_subject=per_subject) for other in others]
    ranges: list[tuple[int, int, int, int]] = []
    held: dict[str | None, NDArray[np.bool_]] = {}
    near: dict[str | None, NDArray[np.bool_]] = {}
    columns = (examples.subject, examples.run, examples.first_row, examples.num_rows)
    for subject, run, first, num in zip(*(column.tolist() for column in columns), strict=True):
        key = examples.subjects[subject] if per_subject else None
        if key not in near:
            held[key] = np.any([s[key] for s in seen], axis=0)
            near[key] = clips.near(held[key], config.gap_s)
        info = dataset.runs[run]
        clip = dataset.gather_stimulus_rows(np.arange(info.first_row, info.first_row + info.num_rows))
        reached = _reached((clip >= 0) & near[key][clip], window)
        keep = (~reached | ((clip >= 0) & held[key][clip]))[first - info.first_row :][:num]
        ranges += [(subject, run, first + a, b - a) for a, b in _stretches(keep)]
    return Examples.of(examples.subjects, ranges)


def _reached(scans: NDArray[np.bool_], window: Window) -> NDArray[np.bool_]:
    """(scans,) whether a scan or its window, which ends with the run, has one of ``scans`` of that run."""
    before = np.concatenate([[0], np.cumsum(scans)])
    at = np.arange(len(scans))
    first, last = (np.clip(at + reach, 0, len(scans) - 1) for reach in (min(window.first, 0), max(window.last, 0)))
    return before[last + 1] > before[first]


def _first_minutes(examples: Examples, minutes: float | None, tr_s: float) -> Examples:
    if minutes is None:
        return examples
    budget = round(minutes * 60 / tr_s)
    ranges, used = [], dict.fromkeys(range(len(examples.subjects)), 0)
    columns = (examples.subject, examples.run, examples.first_row, examples.num_rows)
    for subject, run, first, num in zip(*(column.tolist() for column in columns), strict=True):
        take = min(num, budget - used[subject])
        used[subject] += take
        if take:
            ranges.append((subject, run, first, take))
    return Examples.of(examples.subjects, ranges)


def _stretches(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Half-open stretches of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _what_exists(dataset: Dataset, clips: Clips, subjects: Sequence[str]) -> str:
    runs, repeats = {run.run for run in dataset.runs}, {run.repeat for run in dataset.runs}
    kinds = {"films": clips.films, "runs": sorted(runs), "repeats": sorted(repeats), "subjects": subjects}
    return "this data set has " + ", ".join(f"{kind} {_listed(values)}" for kind, values in kinds.items())


def _listed(values: Iterable) -> str:
    values = [str(value) for value in values]
    return ", ".join(values[:20]) + (f" and {len(values) - 20} more" if len(values) > 20 else "")
