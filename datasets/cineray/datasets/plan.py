"""Which bytes each step needs: worked out for many steps at once, so that a step only copies.

Numpy's calls cost about as much for a thousand rows as for thirty; done step by step they would take a third of the
time in which half a megabyte a row is copied.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from cineray.datasets.dataset import Dataset
from cineray.datasets.examples import Examples
from cineray.datasets.index import ColumnReader, Places
from cineray.datasets.order import rank_slice
from cineray.datasets.window import Window

__all__ = ["Plan", "Planner"]

MAX_ROWS = 2048
"""Rows planned together once the stream runs; it begins with one step, which is then not kept waiting."""


@dataclass(frozen=True)
class Plan:
    """One step on one rank, its rows grouped by subject."""

    counts: list[int]
    """Rows of each subject."""
    brain: Mapping[str, Places]
    """Subject with rows -> (rows x scans) places in its voxel column."""
    targets: Mapping[str, Places]
    example: NDArray[np.int64]
    stimulus_row: NDArray[np.int64]
    global_rows: int


class Planner:
    """Turns references into plans for one set of examples."""

    def __init__(self, dataset: Dataset, examples: Examples, window: Window, targets: Iterable[str]) -> None:
        self._dataset, self._examples = dataset, examples
        self._offsets = np.arange(window.first, window.last + 1)
        self._run_first = np.array([run.first_row for run in dataset.runs], np.int64)
        self._run_last = np.array([run.first_row + run.num_rows - 1 for run in dataset.runs], np.int64)
        self.brain = {subject: dataset.brain_reader(subject) for subject in examples.subjects}
        self.targets: dict[str, ColumnReader] = {name: dataset.target_reader(name) for name in targets}

    def plans(self, references: Iterable[NDArray[np.int64]], rank: int, size: int) -> Iterator[Plan]:
        """One plan for each reference; references are read a little ahead of the plans."""
        rest, num_steps = iter(references), 1
        while chunk := list(islice(rest, num_steps)):
            yield from self._together(chunk, rank, size)
            num_steps = max(1, MAX_ROWS // max(1, len(chunk[0])))

    def _together(self, chunk: list[NDArray[np.int64]], rank: int, size: int) -> list[Plan]:
        parts = [rank_slice(reference, rank, size) for reference in chunk]
        step = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        numbers = np.concatenate(parts)
        subject = self._examples.subject_index(numbers)
        order = np.lexsort((subject, step))  # stable: within a step and subject the reference's order stays
        numbers, subject, step = numbers[order], subject[order], step[order]
        rows = self._examples.rows(numbers)
        windows = self._windows(rows, self._examples.run_index(numbers))
        stimulus_row = self._dataset.gather_stimulus_rows(rows)

        num_subjects = len(self.brain)
        counts = np.bincount(step * num_subjects + subject, minlength=len(parts) * num_subjects)
        counts = counts.reshape(len(parts), num_subjects)
        places = [
            reader.locate(windows[subject == index].reshape(-1)) if counts[:, index].any() else None
            for index, reader in enumerate(self.brain.values())
        ]
        targets = {name: reader.locate(stimulus_row) for name, reader in self.targets.items()}
        ends, brain_ends = np.cumsum(counts.sum(1)).tolist(), np.cumsum(counts, 0) * len(self._offsets)
        plans = []  # all now: between two large copies the same lines would run from cold caches
        for k, (reference, end, mine) in enumerate(zip(chunk, ends, counts.tolist(), strict=True)):
            part = slice(end - sum(mine), end)
            brain = {
                name: found[last - count * len(self._offsets) : last]
                for name, found, count, last in zip(self.brain, places, mine, brain_ends[k].tolist(), strict=True)
                if count and found is not None
            }
            of_step = {name: found[part] for name, found in targets.items()}
            plans.append(Plan(mine, brain, of_step, numbers[part], stimulus_row[part], len(reference)))
        return plans

    def _windows(self, rows: NDArray[np.int64], run: NDArray[np.int64]) -> NDArray[np.int64]:
        """(rows, scans): neighbours in time; past the ends of the run its outermost scan again."""
        wanted = rows[:, None] + self._offsets
        return np.clip(wanted, self._run_first[run][:, None], self._run_last[run][:, None])
