"""A folder of many people's runs in a common parcellation: ``bold_<run>.npz`` and ``stim_<run>.npy``.

The layout of the SONG film set (Song, Shim & Rosenberg 2023, eLife 85487), whose runs, people, lengths and component
counts are all taken from the files.
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
from cineray.datasets.sources.files import headers, read_array

__all__ = ["SongConfig"]


class SongConfig(Config):
    """Settings of the song source.

    ``bold_<run>.npz`` holds ``z`` (people, scans, parcels) and ``subjects`` (people,); people are joined by that
    name, never by row. ``stim_<run>.npy`` (scans, components) is what everybody saw; ``stim_<run>_per_subject.npy``
    (people, scans, components) is what each saw, rows as in ``subjects``. A run without either is rest.
    One stimulus is one scan long; its group is a block of ``group_s`` of the film.
    """

    name: Literal["song"] = "song"
    folder: str
    runs: tuple[str, ...] = ()
    """Runs to take; empty means every ``bold_*.npz``."""
    subjects: tuple[str, ...] = ()
    """People to take; empty means all. Each must occur in at least one run."""
    tr_s: float = Field(default=1.0, gt=0)
    group_s: float = Field(default=20.0, gt=0)
    """Length of the block of film that is never divided between training and test."""

    @cached_property
    def run_names(self) -> list[str]:
        """Runs that are read, sorted."""
        found = sorted(p.stem.removeprefix("bold_") for p in Path(self.folder).glob("bold_*.npz"))
        if not found:
            raise DataError(f"{self.folder} holds no bold_*.npz; point source.folder at the folder of the runs")
        if unknown := sorted(set(self.runs) - set(found)):
            raise DataError(f"there is no run '{unknown[0]}' in {self.folder}; it has {', '.join(found)}")
        return [run for run in found if not self.runs or run in self.runs]

    def targets(self) -> dict[str, TensorSpec]:
        """The stimulus components, ``features``; nothing where all runs are rest."""
        counts = {run: self._stimulus_shape(run)[-1] for run in self.run_names if self._stimulus_file(run)}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{run} {count}" for run, count in counts.items())
            raise DataError(f"runs differ in stimulus components ({listed}); choose runs that agree with source.runs")
        if not counts:
            return {}
        return {"features": TensorSpec("float32", (min(counts.values()),), "components", "PC score")}

    def stimuli(self) -> Iterator[Stimulus]:
        """One for each scan of each film; each person's own sequence is a film of its own."""
        self.targets()
        for run in self.run_names:
            path = self._stimulus_file(run)
            if path is None:
                continue
            values = read_array(path)
            if not np.isfinite(values).all():
                raise DataError(f"{path.name} holds {(~np.isfinite(values)).sum()} values that are not finite")
            if values.ndim == 2:
                yield from self._film(run, values)
                continue
            for row, subject in self._people(run):
                yield from self._film(f"{run}/{subject}", values[row])

    def recordings(self) -> Iterator[Recording]:
        """Every run of every chosen person who has it."""
        self._check()
        for run in self.run_names:
            brain = read_array(self._bold(run), "z")
            onset_s = np.arange(brain.shape[1]) * self.tr_s
            for row, subject in self._people(run):
                film = self._film_of(run, subject)
                yield Recording(
                    subject=subject,
                    run=run,
                    repeat=0,
                    tr_s=self.tr_s,
                    brain=brain[row],
                    onset_s=onset_s,
                    stimulus_id=[_stimulus_id(film, scan) if film else None for scan in range(len(onset_s))],
                    offset_s=np.full(len(onset_s), 0.0 if film else np.nan),
                )

    def notes(self) -> dict[str, object]:
        """What the manifest remembers; ``norm`` is upstream's: each run was z-scored as a whole."""
        return {
            "licence": "raw data CC0 (OpenNeuro ds004592); derivative published without a licence file",
            "cite": "Song, Shim & Rosenberg 2023, eLife 85487",
            "atlas": "Schaefer 200 parcels (as upstream orders them)",
            "preprocessing": "upstream cleaning, parcel means, z-score per person, parcel and run, float16; "
            "stimulus components already delayed by a haemodynamic response",
            "norm": "run",
            "runs": self.run_names,
        }

    def _film(self, film: str, values: NDArray) -> Iterator[Stimulus]:
        for scan, features in enumerate(values.astype(np.float32)):
            onset_s = scan * self.tr_s
            block = int((onset_s + 1e-6) // self.group_s)
            yield Stimulus(
                stimulus_id=_stimulus_id(film, scan),
                film=film,
                onset_s=onset_s,
                length_s=self.tr_s,
                group=f"{film}-block-{block:03d}",
                targets={"features": features},
            )

    def _check(self) -> None:
        """Everything the headers can tell, before the first large read."""
        self.targets()
        parcels = {run: self._bold_shape(run)[2] for run in self.run_names if self._people(run)}
        if len(set(parcels.values())) > 1:
            listed = ", ".join(f"{run} {count}" for run, count in parcels.items())
            raise DataError(f"runs differ in parcels ({listed}); choose runs that agree with source.runs")
        people = {subject for run in self.run_names for _, subject in self._people(run)}
        if unknown := sorted(set(self.subjects) - people):
            raise DataError(f"there is no subject '{unknown[0]}' in the runs {', '.join(self.run_names)}")

    def _bold(self, run: str) -> Path:
        return Path(self.folder) / f"bold_{run}.npz"

    def _people(self, run: str) -> list[tuple[int, str]]:
        """(row, name) of the chosen people of a run."""
        path = self._bold(run)
        names = read_array(path, "subjects", text=True).tolist()
        shape = self._bold_shape(run)
        if shape[0] != len(names) or len(set(names)) != len(names):
            raise DataError(
                f"{path.name} has z of shape {shape} and {len(set(names))} different subjects, expected one name a row"
            )
        return [(row, name) for row, name in enumerate(names) if not self.subjects or name in self.subjects]

    def _bold_shape(self, run: str) -> tuple[int, ...]:
        known = headers(self._bold(run))
        if "z" not in known or len(known["z"].shape) != 3:
            found = f"z of shape {known['z'].shape}" if "z" in known else f"only {', '.join(known) or 'nothing'}"
            raise DataError(f"bold_{run}.npz holds {found}, expected an array z (people, scans, parcels)")
        return known["z"].shape

    def _stimulus_file(self, run: str) -> Path | None:
        both = [Path(self.folder) / f"stim_{run}{end}.npy" for end in ("", "_per_subject")]
        found = [path for path in both if path.is_file()]
        if len(found) > 1:
            raise DataError(f"run '{run}' has both {both[0].name} and {both[1].name}; remove the one that is wrong")
        return found[0] if found else None

    def _stimulus_shape(self, run: str) -> tuple[int, ...]:
        """Shape of the stimulus file, which must fit the run."""
        path = self._stimulus_file(run)
        assert path is not None
        shape = headers(path)[""].shape
        people, scans, _ = self._bold_shape(run)
        expected = (people, scans) if path.stem.endswith("_per_subject") else (scans,)
        if shape[:-1] != expected:
            raise DataError(
                f"{path.name} has shape {shape}, bold_{run}.npz needs {(*expected, 'components')}; "
                "their people and scans must be the same"
            )
        return shape

    def _film_of(self, run: str, subject: str) -> str | None:
        path = self._stimulus_file(run)
        if path is None:
            return None
        return f"{run}/{subject}" if path.stem.endswith("_per_subject") else run


def _stimulus_id(film: str, scan: int) -> str:
    return f"{film}-{scan:05d}"
