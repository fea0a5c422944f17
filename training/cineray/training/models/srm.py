"""Shared-response model: an orthonormal map per subject into one space in which all of them agree over time.

Chen et al. 2015, "A reduced-dimension fMRI shared response model" (the deterministic form): X_s ~ S W_s' with
orthonormal W_s, solved by alternating S = mean_s X_s W_s with one Procrustes step per subject.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from cineray.core.config import Config
from cineray.core.errors import DataError
from cineray.training.models.base import Sizes, Trial
from cineray.training.models.linear import LinearDecoder, SubjectMap, align, flat_brain, flat_targets, split_targets
from cineray.training.models.ridge import choose_penalty, fit_ridge

__all__ = ["SRMConfig", "SRMDecoder", "fit_srm", "procrustes", "shared_response"]

Array = NDArray[np.floating]


def procrustes(brain: Array, shared: Array) -> Array:
    """Orthonormal (voxels, k) that takes ``brain`` (rows, voxels) closest to ``shared`` (rows, k)."""
    u, _, v = np.linalg.svd(brain.T @ shared, full_matrices=False)
    return u @ v


def fit_srm(brains: Sequence[Array], dim: int, *, iterations: int = 8, seed: int = 0) -> tuple[list[Array], Array]:
    """Maps (voxels_s, dim) of every subject and the shared response (rows, dim).

    ``brains`` are (rows, voxels_s), centred, on the same rows; voxels may differ between subjects.
    """
    rng = np.random.default_rng(seed)
    if dim > (smallest := min(min(x.shape) for x in brains)):
        raise DataError(f"an SRM of {dim} features was asked of data of rank {smallest}; lower `dim`")
    maps = [np.linalg.qr(rng.standard_normal((x.shape[1], dim)))[0].astype(x.dtype) for x in brains]
    for _ in range(iterations):
        shared = shared_response(brains, maps)
        maps = [procrustes(x, shared) for x in brains]
    return maps, shared_response(brains, maps)


def shared_response(brains: Sequence[Array], maps: Sequence[Array]) -> Array:
    """(rows, dim): mean over subjects of what their maps make of them."""
    return np.mean([x @ w for x, w in zip(brains, maps, strict=True)], axis=0)


class SRMConfig(Config):
    """Settings of the shared-response baseline."""

    name: Literal["srm"] = "srm"
    dim: int = Field(default=50, ge=1)
    iterations: int = Field(default=8, ge=1)
    seed: int = 0
    penalties: tuple[float, ...] = Field(default=(3000.0,), min_length=1)
    """Of the ridge from the shared space to the targets; several: chosen on contiguous blocks."""
    enrolled: tuple[str, ...] = ()
    """Subjects kept out of the space and of the regression; each joins by one Procrustes step, without its targets."""

    def build(self, sizes: Sizes) -> "SRMDecoder":
        """One map per subject and one read-out for all, still unsolved."""
        return SRMDecoder(self, sizes)


class SRMDecoder(LinearDecoder):
    """Subject map into the shared space, then one ridge for everybody; a subject without training rows is refused."""

    advice = "the shared space needs its scans of a training film (list it in model.enrolled to use no more than those)"

    def __init__(self, config: SRMConfig, sizes: Sizes) -> None:
        super().__init__(sizes, config.dim)
        self.config = config
        self.read_out = SubjectMap(config.dim, self.num_values)

    def forward(self, brain: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every subject's map runs, in the order of ``brain``, with zero rows if need be."""
        shared = torch.cat([self.mapped(s, rows) for s, rows in brain.items()])
        return split_targets(self.read_out(shared), self.shapes)

    def fit(self, trials: Iterable[Trial]) -> None:
        """Align on the rows that everybody has, then regress the targets on the shared space."""
        aligned = align(trials)
        places = aligned.common()
        if len(places) < 2:
            raise DataError(
                f"{len(places)} training rows are common to all subjects; an SRM needs one film seen by all"
            )
        brains, means, target = {}, {}, np.empty(0)
        for trial in trials:
            rows = aligned.rows_at(trial.subject, places)
            brain = flat_brain(trial)[rows]
            means[trial.subject] = brain.mean(0)
            brains[trial.subject] = brain - means[trial.subject]
            if trial.subject not in self.config.enrolled:
                target = flat_targets(trial, self.shapes)[rows]
        self._solve(brains, means, target)

    def _solve(self, brains: Mapping[str, Array], means: Mapping[str, Array], target: Array) -> None:
        """Common rows of every subject, centred, to all parameters; ``target`` (rows, values) is the same for all."""
        c = self.config
        core = [s for s in brains if s not in c.enrolled]
        if not core:
            raise DataError("every subject is in model.enrolled, expected at least one to build the space from")
        maps, shared = fit_srm([brains[s] for s in core], c.dim, iterations=c.iterations, seed=c.seed)
        into = dict(zip(core, maps, strict=True)) | {s: procrustes(brains[s], shared) for s in brains if s not in core}
        for subject, w in into.items():
            self.map_of(subject).solve(w.T, -means[subject] @ w)
        # Moment by moment, all subjects of a moment together: blocks of rows are then blocks of time for everybody.
        x = np.stack([brains[s] @ into[s] for s in core], axis=1).reshape(-1, c.dim)
        y = np.repeat(target, len(core), axis=0)
        self.read_out.solve(*fit_ridge(x, y, choose_penalty(x, y, c.penalties)))
