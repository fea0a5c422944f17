"""NSD as its bucket holds it, and what every layout of it must give: sessions of trials, and pictures."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import h5py
import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from numpy.typing import NDArray

from cineray.core.errors import DataError
from cineray.datasets.sources.betas import Session
from cineray.datasets.sources.files import headers, read_array, readable

__all__ = ["NsdLayout", "Picture", "PublicNsd", "hdf5_rows", "stored_pictures", "subject_number"]

SESSION_TRIALS = 750

PERCENT = 300.0
"""Betas are stored as integers: percent signal change times this."""


@dataclass(frozen=True)
class Picture:
    """One of the 73,000 pictures."""

    image: int
    is_shared: bool
    load: Callable[[], NDArray[np.uint8]]
    """(height, width, 3)."""


class NsdLayout(Protocol):
    """Where a release of NSD keeps what."""

    @property
    def default_norm(self) -> str:
        """What makes its betas z-scores: ``none`` where they are."""
        ...

    @property
    def preprocessing(self) -> str:
        """What was done to the betas upstream."""
        ...

    def subjects(self) -> list[str]:
        """Subjects it has, as ``subj01``."""
        ...

    def sessions(self, subject: str) -> Iterator[Session]:
        """A subject's trials, in order: stimulus = row of the picture, from 0; the shared pictures are the test."""
        ...

    def pictures(self, subjects: Sequence[str]) -> Iterator[Picture]:
        """Each picture that any of them saw, once."""
        ...

    def voxels(self, subject: str) -> Mapping[str, object]:
        """Where each voxel lies, as far as is known."""
        ...


@dataclass(frozen=True)
class PublicNsd:
    """The bucket ``natural-scenes-dataset``: session files, the region of interest, the design and the pictures."""

    folder: Path
    product: str
    roi: str
    wanted: tuple[int, ...]
    """Sessions to read; empty means all there are."""

    default_norm = "session"
    preprocessing = "GLMsingle betas by session, in percent signal change (the files hold 300 times that)"

    def subjects(self) -> list[str]:
        """Subjects with a folder of betas."""
        return sorted(path.name for path in (self.folder / "nsddata_betas" / "ppdata").glob("subj0[1-8]"))

    def sessions(self, subject: str) -> Iterator[Session]:
        """One a file, in order of their numbers."""
        images, is_shared = self._trials(subject)
        for number, path in sorted(self._files(subject).items()):
            rows = slice((number - 1) * SESSION_TRIALS, number * SESSION_TRIALS)
            if rows.stop > len(images):
                raise DataError(
                    f"{path.name} is session {number}, the design has {len(images) // SESSION_TRIALS} sessions of "
                    f"{SESSION_TRIALS} trials; correct its name"
                )
            yield Session(
                run=f"session{number:02d}",
                repeat=0,
                stimulus=images[rows],
                is_test=is_shared[rows],
                load=lambda path=path: _betas(path, self._mask(subject)),
            )

    def pictures(self, subjects: Sequence[str]) -> Iterator[Picture]:
        """The shared ones, then the private ones, each in the order of their numbers."""
        path = self.folder / "nsddata_stimuli" / "stimuli" / "nsd" / "nsd_stimuli.hdf5"
        yield from stored_pictures(
            [session for subject in subjects for session in self.sessions(subject)],
            path,
            "imgBrick",
            lambda pixels: pixels,
        )

    def voxels(self, subject: str) -> Mapping[str, object]:
        """Voxels of the mask in C order of (x, y, z), as half-open ranges of the flat index (x * ny + y) * nz + z."""
        mask = self._mask(subject)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.ravel().astype(np.int8), [0]])))
        return {
            "roi": self.roi,
            "shape_xyz": list(mask.shape),
            "order": "C order of x, y, z",
            "flat_index_ranges": edges.reshape(-1, 2).tolist(),
        }

    @cached_property
    def _design(self) -> dict[str, NDArray[np.int64]]:
        path = self.folder / "nsddata" / "experiments" / "nsd" / "nsd_expdesign.mat"
        found = {name: read_array(path, name).astype(np.int64) for name in ("subjectim", "masterordering", "sharedix")}
        least, most = min(array.min() for array in found.values()), found["masterordering"].max()
        if found["subjectim"].shape[:1] != (8,) or least < 1 or most > found["subjectim"].shape[1]:
            raise DataError(
                f"{path.name} has subjectim {found['subjectim'].shape} and orders {least} to {most}, expected 8 rows "
                "and numbers that count from 1 to its columns; fetch it again"
            )
        return {name: array if name == "subjectim" else array.ravel() for name, array in found.items()}

    def _trials(self, subject: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """(trials,) picture from 0, and whether it is shared, of all trials of the experiment.

        All tables count from 1: trial t shows ``subjectim[subject, masterordering[t]]``, and the first orders are those
        of the shared pictures.
        """
        design, row = self._design, subject_number(subject) - 1
        order, num_shared = design["masterordering"], len(design["sharedix"])
        mine = design["subjectim"][row]
        if not np.array_equal(np.sort(mine[:num_shared]), np.sort(design["sharedix"])):
            raise DataError(
                f"the first {num_shared} pictures of {subject} in nsd_expdesign.mat are not those of sharedix; "
                "fetch it again"
            )
        return mine[order - 1] - 1, order <= num_shared

    def _files(self, subject: str) -> dict[int, Path]:
        """Session number -> its file."""
        folder = self.folder / "nsddata_betas" / "ppdata" / subject / "func1pt8mm" / self.product
        found = {int(path.name[13:15]): path for path in sorted(folder.glob("betas_session[0-9][0-9].*"))}
        numbers = self.wanted or tuple(found)
        if missing := [number for number in numbers if number not in found]:
            raise DataError(f"{folder} has no betas of session {missing[0]}; it has {_listed(found)}")
        if not numbers:
            raise DataError(f"{folder} has no file betas_sessionYY.hdf5 or .nii.gz; correct source.product")
        return {number: found[number] for number in numbers}

    def _mask(self, subject: str) -> NDArray[np.bool_]:
        """(x, y, z) voxels of the region: above 0 inside, -1 or 0 outside."""
        path = self.folder / "nsddata" / "ppdata" / subject / "func1pt8mm" / "roi" / f"{self.roi}.nii.gz"
        mask = np.asarray(_nifti(path).dataobj) > 0
        if mask.ndim != 3 or not mask.any():
            raise DataError(f"{path.name} has shape {mask.shape} and {mask.sum()} voxels above 0; choose another roi")
        return mask


def subject_number(subject: str) -> int:
    """``subj03`` to 3."""
    if not (subject.startswith("subj0") and subject[5:] in list("12345678")):
        raise DataError(f"found subject '{subject}', expected one of subj01 … subj08")
    return int(subject[5:])


def stored_pictures(
    sessions: Sequence[Session], path: Path, key: str, turned: Callable[[NDArray], NDArray[np.uint8]]
) -> Iterator[Picture]:
    """The pictures of some sessions out of one HDF5 array whose rows are the 73,000; ``turned`` makes a row a picture.

    The shared ones come first, then the private ones, each in the order of their numbers.
    """
    shown = {int(i): bool(s) for one in sessions for i, s in zip(one.stimulus, one.is_test, strict=True)}
    for image in sorted(shown, key=lambda image: (not shown[image], image)):
        yield Picture(image, shown[image], lambda image=image: turned(hdf5_rows(path, key, image, image + 1)[0]))


def hdf5_rows(path: Path, key: str, first: int, end: int) -> NDArray:
    """Rows [first, end) of an array in an HDF5 file."""
    header = headers(path).get(key)
    if header is None or not header.is_numeric:
        raise DataError(f"{path.name} has no array '{key}' of numbers; fetch it again")
    if end > header.shape[0]:
        raise DataError(
            f"{path.name} has {header.shape[0]} rows of '{key}', row {end - 1} is asked for; fetch it again"
        )
    with readable(path), h5py.File(path, "r") as file:
        rows = file[key]
        assert isinstance(rows, h5py.Dataset), "its header says so"
        return rows[first:end]


def _betas(path: Path, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(trials, voxels) in percent, of either kind of session file."""
    is_nifti = path.name.endswith(".nii.gz")
    found = _nifti(path).shape if is_nifti else headers(path)["betas"].shape[::-1] if "betas" in headers(path) else ()
    if found != (expected := (*mask.shape, SESSION_TRIALS)):
        raise DataError(f"{path.name} has betas of shape (x, y, z, trial) {found}, expected {expected}; fetch it again")
    with readable(path):
        # MATLAB wrote x, y, z, trial, which HDF5 shows in reverse.
        volume = np.asarray(_nifti(path).dataobj) if is_nifti else read_array(path, "betas").T
    if volume.dtype.kind not in "iu":
        raise DataError(
            f"{path.name} holds {volume.dtype}, expected the integers of the bucket (percent times {PERCENT:g}); fetch "
            "it again"
        )
    return volume[mask].T.astype(np.float32) / np.float32(PERCENT)


def _nifti(path: Path) -> nib.Nifti1Image:
    if not path.is_file():
        raise DataError(f"there is no file {path}; fetch it, or correct source.folder")
    with readable(path, ImageFileError):
        image = nib.load(path)
    if not isinstance(image, nib.Nifti1Image):
        raise DataError(f"{path.name} is no NIfTI file; fetch it again")
    return image


def _listed(numbers: Mapping[int, object]) -> str:
    return ", ".join(map(str, sorted(numbers))) or "none"
