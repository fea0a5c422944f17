"""A finished run as one callable: recording in, predictions and ranked clips out. Knows no server.

Windows, scaling and model are those of training (`cineray.datasets.stream`), so a held-out run decoded here gives the
numbers of `cineray eval`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cineray.core.errors import DataError
from cineray.core.storage import Store
from cineray.datasets.dataset import Dataset
from cineray.datasets.manifest import require_data
from cineray.datasets.normaliser import Moments, Normaliser
from cineray.datasets.view import Window
from cineray.serving.card import Card
from cineray.serving.gallery import Gallery
from cineray.serving.tensors import StoredTensors
from cineray.training.checkpoint import best, read_manifest
from cineray.training.models.base import Sizes, subject_of
from cineray.training.predict import read_run
from cineray.training.resume import require_settings
from cineray.training.run import Run

__all__ = ["Pipeline", "SubjectDecoder", "windows"]

STEP_BYTES = 64 << 20
"""Windows decoded together; longer recordings take several steps."""


@dataclass(frozen=True)
class SubjectDecoder:
    """The shared model with one subject's own layers."""

    subject: str
    model: nn.Module
    targets: tuple[str, ...]
    """Outputs that are predictions; others, as the retrieval head's embedding, were for the losses."""
    window: Window
    moments: Moments | None
    """Of the subject's training rows; None where the run did not normalise."""
    device: torch.device

    @torch.inference_mode()
    def predict(self, recordings: Sequence[NDArray[np.floating]]) -> list[dict[str, NDArray[np.float32]]]:
        """Recordings (scans, voxels) to target -> (scans, ...), decoded together.

        Each recording is one run: its ends are repeated where a window reaches past them.
        """
        lengths = [len(x) for x in recordings]
        starts = np.cumsum([0, *lengths[:-1]])
        rows = [start + windows(n, self.window) for start, n in zip(starts, lengths, strict=True)]
        whole = self._decode(np.concatenate(recordings), np.concatenate(rows), self.targets)
        return [
            {name: values[start : start + n].numpy() for name, values in whole.items()}
            for start, n in zip(starts, lengths, strict=True)
        ]

    @torch.inference_mode()
    def at(self, recording: NDArray[np.floating], scans: NDArray[np.int64], target: str) -> Tensor:
        """A target at some scans of one recording (scans, voxels): (len(scans), ...) float32 on the CPU."""
        return self._decode(recording, windows(len(recording), self.window)[scans], (target,))[target]

    def _decode(
        self, brain: NDArray[np.floating], windows: NDArray[np.int64], targets: Sequence[str]
    ) -> dict[str, Tensor]:
        """(scans, voxels) and (rows, window) scan numbers to target -> (rows, ...) float32 on the CPU."""
        x = self._scaled(brain)
        size = max(1, STEP_BYTES // (4 * self.window.scans * x.shape[1]))
        parts = torch.from_numpy(windows).to(self.device).split(size)
        steps = [self.model({self.subject: x[part]}) for part in parts]
        return {name: torch.cat([step[name] for step in steps]).float().cpu() for name in targets}

    def _scaled(self, brain: NDArray[np.floating]) -> Tensor:
        x = torch.from_numpy(np.ascontiguousarray(brain)).to(self.device)
        return x.to(torch.float32) if self.moments is None else self.moments.scale(x)


@dataclass(frozen=True)
class Pipeline:
    """Everything that is shared by all subjects, and the way to each subject's own layers."""

    run: Run
    card: Card
    sizes: Sizes
    dataset: Dataset
    weights: StoredTensors
    moments: StoredTensors
    trunk: Mapping[str, Tensor]
    """Shared weights, used by every `SubjectDecoder` without a copy."""
    normaliser: Normaliser | None
    """Moments of the targets only, None where all are raw; a subject's come with its layers."""
    device: torch.device

    @classmethod
    def open(
        cls, run_dir: str, *, dataset_url: str | None = None, step: int | None = None, device: str = "cpu"
    ) -> Self:
        """Load a run folder (or ``s3://`` prefix) without any subject's layers.

        Args:
            dataset_url: where the data set of the run is now; None is where it was trained.
            step: checkpoint to serve; None is the one with the least validation loss.

        Raises:
            ConfigError: ``run.yaml`` is not what the checkpoint was trained with, or the data set is another one.
        """
        store = Store.at(run_dir)
        run = read_run(store)
        manifest = read_manifest(store, best(store) if step is None else step)
        require_settings(run, manifest, store)
        sizes = Sizes(manifest.sizes.voxels, manifest.sizes.scans, manifest.sizes.targets)
        dataset = Dataset.open(dataset_url or run.view.dataset)
        require_data(dataset.fingerprint_of(run.view.targets), manifest.data, url=dataset.store.url, user=store.url)
        weights, moments = (StoredTensors(store, manifest, family) for family in ("weights", "normaliser"))
        where = torch.device(device)
        trunk = weights.read(name for name in weights.places if subject_of(name) is None)
        targets = Normaliser.of_state(moments.read(name for name in moments.places if name.startswith("targets/")))
        card = Card(
            run=run.name,
            fingerprint=run.fingerprint(),
            step=manifest.step,
            voxels=dict(sizes.voxels),
            targets=tuple(sizes.targets),
            tr_s=dataset.tr_s,
            clip_s=run.evaluation.clip_s,
        )
        return cls(
            run,
            card,
            sizes,
            dataset,
            weights,
            moments,
            {name: tensor.to(where) for name, tensor in trunk.items()},
            targets if targets.targets else None,
            where,
        )

    def subject(self, name: str) -> SubjectDecoder:
        """Read one subject's layers and put them on the shared trunk.

        Raises:
            DataError: the run knows no such subject.
        """
        if name not in self.sizes.voxels:
            raise DataError(f"the run has no subject of that name; it has {len(self.sizes.voxels)} others")
        own = self.weights.read(n for n in self.weights.places if subject_of(n) == name)
        with torch.device("meta"):
            model = self.run.model.build(replace(self.sizes, voxels={name: self.sizes.voxels[name]}))
        state = {**self.trunk, **{n: tensor.to(self.device) for n, tensor in own.items()}}
        model.load_state_dict(state, assign=True)
        assert not any(t.is_meta for t in (*model.parameters(), *model.buffers())), "a buffer is not in the checkpoint"
        return SubjectDecoder(
            name, model.eval(), self.card.targets, self.run.view.window, self._moments(name), self.device
        )

    def predict(self, subject: str, recording: NDArray[np.floating]) -> dict[str, NDArray[np.float32]]:
        """One run, (scans, voxels), to target -> (scans, ...)."""
        return self.subject(subject).predict([recording])[0]

    def gallery(self, target: str) -> Gallery:
        """Every stimulus of the data set, with ``target`` on the scale of the predictions."""
        table = self.dataset.stimuli(["stimulus_id", "film", "onset_s", "length_s"])
        features = self.dataset.gather_stimuli(target, np.arange(self.dataset.num_stimuli))
        if self.normaliser is not None and target in self.normaliser.targets:
            features = self.normaliser.targets[target].scale(torch.from_numpy(features)).numpy()
        ids, films = table["stimulus_id"].to_pylist(), table["film"].to_pylist()
        return Gallery(ids, films, table["onset_s"].to_numpy(), table["length_s"].to_numpy(), features, self.card.tr_s)

    def _moments(self, subject: str) -> Moments | None:
        names = [f"brain/{subject}/{which}" for which in ("mean", "sd")]
        if not set(names) <= set(self.moments.places):
            return None
        mean, sd = self.moments.read(names).values()
        return Moments(mean, sd).to(self.device)


def windows(num_scans: int, window: Window) -> NDArray[np.int64]:
    """(scans, window) scan numbers around each scan; past the ends of the run its outermost scan again."""
    around = np.arange(num_scans)[:, None] + np.arange(window.first, window.last + 1)
    return around.clip(0, num_scans - 1)
