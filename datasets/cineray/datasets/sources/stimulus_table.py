"""Stimuli from a table (one row each) and target arrays whose rows stand in the same order."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cineray.core.errors import DataError
from cineray.datasets.schema import TensorSpec
from cineray.datasets.sources.base import Stimulus
from cineray.datasets.sources.events import Event, number, read_rows
from cineray.datasets.sources.files import Header, headers, read_array

__all__ = ["AS_GIVEN", "Catalogue", "StimulusTable"]

AS_GIVEN = "as given"
"""Unit of targets of which only those who ingest them know what they are in."""


class Catalogue:
    """Stimuli by name and by film, to write out what an events table shows."""

    def __init__(self, stimuli: Iterable[Stimulus]) -> None:
        self.by_id: dict[str, Stimulus] = {}
        self.by_film: dict[str, list[Stimulus]] = {}
        for stimulus in stimuli:
            self.by_id[stimulus.stimulus_id] = stimulus
            self.by_film.setdefault(stimulus.film, []).append(stimulus)

    def stimulus(self, name: str, where: str) -> Stimulus:
        """The stimulus of that name."""
        if name not in self.by_id:
            raise DataError(f"{where} shows '{name}', which the table of stimuli does not list; add a row for it")
        return self.by_id[name]

    def showing(self, name: str | None, film: str | None, onset_s: float, where: str) -> list[Event]:
        """One stimulus, or all stimuli of a film that began at ``onset_s``."""
        if name is not None:
            stimulus = self.stimulus(name, where)
            return [Event(onset_s, stimulus.length_s, name)]
        if film not in self.by_film:
            listed = ", ".join(list(self.by_film)[:5])
            raise DataError(f"{where} shows film '{film}', which the table of stimuli does not list; it has {listed}")
        return [Event(onset_s + s.onset_s, s.length_s, s.stimulus_id) for s in self.by_film[film]]


@dataclass(frozen=True)
class StimulusTable:
    """``stimulus_id`` and ``length_s`` are needed; ``film``, ``onset_s``, ``group`` and ``caption`` may be added.

    Without ``film`` a stimulus is a film of its own (a picture, a short video); without ``group`` it is its own group.
    """

    path: Path
    target_files: Mapping[str, str]
    """Target -> file beside the table, or ``file#key``; first axis: one row for each row of the table."""

    def rows(self) -> list[Stimulus]:
        """The stimuli without their targets."""
        found = [
            self._stimulus(row, f"{self.path.name}, line {line}")
            for line, row in enumerate(
                read_rows(self.path, ("stimulus_id", "length_s"), ("film", "onset_s", "group", "caption")), start=2
            )
        ]
        names = [stimulus.stimulus_id for stimulus in found]
        if twice := {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set():
            raise DataError(f"{self.path.name} lists '{min(twice)}' more than once; a stimulus has one row")
        return found

    def specs(self) -> dict[str, TensorSpec]:
        """Shape and dtype of each target, from the headers."""
        count = len(self.rows())
        found = {}
        for name, text in self.target_files.items():
            header = self._header(text)
            if header.shape[:1] != (count,) or len(header.shape) < 2:
                raise DataError(
                    f"{text} has shape {header.shape}, expected ({count}, …): one row for each of {self.path.name}"
                )
            shape = header.shape[1:]
            axes = "dim" if len(shape) == 1 else " ".join(f"axis{number}" for number in range(len(shape)))
            found[name] = TensorSpec(_stored(header.dtype), shape, axes, AS_GIVEN)
        return found

    def stimuli(self) -> Iterator[Stimulus]:
        """The stimuli with their targets."""
        specs = self.specs()
        arrays = {name: self._array(text, specs[name].dtype) for name, text in self.target_files.items()}
        for index, stimulus in enumerate(self.rows()):
            targets = {name: array[index] for name, array in arrays.items()}
            yield Stimulus(**{**vars(stimulus), "targets": targets})

    def _stimulus(self, row: Mapping[str, str], where: str) -> Stimulus:
        if "stimulus_id" not in row:
            raise DataError(f"{where}, column 'stimulus_id' is empty; every stimulus needs a name")
        name, length_s = row["stimulus_id"], number(row, "length_s", where)
        if length_s <= 0:
            raise DataError(f"{where}, column 'length_s' holds {length_s:g}, expected more than 0 seconds")
        return Stimulus(
            stimulus_id=name,
            film=row.get("film", name),
            onset_s=number(row, "onset_s", where) if "onset_s" in row else 0.0,
            length_s=length_s,
            group=row.get("group", name),
            caption=row.get("caption", ""),
        )

    def _place(self, text: str) -> tuple[Path, str]:
        file, _, key = text.partition("#")
        return self.path.parent / file, key

    def _header(self, text: str) -> Header:
        path, key = self._place(text)
        known = headers(path)
        key = key or (next(iter(known)) if len(known) == 1 else key)
        if key not in known:
            raise DataError(f"{path.name} holds {', '.join(known)}; name one as target_files.NAME={path.name}#KEY")
        return known[key]

    def _array(self, text: str, dtype: str) -> NDArray:
        path, key = self._place(text)
        values = read_array(path, key).astype(dtype, copy=False)
        if not np.isfinite(values).all():
            raise DataError(f"{path.name} holds {(~np.isfinite(values)).sum()} values that are not finite; repair them")
        return values


def _stored(dtype: str) -> str:
    """Targets are stored as given, but never wider than float32."""
    return {"float64": "float32", "double": "float32", "single": "float32", "logical": "bool"}.get(dtype, dtype)
