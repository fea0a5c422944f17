"""What the simple voxels of people before real films read of the pictures."""

import numpy as np
from numpy.typing import NDArray

from cineray.datasets.encoders.motion import Motion
from cineray.datasets.sources.synthetic_brain import CHANNELS, Region
from cineray.datasets.sources.synthetic_film import DIRECTIONS, PLACES, contrast_units

__all__ = ["NUM_UNITS", "REGIONS", "colour_units", "motion_units", "seen_units"]

MOTION_PLACES = 12
"""Motion is read in as many squares each way."""

REGIONS = (
    Region("early", 0.15, noise_sd=0.5, tuned_sd=2.5, rho=0.3),
    Region("motion", 0.4, noise_sd=0.5, tuned_sd=0.4, rho=0.3),
    Region("colour", 0.15, noise_sd=0.5, tuned_sd=1.0, rho=0.3),
    Region("semantic", 0.15, noise_sd=0.5, tuned_sd=0.4, rho=0.4),
    Region("mixed", 0.05, noise_sd=0.5, tuned_sd=3.0, rho=0.4),
    Region("silent", 0.1, noise_sd=1.0, tuned_sd=0.0, rho=0.5),
)
"""As in `synthetic_brain.REGIONS`, but for motion, which has small receptive fields and knows speeds (`motion_units`),
and colour: luminance and two opponent channels in small receptive fields."""

NUM_UNITS = {"motion": DIRECTIONS * MOTION_PLACES**2, "colour": CHANNELS * PLACES**2}
"""Of the regions whose units are not those of `synthetic_brain.UNITS`."""


def seen_units(clips: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Contrast, motion and colour of clips (clips, frames, px, px, 3): (clips, frames, units)."""
    flat = clips.reshape(-1, *clips.shape[2:])
    units = np.concatenate([contrast_units(flat), motion_units(clips), colour_units(flat)], axis=1)
    return units.reshape(*clips.shape[:2], -1)


def motion_units(clips: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Square roots of how fast 12 x 12 places move right, down, left and up: (clips · frames, 4 x 144).

    Of clips (clips, frames, px, px, 3); the last frame of each repeats the step before it. Velocities are those of
    `cineray.datasets.encoders.motion`. Neurons of area MT are tuned to direction and to the logarithm of the speed
    (Nover et al. 2005, doi:10.1523/JNEUROSCI.1527-05.2005); a square root is as steep at first and later less so.
    """
    velocity = Motion(MOTION_PLACES, clips.shape[1] - 1).encode(clips, ()).astype(np.float64)
    velocity = np.concatenate([velocity, velocity[:, -1:]], axis=1)
    towards = np.maximum(np.concatenate([velocity, -velocity], axis=2), 0)
    return towards.reshape(clips.shape[0] * clips.shape[1], -1)


def colour_units(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Means over 4 x 4 places of luminance, red less green, and blue less yellow: (frames, 3 x 16), in 0 to 1."""
    num, px = frames.shape[:2]
    side = px // PLACES
    red, green, blue = np.moveaxis(
        frames.reshape(num, PLACES, side, PLACES, side, 3).mean((2, 4)).reshape(num, -1, 3) / 255, 2, 0
    )
    return np.concatenate([(red + green + blue) / 3, red - green, blue - (red + green) / 2], axis=1)
