"""One target of a trained run, predicted for single clips in the units it is stored in."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cineray.core.config import Config
from cineray.core.errors import ConfigError, DataError
from cineray.datasets.dataset import Dataset
from cineray.serving.clips import Clip
from cineray.serving.generators.accepts import Accepts
from cineray.serving.pipeline import Pipeline, SubjectDecoder

__all__ = ["Output", "OutputConfig"]


class OutputConfig(Config):
    """A trained run, and the target it is asked for."""

    run_dir: str
    target: str

    def build(self, *, device: str) -> "Output":
        """Open the run.

        Raises:
            ConfigError: it does not predict the target.
        """
        pipeline = Pipeline.open(self.run_dir, device=device)
        if self.target not in pipeline.card.targets:
            raise ConfigError(
                f"{self.run_dir} predicts {', '.join(pipeline.card.targets)}, the settings ask it for "
                f"'{self.target}'; name one of its targets, or another run"
            )
        return Output(pipeline, self.target)


@dataclass
class Output:
    """Keeps the layers of the last subject: recordings come subject by subject. Not thread-safe."""

    pipeline: Pipeline
    target: str
    _decoder: SubjectDecoder | None = field(default=None, repr=False)

    @property
    def dataset(self) -> Dataset:
        """What the run was trained on."""
        return self.pipeline.dataset

    def require_same_split(self, other: Self) -> None:
        """A clip that one run holds out and the other was trained on would be reconstructed from memory."""
        ours, theirs = self.pipeline, other.pipeline
        kinds = {
            "another data set": (ours.dataset.fingerprint, theirs.dataset.fingerprint),
            "another split": (ours.run.view.split, theirs.run.view.split),
        }
        for what, (expected, found) in kinds.items():
            if found != expected:
                raise ConfigError(
                    f"{theirs.weights.store.url} was trained on {what} than {ours.weights.store.url}, expected the "
                    "same; train one of them again"
                )

    def require(self, accepts: Accepts) -> None:
        """A `ConfigError` where the target is none that the part reads as it is meant."""
        accepts.require(self.target, self.dataset.target_specs[self.target])

    def predict(self, recording: NDArray[np.floating], clips: Sequence[Clip]) -> Tensor:
        """Clips of one recording (scans, voxels) to (clips, ...) float32.

        Raises:
            DataError: the run does not know the subject, or the recording has other voxels than the subject had.
        """
        (subject,) = {clip.subject for clip in clips}
        if self._decoder is None or self._decoder.subject != subject:
            self._decoder = self.pipeline.subject(subject)
        voxels = self.pipeline.sizes.voxels[subject]
        if recording.ndim != 2 or recording.shape[1] != voxels:
            raise DataError(
                f"found a recording of shape {recording.shape}, expected (scans, {voxels}) for {subject}; "
                "mask and prepare it as the data set was"
            )
        values = self._decoder.at(recording, np.array([clip.scan for clip in clips]), self.target)
        known = self.pipeline.normaliser.targets if self.pipeline.normaliser else {}
        return known[self.target].restore(values.to(self.pipeline.device)).cpu() if self.target in known else values

    def tokens(self, recording: NDArray[np.floating], clips: Sequence[Clip]) -> Tensor:
        """`predict` of a target (dim,) or (..., dim), as (clips, tokens, dim)."""
        values = self.predict(recording, clips)
        return values.reshape(len(values), -1, values.shape[-1])
