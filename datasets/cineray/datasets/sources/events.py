"""What was on the screen and when: tables of comma- or tab-separated text, and the pairing of scans with them."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cineray.core.errors import DataError

__all__ = ["Event", "number", "on_screen", "read_rows"]

CLOCK_S = 1e-6
"""Times closer than this are the same: they come from decimals and from products of a TR."""


@dataclass(frozen=True)
class Event:
    """One showing of a stimulus."""

    onset_s: float
    length_s: float
    stimulus_id: str

    @property
    def end_s(self) -> float:
        """When it left the screen."""
        return self.onset_s + self.length_s


def read_rows(path: Path, required: Iterable[str], optional: Iterable[str] = ()) -> list[dict[str, str]]:
    """Rows of a .csv or .tsv as text by column; empty cells and ``n/a`` are left out of a row.

    Columns that are neither required nor optional are left out too, since people's tables hold much else.
    """
    if not path.is_file():
        raise DataError(f"there is no table {path}; write it or correct the name")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
            columns, rows = list(reader.fieldnames or []), list(reader)
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path.name} is not a table of text ({error}); export it again as CSV or TSV") from None
    if missing := [name for name in required if name not in columns]:
        raise DataError(f"{path.name} has no column '{missing[0]}'; it has {', '.join(columns) or 'none'}")
    wanted = [name for name in (*required, *optional) if name in columns]
    return [
        {name: row[name].strip() for name in wanted if (row[name] or "n/a").strip() not in ("", "n/a")} for row in rows
    ]


def number(row: Mapping[str, str], column: str, where: str) -> float:
    """A finite number out of a row of a table."""
    try:
        value = float(row.get(column, "nothing"))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where}, column '{column}' holds {row.get(column, 'nothing')}, expected a number")
    return value


def on_screen(
    events: Sequence[Event], onset_s: NDArray[np.float64], tr_s: float, where: str
) -> tuple[list[str | None], NDArray[np.float64]]:
    """Stimulus at the start of each scan, and how long it had been on (None and nan where the screen was empty).

    What was over before the first scan or began after the last one started was never measured, and is left out.

    Raises `DataError` where events overlap, go on after the recording, or would be lost because no scan starts
    during them.
    """
    events = sorted(events, key=lambda event: event.onset_s)
    for one, other in pairwise(events):
        if other.onset_s < one.end_s - CLOCK_S:
            raise DataError(
                f"{where}: '{other.stimulus_id}' starts at {other.onset_s:g} s while '{one.stimulus_id}' lasts until "
                f"{one.end_s:g} s; only one stimulus can be on the screen"
            )
    end_s = onset_s[-1] + tr_s
    if events and events[-1].onset_s >= end_s - CLOCK_S:
        raise DataError(
            f"{where}: '{events[-1].stimulus_id}' starts at {events[-1].onset_s:g} s, but {len(onset_s)} scans of "
            f"{tr_s:g} s end at {end_s:g} s; correct the TR, the events, or axes given as (voxels, scans)"
        )
    ids: list[str | None] = [None] * len(onset_s)
    offset_s = np.full(len(onset_s), np.nan)
    for event in events:
        first, end = np.searchsorted(onset_s, [event.onset_s - CLOCK_S, event.end_s - CLOCK_S])
        if first == end and event.onset_s >= onset_s[0] and event.onset_s <= onset_s[-1]:
            raise DataError(
                f"{where}: no scan starts while '{event.stimulus_id}' is shown ({event.onset_s:g} s for "
                f"{event.length_s:g} s, TR {tr_s:g} s); give its length up to the next one, or use betas"
            )
        ids[first:end] = [event.stimulus_id] * (end - first)
        offset_s[first:end] = np.maximum(onset_s[first:end] - event.onset_s, 0)
    return ids, offset_s
