"""Runs and atlases out of NIfTI, CIFTI and GIFTI files, on one description of where each column lies."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.parsers.expat import ExpatError

import nibabel as nib
import numpy as np
from nibabel.cifti2 import BrainModelAxis, LabelAxis, SeriesAxis
from nibabel.filebasedimages import ImageFileError
from nibabel.gifti import GiftiImage
from numpy.typing import NDArray

from cineray.core.errors import DataError
from cineray.datasets.sources.files import MAX_GB, readable

__all__ = ["Atlas", "Grid", "Series", "ranges", "read_atlas", "read_series"]

SURFACES = {"CIFTI_STRUCTURE_CORTEX_LEFT": 1, "CIFTI_STRUCTURE_CORTEX_RIGHT": 2}
"""Surfaces that can be told apart; 0 stands for the volume."""

HEMISPHERES = {"L": "CIFTI_STRUCTURE_CORTEX_LEFT", "R": "CIFTI_STRUCTURE_CORTEX_RIGHT"}

SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6, "unknown": 1.0}


@dataclass(frozen=True)
class Grid:
    """Where the columns of a run lie."""

    frame: Mapping[str, tuple[float, ...]]
    """Surface -> (vertices,), and ``volume`` -> its shape and affine: what indices mean."""
    place: NDArray[np.int64]
    """(columns,) surface and vertex, or voxel x, y, z, packed into one number."""

    def labels_from(self, atlas: "Atlas", where: str) -> NDArray[np.int64]:
        """(columns,) label of each column, 0 outside the atlas."""
        common = self.frame.keys() & atlas.grid.frame.keys()
        same = all(
            len(self.frame[k]) == len(atlas.grid.frame[k])
            and np.allclose(self.frame[k], atlas.grid.frame[k], atol=1e-3)
            for k in common
        )
        if not common or not same:
            raise DataError(
                f"{where} lies on {self}, its atlas on {atlas.grid}; resample one so that shape, affine and vertex "
                "counts are equal"
            )
        order = np.argsort(atlas.grid.place)
        at = np.minimum(np.searchsorted(atlas.grid.place[order], self.place), len(order) - 1)
        found = order[at]
        return np.where(atlas.grid.place[found] == self.place, atlas.value[found], 0)

    def on_surface(self) -> NDArray[np.bool_]:
        """(columns,) whether a column is a vertex of the cortex."""
        return self.place >> 56 > 0

    def __str__(self) -> str:
        sizes = (
            f"{name.removeprefix('CIFTI_STRUCTURE_').lower()} {tuple(size[:3])}" for name, size in self.frame.items()
        )
        return f"{len(self.place)} places of " + ", ".join(sizes)


@dataclass(frozen=True)
class Series:
    """One run, read when asked."""

    grid: Grid
    scans: int
    tr_s: float | None
    """None where the file does not say."""
    start_s: float
    load: Callable[[NDArray[np.int64]], NDArray[np.floating]]
    """Columns to (scans, columns)."""


@dataclass(frozen=True)
class Atlas:
    """A label for each place."""

    grid: Grid
    value: NDArray[np.int64]
    """(places,)."""
    names: Mapping[int, str]


def read_series(paths: Sequence[Path]) -> Series:
    """A run: one NIfTI or CIFTI file, or one GIFTI file a hemisphere (left, then right)."""
    with readable(paths[0], ImageFileError, ExpatError):
        if paths[0].name.endswith(".gii"):
            return _gifti_series(paths)
        image = nib.load(paths[0])
        if isinstance(image, nib.Cifti2Image):
            return _cifti_series(image)
        return _nifti_series(_nifti(image), paths[0])


def read_atlas(paths: Sequence[Path], names: Mapping[int, str]) -> Atlas:
    """Integer labels; ``names`` are used where the file brings none of its own."""
    for path in paths:
        if not path.is_file():
            raise DataError(f"there is no atlas {path}; correct source.atlas")
    with readable(paths[0], ImageFileError, ExpatError):
        if paths[0].name.endswith(".gii"):
            return _gifti_atlas(paths)
        image = nib.load(paths[0])
        if isinstance(image, nib.Cifti2Image):
            labels, brain = (image.header.get_axis(axis) for axis in (0, 1))
            own = {k: v[0] for k, v in labels.label[0].items()} if isinstance(labels, LabelAxis) else names
            return Atlas(_cifti_grid(brain), np.asarray(image.dataobj)[0].astype(np.int64), own)
        if len(image.shape) != 3:
            raise ValueError(f"it has shape {image.shape}, expected an atlas with three axes")
        image = _nifti(image)
        value = np.nan_to_num(np.asarray(image.dataobj).reshape(-1))
        return Atlas(_volume_grid(image), np.rint(value).astype(np.int64), names)


def _nifti(image: object) -> nib.Nifti1Image:
    if not isinstance(image, nib.Nifti1Image):
        raise ValueError("it is neither NIfTI nor CIFTI nor GIFTI")
    return image


def _gifti_atlas(paths: Sequence[Path]) -> Atlas:
    images = [_gifti(path) for path in paths]
    values = [np.asarray(image.darrays[0].data) for image in images]
    names: dict[int, str] = {}
    for image in images:
        for value, name in image.labeltable.get_labels_as_dict().items():
            if names.setdefault(value, name) != name:
                raise ValueError(f"label {value} is '{names[value]}' on one hemisphere and '{name}' on the other")
    return Atlas(_surface_grid(paths, [len(v) for v in values]), np.concatenate(values).astype(np.int64), names)


def _nifti_series(image: nib.Nifti1Image, path: Path) -> Series:
    if len(image.shape) != 4:
        raise ValueError(f"it has shape {image.shape}, expected four axes: x, y, z and time")
    if (size_gb := int(np.prod(image.shape, dtype=np.int64)) * 4 / 1e9) > MAX_GB:
        raise ValueError(f"its shape {image.shape} makes {size_gb:.3g} GB, expected at most {MAX_GB:g}")
    zoom = round(float(image.header["pixdim"][4]) * SECONDS.get(str(image.header.get_xyzt_units()[1]), 1.0), 6)

    def load(columns: NDArray[np.int64]) -> NDArray[np.floating]:
        with readable(path):
            return np.asarray(image.dataobj, dtype=np.float32).reshape(-1, image.shape[3])[columns].T

    return Series(_volume_grid(image), image.shape[3], zoom or None, 0.0, load)


def _cifti_series(image: nib.Cifti2Image) -> Series:
    series, brain = (image.header.get_axis(axis) for axis in (0, 1))
    if not isinstance(series, SeriesAxis) or not isinstance(brain, BrainModelAxis):
        raise ValueError("its axes are not a time series over a brain")
    tr_s, start_s = (round(float(x), 6) if series.unit == "SECOND" else None for x in (series.step, series.start))
    return Series(
        _cifti_grid(brain), image.shape[0], tr_s, start_s or 0.0, lambda columns: np.asarray(image.dataobj)[:, columns]
    )


def _gifti_series(paths: Sequence[Path]) -> Series:
    images = [_gifti(path) for path in paths]
    halves = [np.stack([array.data for array in image.darrays]) for image in images]
    if len({len(half) for half in halves}) > 1:
        raise ValueError("the hemispheres differ in scans")
    brain = np.concatenate(halves, axis=1)
    step = images[0].darrays[0].meta.get("TimeStep")  # GIFTI gives milliseconds
    tr_s = round(float(step) / 1000, 6) if step else None
    grid = _surface_grid(paths, [half.shape[1] for half in halves])
    return Series(grid, len(brain), tr_s, 0.0, lambda columns: brain[:, columns])


def _gifti(path: Path) -> GiftiImage:
    image = nib.load(path)
    if not isinstance(image, GiftiImage) or not image.darrays:
        raise ValueError("it holds no data array")
    return image


def _surface_grid(paths: Sequence[Path], vertices: Sequence[int]) -> Grid:
    """Hemispheres from the ``hemi-`` part of the names."""
    frame: dict[str, tuple[float, ...]] = {}
    places = []
    for path, count in zip(paths, vertices, strict=True):
        hemisphere = path.name.partition("hemi-")[2][:1]
        if hemisphere not in HEMISPHERES:
            raise ValueError("its name does not say hemi-L or hemi-R")
        surface = HEMISPHERES[hemisphere]
        frame[surface] = (count,)
        places.append(_packed(SURFACES[surface], np.arange(count)))
    return Grid(frame, np.concatenate(places))


def _volume_grid(image: nib.Nifti1Image) -> Grid:
    shape = image.shape[:3]
    frame = {"volume": (*shape, *map(float, np.asarray(image.affine).ravel()))}
    return Grid(frame, _packed(0, *np.unravel_index(np.arange(int(np.prod(shape))), shape)))


def _cifti_grid(brain: BrainModelAxis) -> Grid:
    frame: dict[str, tuple[float, ...]] = {str(name): (float(count),) for name, count in brain.nvertices.items()}
    if unknown := [name for name in frame if name not in SURFACES]:
        raise ValueError(f"it has the surface {unknown[0]}, expected the left and right cortex and voxels")
    place = _packed(0, *np.maximum(brain.voxel, 0).T)
    for name, number in SURFACES.items():
        here = brain.surface_mask & (brain.name == name)
        place[here] = _packed(number, brain.vertex[here])
    if brain.volume_shape is not None and brain.affine is not None:
        frame["volume"] = (*brain.volume_shape, *map(float, brain.affine.ravel()))
    return Grid(frame, place)


def _packed(
    surface: int, x: NDArray[np.integer], y: NDArray[np.integer] | int = 0, z: NDArray[np.integer] | int = 0
) -> NDArray[np.int64]:
    """One number a place: 8 bits of surface, 24 of vertex or x, 16 of y, 16 of z."""
    return (surface << 56) | (np.asarray(x, np.int64) << 32) | (np.asarray(y, np.int64) << 16) | np.asarray(z, np.int64)


def ranges(columns: NDArray[np.int64]) -> list[list[int]]:
    """Ascending numbers as half-open ranges."""
    breaks = np.flatnonzero(np.diff(columns) != 1) + 1
    return [[int(part[0]), int(part[-1]) + 1] for part in np.split(columns, breaks)]
