"""What a source may hand over: the checks made before a row is stored, each with one sentence for a person."""

import numpy as np
from numpy.typing import NDArray

from cineray.core.errors import DataError
from cineray.datasets.schema import TensorSpec
from cineray.datasets.sources.base import Recording, Stimulus

__all__ = ["check_recording", "check_stimulus", "stored"]


def check_stimulus(stimulus: Stimulus, specs: dict[str, TensorSpec]) -> None:
    """Targets are those announced, of the announced shape and dtype, and finite."""
    name = f"stimulus '{stimulus.stimulus_id}'"
    if set(stimulus.targets) != set(specs):
        raise DataError(f"{name} has targets {sorted(stimulus.targets)}, the source announced {sorted(specs)}")
    if not (np.isfinite(stimulus.onset_s) and stimulus.length_s > 0):
        raise DataError(f"{name} begins at {stimulus.onset_s} s and lasts {stimulus.length_s} s; mend its times")
    for target, spec in specs.items():
        found = stimulus.targets[target]
        if found.shape != spec.shape or found.dtype != np.dtype(spec.dtype):
            raise DataError(
                f"{name} has '{target}' of {found.dtype} {found.shape}, the source announced {spec.dtype} {spec.shape}"
            )
        if found.dtype.kind == "f" and not np.isfinite(found).all():
            raise DataError(f"{name} has values in '{target}' that are not finite; mend or leave out this stimulus")


def check_recording(recording: Recording, num_voxels: int, tr_s: float) -> None:
    """Shapes agree within the run, voxels within the subject, TR within the data set; times run forward."""
    name = f"{recording.subject}, run '{recording.run}'"
    if recording.brain.ndim != 2 or not recording.brain.size:
        raise DataError(f"{name} has a brain array of shape {recording.brain.shape}, expected (scans, voxels)")
    scans, voxels = recording.brain.shape
    for what in ("onset_s", "stimulus_id", "offset_s"):
        if (found := len(getattr(recording, what))) != scans:
            raise DataError(f"{name} has {scans} scans but {found} values of {what}; they must be equal")
    if voxels != num_voxels:
        raise DataError(
            f"{name} has {voxels} voxels, an earlier run of {recording.subject} has {num_voxels}; "
            "a subject's voxels must be the same in all runs"
        )
    if not (np.isfinite(recording.tr_s) and recording.tr_s > 0):
        raise DataError(f"{name} has a TR of {recording.tr_s} s, expected a positive number")
    if not np.isclose(recording.tr_s, tr_s, rtol=1e-6, atol=0):
        raise DataError(
            f"{name} has a TR of {recording.tr_s:g} s, earlier runs have {tr_s:g} s; ingest them as separate data sets"
        )
    if not np.isfinite(recording.onset_s).all() or (np.diff(recording.onset_s) <= 0).any():
        raise DataError(f"{name} has scan times that are not finite or do not increase; sort its scans")


def stored(recording: Recording, dtype: str) -> NDArray[np.floating]:
    """(scans, voxels) in the dtype of the shards; refuses what does not fit."""
    brain = np.asarray(recording.brain)
    name = f"{recording.subject}, run '{recording.run}'"
    bad = ~np.isfinite(brain)
    if bad.any():
        scan, voxel = np.argwhere(bad)[0]
        raise DataError(
            f"{name} has {bad.sum()} values that are not finite (first: scan {scan}, voxel {voxel}); mend or drop them"
        )
    with np.errstate(over="ignore"):
        fitted = brain.astype(dtype)
    if not np.isfinite(fitted).all():
        raise DataError(
            f"{name} reaches {np.abs(brain).max():.4g}, expected at most {np.finfo(dtype).max:.0f} ({dtype}); "
            "set signal.zscore=run"
        )
    return fitted
