"""A set of examples: rows of the sample table, kept as ranges so that memory grows with the cuts, not with the rows."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Examples"]

CHUNK = 65_536
"""Examples looked at together by whoever walks over all of them: half a megabyte of row numbers."""


@dataclass(frozen=True)
class Examples:
    """Numbered 0 … len - 1: all of the first subject in row order, then the next.

    Every example is one anchor row that has a stimulus. A range never crosses a run.
    """

    subjects: tuple[str, ...]
    """Every subject of the view, in the order of `Batch.brain`; some may have no example here."""
    subject: NDArray[np.int64]
    """(ranges,) index into ``subjects``, ascending."""
    run: NDArray[np.int64]
    """(ranges,) index into ``dataset.runs``."""
    first_row: NDArray[np.int64]
    """(ranges,) first sample row."""
    num_rows: NDArray[np.int64]
    """(ranges,) rows."""

    def __post_init__(self) -> None:
        assert (self.num_rows > 0).all(), "a range without rows"
        assert (np.diff(self.subject) >= 0).all(), "ranges not in the order of the subjects"
        same = np.diff(self.subject) == 0
        ends = self.first_row + self.num_rows
        assert (self.first_row[1:] >= ends[:-1])[same].all(), "ranges overlap or are not sorted"
        object.__setattr__(self, "_starts", np.concatenate([[0], np.cumsum(self.num_rows)]))

    @classmethod
    def of(cls, subjects: Iterable[str], ranges: Iterable[tuple[int, int, int, int]]) -> "Examples":
        """From (subject index, run index, first row, rows) in any order."""
        table = np.array(sorted((s, first, run, num) for s, run, first, num in ranges), np.int64).reshape(-1, 4)
        return cls(tuple(subjects), table[:, 0], table[:, 2], table[:, 1], table[:, 3])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def rows(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Sample row of each example."""
        at = self._range_of(numbers)
        return self.first_row[at] + (numbers - self._starts[at])

    def subject_index(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Subject of each example, as an index into ``subjects``."""
        return self.subject[self._range_of(numbers)]

    def run_index(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Run of each example, as an index into ``dataset.runs``."""
        return self.run[self._range_of(numbers)]

    def numbers_of(self, subject: str) -> range:
        """Examples of one subject, in row order."""
        index = self.subjects.index(subject)
        first, end = np.searchsorted(self.subject, [index, index + 1])
        return range(int(self._starts[first]), int(self._starts[end]))

    def chunks(self, numbers: range | None = None) -> Iterator[NDArray[np.int64]]:
        """All numbers (or those given), a bounded part at a time."""
        numbers = range(len(self)) if numbers is None else numbers
        for first in range(numbers.start, numbers.stop, CHUNK):
            yield np.arange(first, min(first + CHUNK, numbers.stop))

    def _range_of(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(self._starts, numbers, side="right") - 1
