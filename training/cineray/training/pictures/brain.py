"""Brain correlation: would the reconstruction have driven the brain as the truth did?"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cineray.core.errors import DataError
from cineray.training.backbones import Backbone
from cineray.training.pictures.bank import Pairing
from cineray.training.pictures.base import Networks, VideoMetric, always, mean_features

__all__ = ["BRAIN_METRICS", "Brain", "brain_correlation", "repeat_average"]

ROIS = ("nsd_general", "V1", "V2", "V3", "V4", "higher_vis")
"""Masks of the published table."""


@dataclass(frozen=True, eq=False)
class Brain:
    """One subject's responses and the model that predicts them from pictures."""

    encoder: Backbone
    """Its embedding is the predicted response of every voxel."""
    measured: NDArray[np.float64]
    """(stimuli, voxels) mean over the repeats of a stimulus; NaN where the subject did not see it."""
    masks: Mapping[str, NDArray[np.bool_]]
    """Region -> (voxels,)."""


def brain_correlation(predicted: NDArray[np.floating], measured: NDArray[np.floating]) -> float:
    """Pearson over the voxels (voxels,) of one stimulus (MindEye2); 0 where all voxels are predicted alike.

    NaN where nothing was measured.

    Measured responses are averaged over repeats and not corrected for the noise that is left: the truth's own line, the
    prediction from the true pictures, is what can be reached.
    """
    p, m = predicted - predicted.mean(), measured - measured.mean()
    scale = np.linalg.norm(p) * np.linalg.norm(m)
    return 0.0 if scale == 0 else float(p @ m / scale)


def repeat_average(responses: NDArray[np.floating], shown: NDArray[np.int64], num_stimuli: int) -> NDArray[np.float64]:
    """(trials, voxels) and the stimulus of each trial to (stimuli, voxels); NaN where a stimulus has no trial."""
    count = np.bincount(shown, minlength=num_stimuli)[:, None]
    total = np.zeros((num_stimuli, responses.shape[1]))
    np.add.at(total, shown, np.asarray(responses, np.float64))
    return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)


def _brain_corr(roi: str | None) -> VideoMetric:
    def values(pairing: Pairing, networks: Networks) -> NDArray[np.float64]:
        brain: Brain = pairing.brain
        predicted = mean_features(pairing.predicted, brain.encoder)
        if predicted.shape[1] != brain.measured.shape[1]:
            raise DataError(
                f"{brain.encoder.name} predicts {predicted.shape[1]} voxels, found {brain.measured.shape[1]} measured; "
                "name the encoding model of this subject and data set"
            )
        mask = slice(None) if roi is None else brain.masks[roi]
        return pairing.each(lambda p, m: brain_correlation(p[mask], m[mask]), list(predicted), list(brain.measured))

    where = "all voxels" if roi is None else roi
    return VideoMetric(
        f"brain_corr@{roi}" if roi else "brain_corr",
        f"correlation over {where} of predicted and measured response, repeats averaged",
        "brain",
        values,
        always(0.0),
        roi=roi,
    )


BRAIN_METRICS = (_brain_corr(None), *(_brain_corr(roi) for roi in ROIS))
