"""Small folders in exactly the two published layouts of cc2017."""

from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.cifti2 import BrainModelAxis, SeriesAxis

from cineray.datasets.video import write_mp4

TRAIN = [f"seg{number}" for number in range(1, 19)]
CORTEX = 24
"""Cortical columns, half a hemisphere each; six columns of the thalamus follow them."""

VERTICES = {"CIFTI_STRUCTURE_CORTEX_LEFT": 40, "CIFTI_STRUCTURE_CORTEX_RIGHT": 40}

CUTS = (100, 103, 700)
"""Pictures of the film that begin a new shot."""


def brain_axis():
    left, right = (
        BrainModelAxis.from_surface(np.arange(1, 1 + CORTEX // 2), 40, name=name.removeprefix("CIFTI_STRUCTURE_"))
        for name in VERTICES
    )
    deep = np.zeros((5, 5, 5), bool)
    deep[2, 2, :] = True
    deep[1, 1, 1] = True
    return left + right + BrainModelAxis.from_mask(deep, affine=np.eye(4), name="THALAMUS_LEFT")


def write_run(folder: Path, subject: int, film: str, repeat: int, volumes: np.ndarray) -> None:
    """``volumes`` (245 or 246, cortical columns); the subcortical columns hold a number no test expects."""
    path = folder / f"Subject0{subject}/video_fmri_dataset/subject{subject}/fmri/{film}/cifti"
    path.mkdir(parents=True, exist_ok=True)
    data = np.concatenate([volumes, np.full((len(volumes), 6), 9e9)], axis=1).astype(np.float32)
    axes = (SeriesAxis(0, 2, len(data), "SECOND"), brain_axis())
    nib.Cifti2Image(data, axes).to_filename(path / f"{film}_{repeat}_Atlas.dtseries.nii")


def film_pictures():
    """1440 pictures of 16 x 16, three a second: a shot's colour, and in a corner the picture's number."""
    frames = np.empty((1440, 16, 16, 3), np.uint8)
    colours = np.array([[220, 30, 30], [30, 220, 30], [30, 30, 220], [220, 220, 30]])
    for number, frame in enumerate(frames):
        frame[:] = colours[np.searchsorted(CUTS, number, side="right")]
        frame[:2, :2] = (number // 36 * 6, number % 36 * 7, 0)
    return frames


def write_film(folder: Path, film: str) -> None:
    path = folder / "Stimuli/video_fmri_dataset/stimuli"
    path.mkdir(parents=True, exist_ok=True)
    write_mp4(film_pictures(), 3, path / f"{film}.mp4", lossless=True)


def number_of(picture: np.ndarray) -> int:
    """Read back a picture's number."""
    return int(picture[0, 0, 0]) // 6 * 36 + int(picture[0, 0, 1]) // 7


def write_raw(folder: Path, rng: np.random.Generator) -> Path:
    """Subject 1: all training segments, test1 and test2. Columns 0 to 9 answer alike to both showings."""
    share = np.linspace(0, 2, 10)
    for film in TRAIN:
        common = rng.normal(size=(245, 10)) * share
        for repeat in (1, 2):
            volumes = rng.normal(size=(245, CORTEX))
            volumes[:, :10] += common
            drift = np.linspace(0, 1, 245)[:, None] ** np.arange(5) @ rng.normal(0, 20, (5, CORTEX))
            write_run(folder, 1, film, repeat, 1000 + volumes + drift)
    write_test_runs(folder, rng)
    return folder


def write_test_runs(folder: Path, rng: np.random.Generator) -> None:
    for film, num in (("test1", 245), ("test2", 246)):
        for repeat in range(1, 11):
            write_run(folder, 1, film, repeat, rng.normal(500, 3, (num, CORTEX)))
