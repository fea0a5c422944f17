"""Protocol A with personal maps: brains brought into the shared space by matched filters learned on another film.

For each person j, x_j = g_j M_j + n_j, where g_j is the mean brain of everybody but j (the held-out person left out
for all). The read-in Z_j = S_j⁻¹ M_j' takes a scan to the group's response, weighted by how little noise it
carries; S_j is the scatter of n_j, part of it the group's. The space matched in is the voxel space of the group's
response, whitened by what the read-ins of different people disagree about (the within-class scatter of a linear
discriminant analysis).
Nothing but scans is used: no stimulus, no label.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from cineray.core.config import Config
from cineray.core.errors import DataError
from cineray.training.models.group import personal_map

__all__ = ["MatchedSpace", "pair_in", "spaces_without_each"]

Array = NDArray[np.floating]
Brains = Mapping[str, Array]
"""Subject -> (rows, voxels), all on the clock of one film."""


class MatchedSpace(Config):
    """Settings of the space; penalties are those of about 1500 scans of unit variance."""

    personal: bool = True
    """False: every scan as recorded, only whitened by what the others disagree about; nothing is fitted to a person."""
    noise_penalty: float = 300.0
    map_penalty: float = 3000.0
    own_noise: float = 0.6
    """Share of a person's own noise in S; the rest is the group's."""
    shrinkage: float = 0.1
    """Of the whitening: share of the mean variance that is added to every direction."""

    def fit(self, fit: Brains, held: str) -> dict[str, Array]:
        """Map (voxels, voxels) of everybody, ``held`` included; the others alone make the space."""
        others = [s for s in fit if s != held]
        if len(others) < 2:
            raise DataError(f"found {len(fit)} subjects, expected at least 3: one held out and a group of two")
        if not self.personal:
            return dict.fromkeys(fit, self._whitener([fit[s] for s in others]))
        total = np.sum([fit[s] for s in others], axis=0)
        groups = {s: (total - fit[s]) / (len(others) - 1) for s in others}
        common = np.mean([_scatter(fit[s] - groups[s]) for s in others], axis=0)
        groups[held] = total / len(others)
        read_ins = {s: self._read_in(fit[s], g, common) for s, g in groups.items()}
        whitener = self._whitener([fit[s] @ read_ins[s] for s in others])
        return {s: z @ whitener for s, z in read_ins.items()}

    def _read_in(self, brain: Array, group: Array, common: Array) -> Array:
        m = personal_map(group.T @ group, group.T @ brain, self.map_penalty)
        noise = self.own_noise * _scatter(brain - group @ m) + (1 - self.own_noise) * common
        return np.linalg.solve(noise + self.noise_penalty * np.eye(len(noise)), m.T)

    def _whitener(self, responses: list[Array]) -> Array:
        mean = np.mean(responses, axis=0)
        disagreement = np.sum([_scatter(r - mean) for r in responses], axis=0) / (len(responses) - 1)
        size = len(disagreement)
        values, vectors = np.linalg.eigh(
            disagreement + self.shrinkage * np.trace(disagreement) / size * np.eye(size),
        )
        return vectors / np.sqrt(values) @ vectors.T


def spaces_without_each(fit: Brains, config: MatchedSpace) -> Iterator[tuple[str, dict[str, Array]]]:
    """Each subject in turn held out, and the maps of everybody into the space that the others make of film ``fit``."""
    double = {s: np.asarray(x, np.float64) for s, x in fit.items()}
    for subject in double:
        yield subject, config.fit(double, subject)


def pair_in(maps: Mapping[str, Array], subject: str, test: Brains) -> tuple[str, Array, Array]:
    """Query and template for `cineray.training.protocols.segments.match_all`, both out of film ``test``."""
    template = np.mean([test[s] @ w for s, w in maps.items() if s != subject], axis=0)
    return subject, test[subject] @ maps[subject], template


def _scatter(x: Array) -> Array:
    return x.T @ x
