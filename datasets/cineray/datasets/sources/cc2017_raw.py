"""cc2017 as published: one CIFTI file a run, one mp4 a film, and the voxels that answer alike to both showings."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from cineray.core.errors import DataError
from cineray.datasets.drift import drift_basis, remove_drift
from cineray.datasets.sources.cc2017_films import CLIP_S, DETREND, FLAT, NUM_CLIPS, TRAIN
from cineray.datasets.sources.images import read_series
from cineray.datasets.video import read_clips

__all__ = ["film_clips", "pairs", "read_run", "reproducibility", "reproducible"]

LATE = (*TRAIN, "test1")
"""Films whose scanner started 2 s into the film; with the others it started with the film."""

NUM_VOLUMES = {2.0: 245, 0.0: 246}
"""Film time of the first volume -> volumes of a run: the scanner goes on for 12 s after the film."""

FIRST_KEPT_S = 4.0
"""Film time of the first volume kept by the published trimming: the response to the first clip, 4 s late."""


def film_clips(folder: Path, film: str, fps: int, size_px: int) -> Iterator[NDArray[np.uint8]]:
    """The 240 clips of a film, one after another: (frames, size_px, size_px, 3)."""
    times_s = np.arange(NUM_CLIPS)[:, None] * CLIP_S + np.arange(round(CLIP_S * fps)) / fps
    yield from read_clips(folder / "Stimuli/video_fmri_dataset/stimuli" / f"{film}.mp4", times_s, size_px)


def read_run(
    folder: Path, subject: int, film: str, repeat: int, *, trim: bool
) -> tuple[NDArray[np.floating], NDArray[np.float64]]:
    """(volumes, cortical vertices) and the film time at which each volume begins, in seconds.

    Trimmed, the first volume is the one that begins at 4 s and there are 240: of 245 the first and the last four are
    left out, of 246 the first two and the last four. So volume i begins 4 s after clip i.
    """
    start_s = 2.0 if film in LATE else 0.0
    path = folder / f"Subject{subject:02d}/video_fmri_dataset/subject{subject}/fmri/{film}/cifti"
    path = path / f"{film}_{repeat}_Atlas.dtseries.nii"
    if not path.is_file():
        raise DataError(f"there is no run {path}; copy it there or choose fewer with source.subjects and source.films")
    series = read_series([path])
    if series.scans != NUM_VOLUMES[start_s]:
        raise DataError(
            f"{path.name} has {series.scans} volumes, a run of {film} has {NUM_VOLUMES[start_s]}; "
            "it must be the file as published, not yet trimmed"
        )
    columns = np.flatnonzero(series.grid.on_surface())
    onset_s = start_s + np.arange(series.scans, dtype=np.float64) * CLIP_S
    first = round((FIRST_KEPT_S - start_s) / CLIP_S)
    kept = slice(first, first + NUM_CLIPS) if trim else slice(None)
    return series.load(columns)[kept], onset_s[kept]


def pairs(
    folder: Path, subject: int, films: Sequence[str]
) -> Iterator[tuple[NDArray[np.floating], NDArray[np.floating]]]:
    """Both showings of each of these training segments, trimmed: (240, vertices) each, one segment in memory."""
    for film in films:
        one, other = (read_run(folder, subject, film, repeat, trim=True)[0] for repeat in (1, 2))
        if np.array_equal(one, other):
            raise DataError(f"both runs of {film} of subject {subject} are the same recording; copy them again")
        yield one, other


def reproducibility(
    pairs: Iterable[tuple[NDArray[np.floating], NDArray[np.floating]]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How alike a vertex answers to both showings of a segment: t and two-sided p, (vertices,) each.

    Pearson's r of the showings, freed of drift, for each segment; Fisher's z; Student's t over segments against 0.
    A vertex without signal has t 0 and p 1.
    """
    z = np.stack([np.arctanh(_correlation(one, other)) for one, other in pairs])
    spread = z.std(0, ddof=1)
    usable = np.isfinite(z).all(0) & (spread > 0)
    t = np.where(usable, z.mean(0) / np.where(usable, spread / np.sqrt(len(z)), 1.0), 0.0)
    return t, 2 * stats.t.sf(np.abs(t), len(z) - 1)


def reproducible(
    t: NDArray[np.float64], p: NDArray[np.float64], *, alpha: float, keep: int | None
) -> NDArray[np.int64]:
    """Numbers of the vertices to keep, ascending: those with Bonferroni p below ``alpha``, or the ``keep`` largest |t|.

    Ranks go by |t|, not by corrected p: that is 1 for all that is not significant.
    """
    if keep is None:
        return np.flatnonzero(p * len(p) < alpha)
    return np.sort(np.argsort(-np.abs(t), kind="stable")[:keep])


def _correlation(one: NDArray[np.floating], other: NDArray[np.floating]) -> NDArray[np.float64]:
    """(vertices,) Pearson's r over the volumes, without the drift of each run; nan where one of them is constant."""
    basis = drift_basis(np.arange(len(one), dtype=np.float64), CLIP_S, DETREND, None)
    a, b = (remove_drift(run, basis) for run in (one, other))
    flat = (a.std(0) <= FLAT * np.abs(one).max(0)) | (b.std(0) <= FLAT * np.abs(other).max(0))
    size = np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0)
    return np.where(flat, np.nan, (a * b).sum(0) / np.where(flat, 1.0, size))
