"""Runs of a BIDS-like folder: which files belong together, and what their names and sidecars say."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cineray.core.errors import DataError

__all__ = ["BidsRun", "find_runs", "timing"]

ENDINGS = (".dtseries.nii", ".func.gii", ".nii.gz", ".nii")
"""Kinds of ``_bold`` file, the more particular first."""

RUN_ENTITIES = ("ses", "task", "acq", "run")
"""What makes two files of a subject two runs; all else (space, desc, hemi …) are views of one run."""

TR_RANGE_S = (0.05, 30.0)


@dataclass(frozen=True)
class BidsRun:
    """One run of one subject."""

    subject: str
    """``sub-01``."""
    name: str
    """``ses-02_task-film_run-1``."""
    task: str
    files: tuple[Path, ...]
    """One, or the GIFTI files of the left and right hemisphere."""
    events: Path | None


def find_runs(
    folder: Path, events_folder: Path, match: Mapping[str, str], subjects: tuple[str, ...], rest_tasks: tuple[str, ...]
) -> list[BidsRun]:
    """Every run whose file names carry all entities of ``match``, sorted."""
    groups: dict[tuple[str, str], list[Path]] = {}
    for path in sorted([*folder.glob("sub-*/func/*_bold.*"), *folder.glob("sub-*/ses-*/func/*_bold.*")]):
        entities = _entities(path)
        wanted = all(entities.get(key) == value for key, value in match.items())
        if path.name.endswith(ENDINGS) and wanted and (not subjects or f"sub-{entities.get('sub')}" in subjects):
            name = "_".join(f"{key}-{entities[key]}" for key in RUN_ENTITIES if key in entities)
            groups.setdefault((f"sub-{entities['sub']}", name), []).append(path)
    if not groups:
        asked = ", ".join(f"{key}-{value}" for key, value in match.items()) or "any name"
        raise DataError(f"{folder} has no sub-*/[ses-*/]func/*_bold file with {asked}; correct folder or match")
    if absent := sorted(set(subjects) - {subject for subject, _ in groups}):
        raise DataError(
            f"there is no run of '{absent[0]}' in {folder}; it has {', '.join(sorted({s for s, _ in groups}))}"
        )
    return [_run(*key, files, folder, events_folder, rest_tasks) for key, files in groups.items()]


def timing(run: BidsRun, folder: Path, header_tr_s: float | None, header_start_s: float) -> tuple[float, float]:
    """TR and time of the first scan, from the sidecar and the header, which must agree."""
    stem = next(run.files[0].name.removesuffix(end) for end in ENDINGS if run.files[0].name.endswith(end))
    candidates = [run.files[0].with_name(f"{stem}.json"), folder / f"task-{run.task}_bold.json"]
    said = next((_json(path) for path in candidates if path.is_file()), {})
    tr_s = said.get("RepetitionTime", header_tr_s)
    where = run.files[0].name
    if not isinstance(tr_s, int | float):
        raise DataError(f"the TR of {where} is in neither its header nor a sidecar; write RepetitionTime into one")
    if header_tr_s is not None and abs(tr_s - header_tr_s) > 1e-3:
        raise DataError(
            f"{where} has a TR of {header_tr_s:g} s in its header and {tr_s:g} s in its sidecar; correct one"
        )
    if not TR_RANGE_S[0] <= tr_s <= TR_RANGE_S[1]:
        raise DataError(
            f"{where} has a TR of {tr_s:g} s, expected seconds between scans; correct its header or sidecar"
        )
    return float(tr_s), float(said.get("StartTime", header_start_s))


def _run(
    subject: str, name: str, files: list[Path], folder: Path, events_folder: Path, rest_tasks: tuple[str, ...]
) -> BidsRun:
    hemispheres = [_entities(path).get("hemi") for path in files]
    if len(files) > 1 and hemispheres != ["L", "R"]:
        raise DataError(
            f"{subject} {name} has {len(files)} files ({files[0].name}, {files[1].name}, …); choose one kind with "
            "source.match, for example match={space: T1w}"
        )
    task = _entities(files[0]).get("task", "")
    place = events_folder / files[0].parent.relative_to(folder)
    ours = _entities(files[0])
    events = [
        path
        for path in sorted(place.glob("*_events.tsv"))
        if all(_entities(path).get(key) == ours.get(key) for key in ("sub", *RUN_ENTITIES))
    ]
    if task in rest_tasks:
        return BidsRun(subject, name, task, tuple(files), None)
    if len(events) != 1:
        raise DataError(
            f"{subject} {name} has {len(events)} events files in {place}, expected 1; set source.events_folder, or "
            "source.rest_tasks if nothing was shown"
        )
    return BidsRun(subject, name, task, tuple(files), events[0])


def _entities(path: Path) -> dict[str, str]:
    """``sub-01_task-film_bold.nii.gz`` to ``{"sub": "01", "task": "film"}``."""
    return dict(part.split("-", 1) for part in path.name.split(".")[0].split("_") if "-" in part)


def _json(path: Path) -> dict:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path.name} is not JSON ({error}); repair it") from None
    return found if isinstance(found, dict) else {}
