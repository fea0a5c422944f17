"""Betas of BOLD Moments, version B, out of object arrays and pickles whose contents are never run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cineray.core.errors import DataError
from cineray.datasets.pickles import read_object_array, read_pickle
from cineray.datasets.sources.betas import Session
from cineray.datasets.sources.events import read_rows

__all__ = ["NUM_TRAIN", "glm_sessions", "prepared_sessions", "subjects_in"]

NUM_TRAIN, NUM_VIDEOS = 1000, 1102
"""Videos 1 to 1000 are for training, the rest for the test."""

GLM_FILE = "TYPED_FITHRF_GLMDENOISE_RR.npy"
"""Betas of a session; sessions 2 to 5 are the main experiment."""

Mask = NDArray[np.bool_] | None
"""(grayordinates,) those to keep; None keeps all."""


def subjects_in(folder: Path) -> list[str]:
    """``sub-01`` … of those with betas."""
    return sorted(path.name for path in _betas_of(folder).glob("sub-[0-9][0-9]"))


def glm_sessions(folder: Path, subject: str, wanted: tuple[int, ...], mask: Mask) -> Iterator[Session]:
    """One a session, trials in the order of the GLM: test runs 1 to 3, then training runs 1 to 10.

    That order is written beside the betas; where the raw folder has the events they must tell the same.
    """
    home = _betas_of(folder) / subject
    found = {int(path.parent.name[4:]): path for path in sorted(home.glob(f"ses-0[2-5]/{GLM_FILE}"))}
    if missing := [number for number in wanted if number not in found]:
        raise DataError(
            f"{subject} has no betas of session {missing[0]}; it has {', '.join(map(str, found)) or 'none'}"
        )
    if not found:
        raise DataError(f"{home} has no ses-02/{GLM_FILE}; fetch it, or set source.betas=prepared")
    for number in sorted(wanted or found):
        path, session = found[number], f"ses-{number:02d}"
        videos = _listed(path.with_name(f"{subject}_{session}_conditionOrderDM.pkl"))
        _check_events(folder / subject / session / "func", videos)
        yield Session(
            run=session,
            repeat=0,
            stimulus=videos,
            is_test=videos > NUM_TRAIN,
            load=lambda path=path: _glm_betas(path, mask),
        )


def prepared_sessions(folder: Path, subject: str, mask: Mask) -> Iterator[Session]:
    """One a repeat, trials in the order of the videos; a repeat that a video lacks is filled with nan and left out."""
    for part in ("train", "test"):
        path = _betas_of(folder) / subject / "prepared_betas" / f"{subject}_organized_betas_task-{part}_normalized.pkl"
        found = read_pickle(path)
        if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], np.ndarray)):
            raise DataError(f"{path.name} holds {type(found).__name__}, expected (betas, names); fetch it again")
        betas, videos = found[0], _numbers(found[1], path.name)
        if betas.ndim != 3 or len(betas) != len(videos) or betas.dtype.kind != "f":
            raise DataError(
                f"{path.name} has betas {betas.dtype} {betas.shape} for {len(videos)} videos, expected (videos, "
                "repeats, grayordinates); fetch it again"
            )
        for repeat in range(betas.shape[1]):
            rows = _masked(betas[:, repeat], mask, path)
            is_there = ~np.isnan(rows).all(1)
            yield Session(
                run=f"{part}_repeat{repeat}",
                repeat=repeat,
                stimulus=videos[is_there],
                is_test=videos[is_there] > NUM_TRAIN,
                load=lambda rows=rows, kept=is_there: rows[kept],
            )


def _betas_of(folder: Path) -> Path:
    return folder / "derivatives" / "versionB" / "fsLR32k" / "GLM"


def _glm_betas(path: Path, mask: Mask) -> NDArray[np.floating]:
    """(trials, grayordinates)."""
    found = read_object_array(path)
    betas = found.get("betasmd") if isinstance(found, dict) else None
    if not isinstance(betas, np.ndarray) or betas.ndim != 4 or betas.shape[1:3] != (1, 1) or betas.dtype.kind != "f":
        raise DataError(f"{path.name} has no 'betasmd' of shape (grayordinates, 1, 1, trials); fetch it again")
    return _masked(betas[:, 0, 0].T, mask, path)


def _masked(rows: NDArray[np.floating], mask: Mask, path: Path) -> NDArray[np.floating]:
    """(trials, kept grayordinates)."""
    if mask is None:
        return rows
    if mask.shape != rows.shape[1:] or not mask.any():
        raise DataError(
            f"source.mask_file marks {mask.sum()} of {len(mask)} grayordinates, {path.name} has {rows.shape[1]}; make "
            "a mask of that length"
        )
    return rows[:, mask]


def _listed(path: Path) -> NDArray[np.int64]:
    """Videos of a session in the order of its betas, out of ``(events of each run, conditions)``."""
    found: Any = read_pickle(path)
    try:
        events, _ = found
        names = [name for run in events for name in run["trial_type"]]
    except (TypeError, ValueError, KeyError):
        raise DataError(f"{path.name} lists no trial_type of each run; fetch it again") from None
    return _numbers(names, path.name)


def _numbers(names: Any, where: str) -> NDArray[np.int64]:
    """``vid0001`` to 1."""
    videos = [int(name[3:]) if isinstance(name, str) and name[3:].isdecimal() else 0 for name in names]
    for name, video in zip(names, videos, strict=True):
        if not 1 <= video <= NUM_VIDEOS:
            raise DataError(f"{where} names video '{name}', expected vid0001 to vid{NUM_VIDEOS}; fetch it again")
    return np.array(videos, np.int64)


def _check_events(folder: Path, videos: NDArray[np.int64]) -> None:
    """The events of the raw data set, if they are there, list the same videos: three test runs, then training runs."""
    paths = [path for part in ("test", "train") for path in _runs(folder, part)]
    shown = [_video(row["stim_file"]) for path in paths for row in read_rows(path, ("stim_file",)) if row]
    if paths and shown != videos.tolist():
        differ = next((k for k, (a, b) in enumerate(zip(shown, videos, strict=False)) if a != b), len(videos))
        raise DataError(
            f"the events in {folder} list {len(shown)} trials, the betas' own list {len(videos)}, and they differ at "
            f"trial {differ}; fetch both again"
        )


def _runs(folder: Path, part: str) -> list[Path]:
    """Events of the runs of a task, by number."""
    found = folder.glob(f"*_task-{part}_run-*_events.tsv")
    return sorted(found, key=lambda path: int(path.name.partition("_run-")[2].partition("_")[0]))


def _video(stim_file: str) -> int:
    """``…/train/0001.mp4`` to 1; 0 for anything else."""
    stem = stim_file.rpartition("/")[2].removesuffix(".mp4")
    return int(stem) if stem.isdecimal() else 0
