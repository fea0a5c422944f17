"""Means and standard deviations of the training rows, and nothing else; part of every checkpoint."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cineray.datasets.dataset import Dataset
from cineray.datasets.examples import Examples

__all__ = ["Moments", "Normaliser", "moments"]

CHUNK_BYTES = 8 << 20
"""Rows read together while summing: a few megabytes whatever a row weighs."""

FLAT = 1e-7
"""A value whose sd is below this share of its mean is constant up to rounding; it is centred but not scaled."""


@dataclass(frozen=True)
class Moments:
    """Element-wise mean and standard deviation (ddof 0) of one kind of row, float32."""

    mean: Tensor
    sd: Tensor

    def scale(self, x: Tensor) -> Tensor:
        """Raw rows of any dtype to z-scores in float32."""
        return x.to(torch.float32, copy=True).sub_(self.mean).div_(self.sd)

    def restore(self, z: Tensor) -> Tensor:
        """The inverse of `scale`."""
        return z * self.sd + self.mean

    def to(self, device: torch.device | str) -> "Moments":
        """The same numbers on another device."""
        return Moments(self.mean.to(device), self.sd.to(device))


@dataclass(frozen=True)
class Normaliser:
    """What the raw rows of one split's training set look like."""

    brain: Mapping[str, Moments]
    """Subject -> moments (voxels,) over its training rows; a subject without any is left as it is stored."""
    targets: Mapping[str, Moments]
    """Target -> moments of one row's shape over the distinct stimuli of the training rows."""

    @classmethod
    def fit(cls, dataset: Dataset, train: Examples, targets: Iterable[str]) -> "Normaliser":
        """Read the training rows once, a few megabytes at a time."""
        brain = {}
        for subject in train.subjects:
            voxels = dataset.num_voxels[subject]
            rows = (train.rows(numbers) for numbers in train.chunks(train.numbers_of(subject)))
            parts = (dataset.gather_samples(part) for part in _cut(rows, 2 * voxels))
            brain[subject] = moments(parts, (voxels,))
        specs, seen = dataset.target_specs, _stimuli_of(dataset, train)
        found = {}
        for name in targets:
            parts = (dataset.gather_stimuli(name, part) for part in _cut([seen], specs[name].num_bytes))
            found[name] = moments(parts, specs[name].shape)
        return cls(brain, found)

    def state(self) -> dict[str, Tensor]:
        """Tensors by name, for a checkpoint."""
        kinds = {"brain": self.brain, "targets": self.targets}
        return {
            f"{kind}/{name}/{which}": getattr(pair, which)
            for kind, pairs in kinds.items()
            for name, pair in pairs.items()
            for which in ("mean", "sd")
        }

    @classmethod
    def of_state(cls, state: Mapping[str, Tensor]) -> "Normaliser":
        """Read back what `state` wrote."""
        found: dict[str, dict[str, Moments]] = {"brain": {}, "targets": {}}
        for key in state:
            kind, _, rest = key.partition("/")
            name, _, which = rest.rpartition("/")
            if which == "mean":
                found[kind][name] = Moments(state[key], state[f"{kind}/{name}/sd"])
        return cls(**found)

    def to(self, device: torch.device | str) -> "Normaliser":
        """The same numbers on another device."""
        return Normaliser(
            {name: pair.to(device) for name, pair in self.brain.items()},
            {name: pair.to(device) for name, pair in self.targets.items()},
        )


def moments(parts: Iterable[NDArray], shape: tuple[int, ...]) -> Moments:
    """Moments over the first axis of all parts together, in float64 (Chan, Golub & LeVeque 1979); 0 and 1 of none."""
    count, mean, square = 0, np.zeros(shape), np.zeros(shape)
    for part in parts:
        x = part.astype(np.float64)
        ours, total = x.mean(0), count + len(x)
        square += np.square(x - ours).sum(0) + np.square(ours - mean) * (count * len(x) / total)
        mean += (ours - mean) * (len(x) / total)
        count = total
    sd = np.sqrt(square / count) if count else np.ones(shape)
    sd[~(sd > FLAT * np.abs(mean))] = 1.0
    return Moments(torch.from_numpy(mean).float(), torch.from_numpy(sd).float())


def _stimuli_of(dataset: Dataset, examples: Examples) -> NDArray[np.int64]:
    """Distinct stimulus rows, ascending."""
    mask = np.zeros(dataset.num_stimuli, bool)
    for numbers in examples.chunks():
        mask[dataset.gather_stimulus_rows(examples.rows(numbers))] = True
    return np.flatnonzero(mask)


def _cut(rows: Iterable[NDArray[np.int64]], row_bytes: int) -> Iterator[NDArray[np.int64]]:
    """Row numbers in parts of about `CHUNK_BYTES`."""
    size = max(1, CHUNK_BYTES // row_bytes)
    for part in rows:
        for first in range(0, len(part), size):
            yield part[first : first + size]
