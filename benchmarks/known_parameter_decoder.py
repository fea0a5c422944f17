"""The ceiling of the synthetic source: a decoder that knows every parameter of the brain but not what was shown.

Written apart: it renders nothing and shares no function with the generator. It reads the published pictures, scene
contents and brain parameters, recomputes what each candidate scene should evoke, and takes the candidate under which
the measured scans are likeliest. What the neighbouring scenes add is unknown to it, as it is to every decoder that
scores a scene by that scene alone: it is a Gaussian whose mean and covariance come from scenes of another film.

    python -m benchmarks.known_parameter_decoder seed=1 num_subjects=2
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.special import gammaln

from cineray.core.config import parse_overrides
from cineray.core.errors import DataError
from cineray.datasets.sources.synthetic import SyntheticConfig
from cineray.datasets.sources.synthetic_brain import Brain

Array = NDArray[np.float64]

PRIOR_MINUTES = 60.0
"""Of film from which the neighbours' covariance comes; nobody saw it."""
SCANS_BEFORE, SCANS_AFTER = 2, 4
"""Scans used, counted from the one at the scene's onset: those before tell what earlier scenes still add."""
LEAST_NOISE_SD = 1e-3
"""Assumed of noiseless voxels, so that covariances can be inverted."""


def ceiling(source: SyntheticConfig, subjects: Sequence[str] = (), of: int = 50) -> dict[str, float]:
    """Subject -> top-1 among ``of`` scenes of a test run, single trials, averaged over all draws of the others."""
    candidates = scene_units(source, "test")
    elsewhere = source.override({"films": "shared", "minutes": PRIOR_MINUTES, "seed": source.seed + 10_000})
    prior = scene_units(elsewhere, "train")
    return {
        subject: float(
            np.concatenate([top1(run, of) for run in _log_likelihoods(source, subject, candidates, prior)]).mean()
        )
        for subject in subjects or source.subjects
    }


def top1(scores: Array, of: int) -> Array:
    """(scenes,) probability that the true candidate (diagonal) beats ``of - 1`` others drawn without replacement."""
    if len(scores) < of:
        raise DataError(f"a test run has {len(scores)} scenes, expected at least {of}; lengthen the film or its runs")
    assert np.isfinite(scores).all()  # nothing compares with nan: the true scene would win
    others = len(scores) - 1
    better = (scores > np.diag(scores)[:, None]).sum(1)
    log_ways = gammaln(others - better + 1) - gammaln(np.maximum(others - better - of + 2, 1))
    all_ways = gammaln(others + 1) - gammaln(others - of + 2)
    return np.where(others - better >= of - 1, np.exp(log_ways - all_ways), 0.0)


def scene_units(source: SyntheticConfig, film: str) -> Array:
    """(scenes, frames, simple units) out of the pictures of `SyntheticConfig.stimuli` and the film's categories."""
    content = source.film(film)
    pictures = (s.targets["frames"] for s in source.override({"frames": True}).stimuli() if s.film == film)
    return np.stack([_units(p, int(content.shape[i]), int(content.colour[i])) for i, p in enumerate(pictures)])


def _units(pictures: NDArray[np.uint8], shape: int, colour: int) -> Array:
    """(frames, simple units): one scene's pictures, frame by frame."""
    light = pictures.astype(float).mean(3) / 255
    out = []
    for frame in range(len(light)):
        first = min(frame, len(light) - 2)
        change = light[first + 1] - light[first]
        down, right = _slope(light[frame]), _slope(light[frame].T).T
        contrast = _blocks(right * right + down * down, 4)
        motion = [_blocks(np.clip(-change * way, 0, None), 2) for way in (right, down, -right, -down)]
        labels = np.zeros(12)
        labels[[shape, 6 + colour]] = 1
        out.append(np.concatenate([_root_share(contrast), _root_share(np.concatenate(motion)), labels]))
    return np.array(out)


def _slope(picture: Array) -> Array:
    """Central difference down the rows, one-sided at the border."""
    inner = (picture[2:] - picture[:-2]) / 2
    return np.vstack([picture[1] - picture[0], inner, picture[-1] - picture[-2]])


def _blocks(energy: Array, grid: int) -> Array:
    side = len(energy) // grid
    corners = [(row * side, column * side) for row in range(grid) for column in range(grid)]
    return np.array([energy[r : r + side, c : c + side].sum() for r, c in corners])


def _root_share(energy: Array) -> Array:
    return np.sqrt(energy / (energy.sum() or 1.0))


@dataclass(frozen=True)
class _Person:
    """One subject in the space of units, where each region's voxels are sufficient for its units."""

    brain: Brain
    project: Array
    """(units, voxels) generalised least squares; a region needs at least as many voxels as units."""
    noise: Array
    """(units, units)."""
    rho: Array
    """(units,)."""

    @classmethod
    def of(cls, brain: Brain) -> "_Person":
        voxels = np.flatnonzero(np.abs(brain.mixture).sum(1) > 0)
        weighted = brain.mixture[voxels].T / np.maximum(brain.noise_sd[voxels], LEAST_NOISE_SD) ** 2
        spread = np.linalg.inv(weighted @ brain.mixture[voxels])
        project = np.zeros(brain.mixture.T.shape)
        project[:, voxels] = spread @ weighted
        owner = np.abs(brain.mixture).argmax(0)
        return cls(brain, project, spread + np.diag(brain.unit_sd**2), brain.rho[owner])

    def evoked(self, simple: Array, scan_frames: int) -> Array:
        """(scenes, scans after onset, units): convolution written out."""
        brain, atlas = self.brain, self.brain.atlas
        drive = np.maximum((simple - atlas.mean) / atlas.scale @ atlas.weights - atlas.threshold, 0) ** 2
        mixed = drive / (0.2 + drive.mean(-1, keepdims=True))
        activity = np.concatenate([simple, mixed], axis=-1) - brain.centre
        scans = -(-(len(brain.hrf) + activity.shape[1]) // scan_frames)
        kernel = np.zeros((scans, activity.shape[1]))
        for scan in range(scans):
            for frame in range(activity.shape[1]):
                if 0 <= scan * scan_frames - frame < len(brain.hrf):
                    kernel[scan, frame] = brain.hrf[scan * scan_frames - frame]
        return kernel @ activity


def _log_likelihoods(source: SyntheticConfig, subject: str, candidates: Array, prior: Array) -> Iterator[Array]:
    """For each test run, (scenes shown, all scenes of the film): every scene's own run against all candidates."""
    person = _Person.of(source.brain(subject))
    evoked = person.evoked(candidates, source.scan_frames)
    elsewhere = person.evoked(prior, source.scan_frames)
    mean = elsewhere.mean(0)
    # Second moment about the mean between any two delays after a scene's onset: (scans, units, scans, units).
    cross = np.tensordot(elsewhere - mean, elsewhere - mean, axes=(0, 0)) / len(elsewhere)
    for recording in source.recordings():
        if recording.subject != subject or not recording.run.startswith("test"):
            continue
        measured = (recording.brain.astype(float) - 100) @ person.project.T
        shown = [int(s.rsplit("-", 1)[1]) for s in recording.stimulus_id if s is not None]
        scores = [
            _score(person, measured, scene, len(shown), evoked[shown], mean, cross) for scene in range(len(shown))
        ]
        yield np.array(scores)


def _score(
    person: _Person, measured: Array, scene: int, num_scenes: int, evoked: Array, mean: Array, cross: Array
) -> Array:
    """Log likelihood of every candidate (up to a constant) for the scene that begins at scan ``scene``."""
    scans = np.arange(max(0, scene - SCANS_BEFORE), min(len(measured), scene + SCANS_AFTER + 1))
    units = measured.shape[1]
    apart = np.abs(scans[:, None] - scans)
    root = np.sqrt(person.rho)
    covariance = (root[:, None] * root)[:, None] ** apart[:, None, :, None] * person.noise[:, None]
    expected = np.zeros((len(scans), units))
    for other in set(range(num_scenes)) - {scene}:
        reached = np.flatnonzero((scans >= other) & (scans - other < len(mean)))
        delays = scans[reached] - other
        expected[reached] += mean[delays]
        covariance[np.ix_(reached, np.arange(units), reached, np.arange(units))] += cross[delays][:, :, delays]
    delays = scans - scene
    own = np.where((delays >= 0)[:, None], evoked[:, np.maximum(delays, 0)], 0.0).reshape(len(evoked), -1)
    factor = cholesky(covariance.reshape(own.shape[1], -1), lower=True)
    left = (measured[scans] - expected).reshape(1, -1) - own
    return -0.5 * (solve_triangular(factor, left.T, lower=True) ** 2).sum(0)


if __name__ == "__main__":
    print(json.dumps(ceiling(SyntheticConfig.parse(parse_overrides(sys.argv[1:])))))
