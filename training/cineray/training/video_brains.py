"""The responses and the encoding model of one subject, for brain correlation."""

from collections.abc import Sequence

import h5py
import numpy as np
from numpy.typing import NDArray

from cineray.core.errors import DataError
from cineray.datasets.dataset import Dataset
from cineray.training.pictures.brain import Brain, repeat_average
from cineray.training.video_settings import EncodingConfig

__all__ = ["read_brain"]


def read_brain(
    dataset: Dataset, subject: str, stimulus_ids: Sequence[str], config: EncodingConfig | None
) -> Brain | None:
    """None where no encoding model is named for the subject.

    Responses are the samples paired with each of ``stimulus_ids``, as the data set stores them, averaged over showings.
    """
    if config is None:
        return None
    row_of = {name: row for row, name in enumerate(dataset.stimuli(["stimulus_id"])["stimulus_id"].to_pylist())}
    number = np.full(dataset.num_stimuli, -1)
    number[[row_of[name] for name in stimulus_ids]] = np.arange(len(stimulus_ids))
    rows = np.concatenate([np.array(run.rows, np.int64) for run in dataset.runs if run.subject == subject])
    stimulus = dataset.gather_stimulus_rows(rows)
    shown = np.where(stimulus >= 0, number[stimulus], -1)
    rows, shown = rows[shown >= 0], shown[shown >= 0]
    measured = repeat_average(dataset.gather_samples(rows), shown, len(stimulus_ids))
    return Brain(config.network.build(), measured, _masks(config, subject, measured.shape[1]))


def _masks(config: EncodingConfig, subject: str, num_voxels: int) -> dict[str, NDArray[np.bool_]]:
    """Every data set of the subject's group, the layout of MindEye2's brain_region_masks.hdf5."""
    if config.masks_file is None:
        return {}
    group = config.masks_group or subject
    with h5py.File(config.masks_file) as file:
        if group not in file:
            raise DataError(f"{config.masks_file} has no group '{group}', expected one of {', '.join(file)}")
        masks = {name: np.asarray(values).astype(bool).ravel() for name, values in file[group].items()}
    for name, mask in masks.items():
        if len(mask) != num_voxels:
            raise DataError(
                f"{config.masks_file}: mask '{name}' of '{group}' has {len(mask)} voxels, {subject} has {num_voxels}"
            )
        if not mask.any():
            raise DataError(f"{config.masks_file}: mask '{name}' of '{group}' has no voxel, expected some; remove it")
    return masks
