"""NSD as the MindEye releases hold it: betas already scaled, and tars of samples (WebDataset)."""

import io
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from cineray.core.errors import DataError
from cineray.datasets.sources.betas import Session
from cineray.datasets.sources.files import readable
from cineray.datasets.sources.nsd_layouts import Picture, hdf5_rows, stored_pictures

__all__ = ["MindEye1", "MindEye2", "tar_samples"]

MAX_MEMBER_BYTES = 1 << 28
"""Largest file of a sample read: the largest there are, three brains, have 200 kB."""

IMAGE, SESSION, TRIAL, SHARED = 0, 2, 5, 16
"""Columns of ``behav.npy``: picture from 0, session, trial of the whole experiment from 0, whether it is shared."""

NUM_COLUMNS = 17

UNKNOWN_PLACES = {"roi": "nsdgeneral", "order": "that of the release, which does not state it"}


@dataclass(frozen=True)
class MindEye2:
    """``pscotti/mindeyev2``: one array of betas a subject, one of pictures, and tars that say which trial is which."""

    folder: Path
    wanted: tuple[int, ...]
    """Sessions to read; empty means all."""

    default_norm = "none"
    preprocessing = "betas_fithrf, z-scored upstream over the trials of a session, those of the test set among them"

    def subjects(self) -> list[str]:
        """Subjects with an array of betas."""
        return sorted(path.name[10:16] for path in self.folder.glob("betas_all_subj0[1-8]_fp32_renorm.hdf5"))

    def sessions(self, subject: str) -> Iterator[Session]:
        """The trials that the tars list, by session and in order of time."""
        behav, is_shared = self._behav(subject)
        path = self.folder / f"betas_all_{subject}_fp32_renorm.hdf5"
        known = sorted({int(number) for number in behav[:, SESSION]})
        if missing := [number for number in self.wanted if number not in known]:
            raise DataError(f"the tars of {subject} have no session {missing[0]}; they have {known[0]} to {known[-1]}")
        for number in self.wanted or known:
            rows = np.flatnonzero(behav[:, SESSION] == number)
            rows = rows[np.argsort(behav[rows, TRIAL])]
            trial = behav[rows, TRIAL].astype(np.int64)
            yield Session(
                run=f"session{number:02d}",
                repeat=0,
                stimulus=behav[rows, IMAGE].astype(np.int64),
                is_test=is_shared[rows],
                load=lambda at=trial: hdf5_rows(path, "betas", int(at[0]), int(at[-1]) + 1)[at - at[0]],
            )

    def pictures(self, subjects: Sequence[str]) -> Iterator[Picture]:
        """The shared ones, then the private ones, each in the order of their numbers."""
        yield from stored_pictures(
            [session for subject in subjects for session in self.sessions(subject)],
            self.folder / "coco_images_224_float16.hdf5",
            "images",
            lambda pixels: np.rint(pixels.astype(np.float32).transpose(1, 2, 0) * 255).astype(np.uint8),
        )

    def voxels(self, subject: str) -> Mapping[str, object]:
        """Not stated by the release."""
        return UNKNOWN_PLACES

    def _behav(self, subject: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """(trials, columns) of every sample, and whether it comes from the test set."""
        folder = self.folder / "wds" / subject
        paths = [*_tars(folder / "train", "*.tar"), *_tars(folder / "new_test", "0.tar")]
        rows, is_test = [], []
        for path in paths:
            for name, sample in tar_samples(path):
                row = _array(sample, "behav.npy", f"{path.name}, sample {name}").reshape(-1)
                if len(row) != NUM_COLUMNS:
                    raise DataError(f"{path.name}, sample {name} has {len(row)} columns of behav.npy, expected 17")
                rows.append(row.astype(np.float64))
                is_test.append(path.parent.name == "new_test")
        behav, is_shared = np.stack(rows), np.array(is_test)
        if (wrong := (behav[:, SHARED] == 1) != is_shared).any():
            raise DataError(
                f"{wrong.sum()} samples of {subject} lie in the wrong tar by their column shared1000 (first: trial "
                f"{behav[wrong][0, TRIAL]:g}); fetch wds/{subject} again"
            )
        if len(np.unique(behav[:, TRIAL])) < len(behav) or behav[:, [IMAGE, TRIAL]].min() < 0:
            raise DataError(f"the tars of {subject} list a trial twice or below 0; fetch wds/{subject} again")
        return behav, is_shared


@dataclass(frozen=True)
class MindEye1:
    """``pscotti/naturalscenesdataset``, webdataset_avg_split: samples of a picture with the three brains that saw it.

    Where a picture was seen less than three times the release repeats a brain: such a copy is no trial and is left
    out. A session is one tar and one of the three.
    """

    folder: Path

    default_norm = "none"
    preprocessing = "betas z-scored upstream by session, by a script that was not released"

    def subjects(self) -> list[str]:
        """Subjects with a training tar."""
        return sorted({path.name[6:12] for path in (self.folder / "train").glob("train_subj0[1-8]_*.tar")})

    def sessions(self, subject: str) -> Iterator[Session]:
        """Training tars, the former validation tar, test tars; of each the first, second and third brains."""
        for part, path in self._paths(subject):
            images, brains = [], []
            for name, sample in tar_samples(path):
                where = f"{path.name}, {name}"
                images.append(int(_array(sample, "coco73k.npy", where).reshape(-1)[0]))
                brains.append(_array(sample, "nsdgeneral.npy", where))
            if len({brain.shape for brain in brains}) != 1 or brains[0].ndim != 2:
                raise DataError(
                    f"{path.name} has brains of unequal shape, expected (3, voxels) in each; fetch it again"
                )
            image, stack = np.array(images), np.stack(brains).astype(np.float32)
            for repeat in range(stack.shape[1]):
                is_copy = (stack[:, :repeat] == stack[:, repeat : repeat + 1]).all(2).any(1)
                if not is_copy.all():
                    yield Session(
                        run=f"{path.stem}_repeat{repeat}",
                        repeat=repeat,
                        stimulus=image[~is_copy],
                        is_test=np.full(int((~is_copy).sum()), part == "test"),
                        load=lambda rows=stack[~is_copy, repeat]: rows,
                    )

    def pictures(self, subjects: Sequence[str]) -> Iterator[Picture]:
        """In the order of the tars."""
        seen: dict[int, bool] = {}
        for part, path in (pair for subject in subjects for pair in self._paths(subject)):
            for name, sample in tar_samples(path):
                where, is_shared = f"{path.name}, {name}", part == "test"
                image = int(_array(sample, "coco73k.npy", where).reshape(-1)[0])
                if image not in seen:
                    yield Picture(image, is_shared, lambda sample=sample, where=where: _decoded(sample, where))
                elif seen[image] != is_shared:
                    raise DataError(f"{where} shows picture {image} in test and in training; fetch the tars again")
                seen[image] = is_shared

    def voxels(self, subject: str) -> Mapping[str, object]:
        """Not stated by the release."""
        return UNKNOWN_PLACES

    def _paths(self, subject: str) -> Iterator[tuple[str, Path]]:
        for part in ("train", "val", "test"):
            for path in _tars(self.folder / part, f"{part}_{subject}_*.tar"):
                yield part, path


def tar_samples(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(name, ending -> bytes) of each sample: neighbouring files of a tar whose names agree up to the first dot."""

    def members(tar: tarfile.TarFile) -> Iterator[tuple[str, str, bytes]]:
        for member in tar:
            if member.isfile() and (content := tar.extractfile(member)):
                if member.size > MAX_MEMBER_BYTES:
                    raise ValueError(f"{member.name} has {member.size} bytes, expected a sample")
                stem, _, ending = member.name.rpartition("/")[2].partition(".")
                yield stem, ending, content.read()

    with readable(path, tarfile.TarError), tarfile.open(path, "r|") as tar:
        for name, files in groupby(members(tar), key=lambda found: found[0]):
            yield name, {ending: content for _, ending, content in files}


def _tars(folder: Path, pattern: str) -> list[Path]:
    """Files in the order of their numbers."""
    paths = sorted(folder.glob(pattern), key=lambda path: int(path.stem.rpartition("_")[2]))
    if not paths:
        raise DataError(f"{folder} has no {pattern}; fetch them, or correct source.folder")
    return paths


def _array(sample: Mapping[str, bytes], ending: str, where: str) -> NDArray:
    """One of a sample's arrays; nothing is unpickled."""
    if ending not in sample:
        raise DataError(f"{where} has no {ending}; it has {', '.join(sample)}")
    try:
        found = np.load(io.BytesIO(sample[ending]), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{ending} of {where} cannot be read ({error}); fetch the tar again") from None
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "biuf" or not found.size:
        raise DataError(f"{ending} of {where} holds no numbers; fetch the tar again")
    return found


def _decoded(sample: Mapping[str, bytes], where: str) -> NDArray[np.uint8]:
    """The picture of a sample, jpg or png."""
    data = sample.get("jpg") or sample.get("png")
    if data is None:
        raise DataError(f"{where} has neither jpg nor png; it has {', '.join(sample)}")
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise DataError(f"the picture of {where} cannot be read ({error}); fetch the tar again") from None
