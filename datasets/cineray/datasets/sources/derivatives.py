"""A BIDS-like folder of preprocessed runs (NIfTI, CIFTI or GIFTI) with events and an atlas."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cineray.core.config import Config
from cineray.core.errors import DataError
from cineray.datasets.schema import TensorSpec
from cineray.datasets.sources.base import Recording, Stimulus
from cineray.datasets.sources.bids import BidsRun, find_runs, timing
from cineray.datasets.sources.events import Event, number, on_screen, read_rows
from cineray.datasets.sources.images import Atlas, Grid, ranges, read_atlas, read_series
from cineray.datasets.sources.stimulus_table import Catalogue, StimulusTable

__all__ = ["DerivativesConfig"]

OVERRUN_S = 0.1
"""Logged durations are late by some frames of the projector."""

PAUSE = ""
"""Stands for a row without a stimulus until the showing before it has been cut at its onset."""


class DerivativesConfig(Config):
    """Settings of the derivatives source: ``sub-*/[ses-*/]func/*_bold.*`` with ``*_events.tsv``.

    Voxels keep the order of their file: C order of (x, y, z) for NIfTI, grayordinates for CIFTI, left then right
    vertices for GIFTI. The manifest's notes hold the kept columns of each subject as ranges.
    """

    name: Literal["derivatives"] = "derivatives"
    folder: str
    events_folder: str | None = None
    """Raw data set with the events, where the derivative has none (fMRIPrep)."""
    match: dict[str, str] = Field(default={})
    """Entities that file names must carry, e.g. ``{space: fsLR, den: 91k}``; else a run may have several files."""
    subjects: tuple[str, ...] = ()
    rest_tasks: tuple[str, ...] = ("rest",)
    """Tasks without stimuli."""
    stimulus_column: str = "trial_type"
    """Column of the events that names the stimulus; rows with ``n/a`` are pauses."""
    stimuli_file: str | None = None
    """A table as for the arrays source, with films and targets; without it each name in the events is a stimulus."""
    target_files: dict[str, str] = Field(default={})
    """Target -> file beside ``stimuli_file``."""
    atlas: tuple[str, ...] = ()
    """Label file (a mask is an atlas with one label), or the left and right one; ``{subject}`` is replaced."""
    atlas_names: str | None = None
    """Table with columns ``index`` and ``name``, for atlases that bring no names (NIfTI)."""
    rois: tuple[str | int, ...] = ()
    """Labels to keep, by name or value; empty keeps all above 0."""
    parcels: bool = False
    """Average the voxels of each label (in the order of the label values) into one."""

    @cached_property
    def runs(self) -> list[BidsRun]:
        """Every chosen run."""
        events = self.events_folder or self.folder
        return find_runs(Path(self.folder), Path(events), self.match, self.subjects, self.rest_tasks)

    def targets(self) -> dict[str, TensorSpec]:
        """Shapes of the target files."""
        if self.target_files and self._table is None:
            raise DataError("source.target_files needs source.stimuli_file, whose rows say which stimulus is which")
        return self._table.specs() if self._table else {}

    def stimuli(self) -> Iterator[Stimulus]:
        """Rows of the table, or every name in the events with its longest showing."""
        if self._table:
            yield from self._table.stimuli()
            return
        lengths: dict[str, float] = {}
        for run in self.runs:
            for event in self._events(run, None):
                lengths[event.stimulus_id] = max(event.length_s, lengths.get(event.stimulus_id, 0.0))
        for name, length_s in lengths.items():
            yield Stimulus(name, film=name, onset_s=0.0, length_s=length_s, group=name)

    def recordings(self) -> Iterator[Recording]:
        """Every run; one that shows the same stimuli as an earlier one of the subject is its repeat."""
        catalogue = Catalogue(self._table.rows()) if self._table else None
        frames: dict[str, Grid] = {}
        seen: Counter[tuple[str, frozenset[str]]] = Counter()
        first_tr_s: float | None = None
        for run in self.runs:
            series = read_series(run.files)
            tr_s, start_s = timing(run, Path(self.folder), series.tr_s, series.start_s)
            first_tr_s = first_tr_s or tr_s
            if abs(tr_s - first_tr_s) > 1e-6:
                raise DataError(
                    f"{run.files[0].name} has a TR of {tr_s:g} s, other runs {first_tr_s:g} s; ingest them as data "
                    "sets of their own"
                )
            columns, labels = self._selection(run, series.grid, frames)
            brain = series.load(columns)
            onset_s = start_s + np.arange(series.scans, dtype=np.float64) * tr_s
            events = self._events(run, catalogue)
            ids, offset_s = on_screen(events, onset_s, tr_s, f"{run.subject} {run.name}")
            shown = (run.subject, frozenset(name for name in ids if name is not None))
            brain = _means(brain, labels) if self.parcels else brain
            showings = tuple((event.onset_s, event.stimulus_id) for event in events)
            yield Recording(run.subject, run.name, seen[shown], tr_s, brain, onset_s, ids, offset_s, showings)
            seen[shown] += bool(shown[1])

    def notes(self) -> dict[str, object]:
        """What the manifest remembers, with the place of every voxel."""
        places = {}
        for run in {run.subject: run for run in self.runs}.values():
            grid = read_series(run.files).grid
            columns, labels = self._selection(run, grid, {})
            places[run.subject] = {"frame": {k: list(v) for k, v in grid.frame.items()}, "columns": ranges(columns)}
            if self.parcels:
                places[run.subject]["parcels"] = np.unique(labels).tolist()
        return {
            "licence": "not stated: see the data set's own dataset_description.json",
            "preprocessing": "as the derivative's own description says",
            "atlas": list(self.atlas),
            "rois": list(self.rois),
            "voxel_order": "C order of x, y, z (NIfTI), grayordinates (CIFTI), left then right vertices (GIFTI)",
            "voxels": places,
        }

    @property
    def _table(self) -> StimulusTable | None:
        return StimulusTable(Path(self.stimuli_file), self.target_files) if self.stimuli_file else None

    def _events(self, run: BidsRun, catalogue: Catalogue | None) -> list[Event]:
        if run.events is None:
            return []
        events = []
        rows = read_rows(run.events, ("onset", "duration", self.stimulus_column))
        for line, row in enumerate(rows, start=2):
            name, where = row.get(self.stimulus_column), f"{run.events.name}, line {line}"
            onset_s = number(row, "onset", where)
            if name is None:
                events.append(Event(onset_s, 0.0, PAUSE))
            elif catalogue is None:
                events.append(Event(onset_s, number(row, "duration", where), name))
            elif name in catalogue.by_id:
                events += catalogue.showing(name, None, onset_s, where)
            else:
                events += catalogue.showing(None, name, onset_s, where)
        return _trimmed(events)

    def _selection(
        self, run: BidsRun, grid: Grid, before: dict[str, Grid]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Kept columns of a run, ascending, and the label of each; all runs of a subject must lie alike."""
        where = run.files[0].name
        first = before.setdefault(run.subject, grid)
        if first.frame != grid.frame or not np.array_equal(first.place, grid.place):
            raise DataError(f"{where} lies on {grid}, another run of {run.subject} on {first}; resample them alike")
        if not self.atlas:
            if list(grid.frame) == ["volume"]:
                raise DataError(f"{where} is a volume, most of it air; set source.atlas to a mask or an atlas")
            if self.rois or self.parcels:
                raise DataError("source.rois and source.parcels need source.atlas; name its file")
            return np.arange(len(grid.place)), np.ones(len(grid.place), np.int64)
        atlas = self._atlas(run.subject)
        labels = grid.labels_from(atlas, where)
        wanted = self._wanted(atlas)
        keep = np.isin(labels, wanted) if wanted else labels > 0
        if missing := sorted(set(wanted) - set(labels[keep].tolist())):
            raise DataError(f"{where} has no voxel with label {missing[0]} of {self.atlas[0]}; choose other rois")
        if not keep.any():
            raise DataError(f"{where} has no voxel inside {self.atlas[0]}; check that both lie in one space")
        columns = np.flatnonzero(keep)
        return columns, labels[columns]

    def _atlas(self, subject: str) -> Atlas:
        names = {}
        if self.atlas_names:
            table = Path(self.atlas_names)
            names = {int(number(row, "index", table.name)): row["name"] for row in read_rows(table, ("index", "name"))}
        return read_atlas([Path(text.format(subject=subject)) for text in self.atlas], names)

    def _wanted(self, atlas: Atlas) -> list[int]:
        """Values of the labels in ``rois``; one name may stand for several (left and right)."""
        wanted: list[int] = []
        for roi in self.rois:
            found = [roi] if isinstance(roi, int) else [value for value, name in atlas.names.items() if name == roi]
            if not found:
                some = ", ".join(list(atlas.names.values())[:8]) or "no names (set source.atlas_names)"
                raise DataError(f"{self.atlas[0]} has no label called '{roi}'; it has {some}")
            wanted += found
        return wanted


def _trimmed(events: list[Event]) -> list[Event]:
    """Events that run into the next row by no more than `OVERRUN_S` end where it begins; pauses are left out."""
    events = sorted(events, key=lambda event: event.onset_s)
    for index, (one, other) in enumerate(pairwise(events)):
        if other.onset_s < one.end_s <= other.onset_s + OVERRUN_S:
            events[index] = replace(one, length_s=other.onset_s - one.onset_s)
    return [event for event in events if event.stimulus_id != PAUSE]


def _means(brain: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """(scans, voxels) to (scans, labels), in the order of the label values."""
    return np.stack([brain[:, labels == value].mean(1, dtype=np.float64) for value in np.unique(labels)], axis=1)
