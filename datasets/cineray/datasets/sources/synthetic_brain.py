"""Brains whose code is known: regions, a response function of their own and noise by region.

People share an atlas (the units a region is built of) and differ in everything else: number of voxels, receptive
fields, mixing of the units, speed of the haemodynamic response, noise.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter, oaconvolve
from scipy.stats import gamma

from cineray.datasets.sources.synthetic_film import COLOURS, DIRECTIONS, PLACES, SHAPES

__all__ = ["BASELINE", "CHANNELS", "REGIONS", "UNITS", "Atlas", "Brain", "Region", "draws", "make_atlas", "make_brain"]

UNITS = {
    "early": PLACES**2,
    "motion": DIRECTIONS * (PLACES // 2) ** 2,
    "semantic": len(SHAPES) + len(COLOURS),
    "mixed": 16,
}
"""Units of each region that has a code; all but the mixed ones are `simple_units` of the film."""
CHANNELS = 3
"""Luminance, red against green, blue against yellow: what a region called ``colour`` has units for in each place."""
SILENT = 1e-9
"""Spread below which a unit never changed: it holds rounding error, and no voxel can read it."""
BASELINE = 100.0
"""Added to every voxel, as scanners do, so that nobody relies on centred recordings."""
HRF_S = 28.0
"""Length of the response function."""
POOL = 0.2
"""Semi-saturation of the mixed units' divisive normalisation."""


@dataclass(frozen=True)
class Region:
    """A part of every brain; noise is relative to the standard deviation of the noiseless BOLD."""

    name: str
    share: float
    """Part of the voxels."""
    noise_sd: float
    """Noise of each voxel alone."""
    tuned_sd: float
    """Noise of each unit, which voxels of like tuning have in common: it cannot be averaged away over voxels, and so
    sets the ceiling (information-limiting correlations, Moreno-Bote et al. 2014, doi:10.1038/nn.3807)."""
    rho: float
    """Correlation of the noise from one scan to the next."""


REGIONS = (
    Region("early", 0.3, noise_sd=0.5, tuned_sd=2.5, rho=0.3),
    Region("motion", 0.2, noise_sd=0.5, tuned_sd=2.5, rho=0.3),
    Region("semantic", 0.2, noise_sd=0.5, tuned_sd=0.4, rho=0.4),
    Region("mixed", 0.2, noise_sd=0.5, tuned_sd=3.0, rho=0.4),
    Region("silent", 0.1, noise_sd=1.0, tuned_sd=0.0, rho=0.5),
)
"""Early: small receptive fields, contrast. Motion: large fields, direction. Semantic: shape and colour.
Mixed: rectified, squared and divisively normalised conjunctions of all these. Silent: noise alone."""


@dataclass(frozen=True)
class Atlas:
    """What people share: the units that voxels are mixtures of."""

    weights: NDArray[np.float64]
    """(simple units, mixed units): what the mixed units read."""
    threshold: NDArray[np.float64]
    """(mixed units,) of the rectification."""
    mean: NDArray[np.float64]
    """(simple units,) removed before the mixed units read them."""
    scale: NDArray[np.float64]
    """(simple units,) and divided by."""

    def units(self, simple: NDArray[np.float64]) -> NDArray[np.float64]:
        """Simple units (frames, simple units) to all of them (frames, units), the mixed ones last.

        Mixed: threshold, square, divide by the pool's mean (Carandini & Heeger 2012, doi:10.1038/nrn3136).
        """
        drive = np.maximum((simple - self.mean) / self.scale @ self.weights - self.threshold, 0) ** 2
        return np.concatenate([simple, drive / (POOL + drive.mean(1, keepdims=True))], axis=1)


@dataclass(frozen=True)
class Brain:
    """Every parameter of one subject's code; arrays run over voxels first."""

    region: NDArray[np.int64]
    """(voxels,) index into the regions it was made with."""
    atlas: Atlas
    mixture: NDArray[np.float64]
    """(voxels, units): how a voxel mixes the units; their mean is removed by ``centre``."""
    centre: NDArray[np.float64]
    """(units,) mean over the reference film."""
    hrf: NDArray[np.float64]
    """Response to one frame, on the film's frame clock."""
    noise_sd: NDArray[np.float64]
    """(voxels,) noise of each voxel alone."""
    unit_sd: NDArray[np.float64]
    """(units,) noise of each unit, in BOLD: voxels of like tuning have it in common."""
    rho: NDArray[np.float64]
    """(voxels,) AR(1) coefficient of all noise, from scan to scan."""

    @property
    def num_voxels(self) -> int:
        """Voxels of this subject."""
        return len(self.region)

    def bold(self, simple: NDArray[np.float64], frames_per_scan: int, num_scans: int) -> NDArray[np.float64]:
        """Noiseless BOLD (scans, voxels) of a run that shows these simple units; before and after it, their mean."""
        drive = self.atlas.units(simple) - self.centre
        drive = np.pad(drive, ((0, num_scans * frames_per_scan - len(drive)), (0, 0)))
        return oaconvolve(drive, self.hrf[:, None], axes=0)[: len(drive) : frames_per_scan] @ self.mixture.T

    def noise(self, rng: np.random.Generator, num_scans: int) -> NDArray[np.float64]:
        """Stationary AR(1) noise, each voxel's own and common: (scans, voxels)."""
        white = rng.standard_normal((num_scans, self.num_voxels)) * self.noise_sd
        white += rng.standard_normal((num_scans, len(self.unit_sd))) * self.unit_sd @ self.mixture.T
        white[1:] *= np.sqrt(1 - self.rho**2)
        for rho in np.unique(self.rho):
            voxels = self.rho == rho
            white[:, voxels] = lfilter([1.0], [1.0, -rho], white[:, voxels], axis=0)
        return white


def make_atlas(rng: np.random.Generator, reference: NDArray[np.float64]) -> Atlas:
    """Draw what people share; the mixed units' inputs are put on one scale by the ``reference`` film's simple units."""
    num = reference.shape[1]
    weights = rng.standard_normal((num, UNITS["mixed"])) / math.sqrt(num)
    threshold = rng.uniform(-0.5, 0.5, UNITS["mixed"])
    return Atlas(weights, threshold, reference.mean(0), _spread(reference))


def make_brain(
    rng: np.random.Generator,
    atlas: Atlas,
    reference: NDArray[np.float64],
    *,
    num_voxels: int,
    noise: float,
    fps: float,
    regions: Sequence[Region] = REGIONS,
    num_units: Mapping[str, int] = UNITS,
) -> Brain:
    """Draw a subject. ``noise`` scales all noise; signals get unit spread on the ``reference`` film's simple units.

    Args:
        regions: parts of the brain; those with a code come first.
        num_units: units of each region with a code, in the order of ``regions`` and of the units; mixed ones last.
    """
    counts = np.diff(np.rint(np.cumsum([0.0] + [r.share for r in regions]) * num_voxels).astype(int))
    region = np.repeat(np.arange(len(regions)), counts)
    hrf = double_gamma(fps, peak_s=rng.uniform(5.0, 6.0))
    units = atlas.units(reference)
    centre = units.mean(0)
    bold = oaconvolve(units - centre, hrf[:, None], axes=0)[len(hrf) : len(units)]
    spread = _spread(bold)
    mixture = _mixture(rng, region, num_units) / spread
    signal = (bold @ mixture.T).std(0)
    owner = np.repeat(range(len(num_units)), list(num_units.values()))
    return Brain(
        region=region,
        atlas=atlas,
        mixture=mixture / np.where(signal > 0, signal, 1.0)[:, None],
        centre=centre,
        hrf=hrf,
        noise_sd=noise * np.array([r.noise_sd for r in regions])[region],
        unit_sd=noise * np.array([r.tuned_sd for r in regions])[owner] * spread,
        rho=np.array([r.rho for r in regions])[region],
    )


def draws(seed: int, *words: str) -> np.random.Generator:
    """A stream of its own for each thing drawn: more subjects, films, minutes or repeats never change what was there.

    Only a run that gets longer itself has other noise.
    """
    return np.random.default_rng([seed, *" ".join(words).encode()])


def _spread(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(units,) standard deviation over the rows; 1 where a unit never changes."""
    spread = values.std(0)
    return np.where(spread > SILENT, spread, 1.0)


def _mixture(rng: np.random.Generator, region: NDArray[np.int64], num_units: Mapping[str, int]) -> NDArray[np.float64]:
    """Weights of units of equal spread: receptive fields in early, motion and colour, any mixture elsewhere.

    Fields lie anywhere in the frame; directions are tuned as a von Mises density of concentration 1; colour voxels
    weigh the three channels at will.
    """
    centre = rng.uniform(0, 1, (len(region), 2))
    preferred = rng.uniform(0, 2 * math.pi, (len(region), 1))
    direction = np.exp(np.cos(np.arange(DIRECTIONS) * 2 * math.pi / DIRECTIONS - preferred) - 1)
    motion = direction[:, :, None] * _field(centre, math.isqrt(num_units["motion"] // DIRECTIONS))[:, None]
    free = rng.standard_normal((len(region), num_units["semantic"] + num_units["mixed"]))
    channel = rng.standard_normal((len(region), CHANNELS, 1))
    weights = {
        "early": _field(centre, PLACES),
        "motion": motion.reshape(len(region), -1),
        "colour": (channel * _field(centre, PLACES)[:, None]).reshape(len(region), -1),
        "semantic": free[:, : num_units["semantic"]],
        "mixed": free[:, num_units["semantic"] :],
    }
    owner = np.repeat(range(len(num_units)), list(num_units.values()))
    return np.concatenate([weights[name] for name in num_units], axis=1) * (region[:, None] == owner)


def _field(centre: NDArray[np.float64], grid: int) -> NDArray[np.float64]:
    """Gaussian receptive fields, one place wide (sd), on a grid of places: (voxels, grid²), row by row."""
    axis = (np.arange(grid) + 0.5) / grid
    x, y = (np.exp(-0.5 * ((axis - centre[:, [k]]) * grid) ** 2) for k in (0, 1))
    return (y[:, :, None] * x[:, None, :]).reshape(len(centre), -1)


def double_gamma(fps: float, *, peak_s: float) -> NDArray[np.float64]:
    """The canonical response (SPM: gamma of shape 6 less a sixth of shape 16), stretched to its peak; sums to 1."""
    seconds = np.arange(round(HRF_S * fps)) / fps * (5.0 / peak_s)
    shape = gamma.pdf(seconds, 6) - gamma.pdf(seconds, 16) / 6
    return shape / shape.sum()
