"""Anyone's own data: a folder with two tables, an array file a run, and a log of what was shown.

recordings.csv   subject,run,file,events[,key,repeat]     one row a run
stimuli.csv      stimulus_id,length_s[,film,onset_s,group,caption]
features.npy     (stimuli, dim), rows as in stimuli.csv
…                the files that recordings.csv names: .npy .npz .h5 .mat, and events as .csv or .tsv
"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cineray.core.config import Config
from cineray.core.errors import DataError
from cineray.datasets.schema import TensorSpec
from cineray.datasets.sources.base import Recording, Stimulus
from cineray.datasets.sources.events import Event, number, on_screen, read_rows
from cineray.datasets.sources.files import headers, read_array
from cineray.datasets.sources.stimulus_table import Catalogue, StimulusTable

__all__ = ["ArraysConfig"]


class ArraysConfig(Config):
    """Settings of the arrays source; see the layout above and docs/data.md.

    An events table has ``onset_s`` (seconds from the first scan) and either ``stimulus_id`` or ``film``: a film's row
    stands for all stimuli of that film in ``stimuli.csv``. A run whose ``events`` cell is empty is rest.
    """

    name: Literal["arrays"] = "arrays"
    folder: str
    kind: Literal["scans", "betas"] = "scans"
    """``betas``: each row of an array is one trial; events then need only ``stimulus_id``, one line a row."""
    tr_s: float | None = Field(default=None, gt=0)
    """Seconds a scan; may also be a column ``tr_s`` of recordings.csv, where all rows must agree."""
    axes: Literal["scans voxels", "voxels scans"] | None = None
    """Order of the axes in the files. Left out: scans first, and arrays that look turned round are refused."""
    subjects: tuple[str, ...] = ()
    """Subjects to take; empty means all."""
    target_files: dict[str, str] = Field(default={"features": "features.npy"})
    """Target -> file in the folder, or ``file#key``."""

    @cached_property
    def table(self) -> list[dict[str, str]]:
        """Rows of recordings.csv, checked against each other and against the headers of the files."""
        path = Path(self.folder) / "recordings.csv"
        needed = ("subject", "run", "file")
        rows = read_rows(path, (*needed, "events"), ("key", "repeat", "tr_s"))
        for line, row in enumerate(rows, start=2):
            if empty := [name for name in needed if name not in row]:
                raise DataError(f"{path.name}, line {line}, column '{empty[0]}' is empty")
        known = dict.fromkeys(row["subject"] for row in rows)
        if unknown := sorted(set(self.subjects) - set(known)):
            raise DataError(f"there is no subject '{unknown[0]}' in {path}; it lists {', '.join(known)}")
        rows = [row for row in rows if not self.subjects or row["subject"] in self.subjects]
        if not rows:
            raise DataError(f"{path} lists no run; write one row a run")
        keys = [(row["subject"], row["run"]) for row in rows]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise DataError(f"{path.name} lists {twice[0][0]}, run '{twice[0][1]}' twice; give each run its own name")
        self._check_voxels(rows)
        return rows

    @cached_property
    def scan_s(self) -> float:
        """Seconds a scan, the same in all runs (1 for betas, which have no clock)."""
        if self.kind == "betas":
            return 1.0
        found = {number(row, "tr_s", "recordings.csv") for row in self.table if "tr_s" in row}
        found |= {self.tr_s} if self.tr_s is not None else set()
        if len(found) > 1:
            listed = ", ".join(f"{tr_s:g}" for tr_s in sorted(found))
            raise DataError(f"runs have different TRs ({listed} s); ingest them as data sets of their own")
        if not found or min(found) <= 0:
            raise DataError("the TR is not known; set source.tr_s to the seconds between scans")
        return min(found)

    def targets(self) -> dict[str, TensorSpec]:
        """Shapes of the target files."""
        return self._stimuli.specs()

    def stimuli(self) -> Iterator[Stimulus]:
        """Rows of stimuli.csv."""
        return self._stimuli.stimuli()

    def recordings(self) -> Iterator[Recording]:
        """Rows of recordings.csv."""
        known = Catalogue(self._stimuli.rows())
        for row in self.table:
            brain = read_array(Path(self.folder) / row["file"], row.get("key", ""))
            brain = brain.T if self.axes == "voxels scans" else brain
            onset_s = np.arange(len(brain), dtype=np.float64) * self.scan_s
            log = self._log(row, known)
            if self.kind == "betas":
                ids, offset_s = self._trials(row, len(brain), known)
            else:
                ids, offset_s = on_screen(log, onset_s, self.scan_s, row.get("events", "rest"))
            self._check_axes(row["file"], brain.shape, ids)
            yield Recording(
                subject=row["subject"],
                run=row["run"],
                repeat=int(number(row, "repeat", "recordings.csv")) if "repeat" in row else 0,
                tr_s=self.scan_s,
                brain=brain,
                onset_s=onset_s,
                stimulus_id=ids,
                offset_s=offset_s,
                showings=tuple((event.onset_s, event.stimulus_id) for event in log) if log else None,
            )

    def notes(self) -> dict[str, object]:
        """What the manifest remembers."""
        return {
            "licence": "not stated: own data",
            "preprocessing": "not stated: own data",
            "kind": self.kind,
            "files": [row["file"] for row in self.table],
        }

    @property
    def _stimuli(self) -> StimulusTable:
        return StimulusTable(Path(self.folder) / "stimuli.csv", self.target_files)

    def _trials(
        self, row: dict[str, str], num_trials: int, known: Catalogue
    ) -> tuple[list[str | None], NDArray[np.float64]]:
        """Stimulus of each row of an array of betas."""
        if "events" not in row:
            raise DataError(f"{row['file']} holds betas but has no events; list the stimulus of each of its rows")
        path = Path(self.folder) / row["events"]
        names = [event.get("stimulus_id") for event in read_rows(path, ("stimulus_id",))]
        if len(names) != num_trials:
            raise DataError(
                f"{path.name} lists {len(names)} trials, {row['file']} has {num_trials}; betas need one line a trial"
            )
        for name in names:
            if name is not None:
                known.stimulus(name, path.name)
        return names, np.array([np.nan if name is None else 0.0 for name in names])

    def _log(self, row: dict[str, str], known: Catalogue) -> list[Event]:
        """The events of a run of scans, films written out as their stimuli; none at rest."""
        if self.kind == "betas" or "events" not in row:
            return []
        path, events = Path(self.folder) / row["events"], []
        for line, entry in enumerate(read_rows(path, ("onset_s",), ("stimulus_id", "film")), start=2):
            where = f"{path.name}, line {line}"
            if not {"stimulus_id", "film"} & entry.keys():
                raise DataError(f"{where} names neither a stimulus_id nor a film; fill one of the two columns")
            onset_s = number(entry, "onset_s", where)
            events += known.showing(entry.get("stimulus_id"), entry.get("film"), onset_s, where)
        return events

    def _check_axes(self, file: str, shape: tuple[int, ...], ids: list[str | None]) -> None:
        """Refuse a run that is mostly silence after its events, if its other axis would fit them."""
        last = max((scan for scan, name in enumerate(ids) if name is not None), default=len(ids) - 1)
        if self.axes is None and last < shape[1] < shape[0] // 2 and last * 2 < shape[0]:
            raise DataError(
                f"{file} has shape {shape} but its events end at scan {last}: it looks like (voxels, scans); "
                "set source.axes to 'voxels scans', or to 'scans voxels' if it is right as it is"
            )

    def _check_voxels(self, rows: list[dict[str, str]]) -> None:
        """Two axes everywhere, one voxel count a subject."""
        shapes: dict[str, tuple[int, ...]] = {}
        for row in rows:
            path = Path(self.folder) / row["file"]
            known = headers(path)
            shape = known.get(row.get("key", ""), next(iter(known.values())) if len(known) == 1 else None)
            if shape is None:
                raise DataError(f"{path.name} has no array '{row.get('key', '')}'; it holds {', '.join(known)}")
            if len(shape.shape) != 2:
                raise DataError(f"{path.name} has shape {shape.shape}, expected two axes, (scans, voxels)")
            found = shape.shape[::-1] if self.axes == "voxels scans" else shape.shape
            before = shapes.setdefault(row["subject"], found)
            if found[1] != before[1]:
                turned = "; set source.axes='voxels scans'" if found[0] == before[0] else ""
                raise DataError(
                    f"{path.name} has {found[1]} voxels (scans {found[0]}), another run of {row['subject']} has "
                    f"{before[1]} (scans {before[0]}); a subject's voxels must be the same in all runs{turned}"
                )
