"""Motion energy: what a pyramid of moving gratings sees in a video (Adelson & Bergen 1985; Nishimoto et al. 2011).

The gratings are those of the package pymoten at its defaults, whose filters it also equals where that does not cut off
what is faint. A Gaussian times a grating is a product over the two axes
and time, so that three small products give what pymoten takes out of whole three-dimensional filters.
"""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["MIN_FPS", "motion_energy", "motion_energy_correlation"]

DRIFT_HZ = (0.0, 2.0, 4.0)
MIN_FPS = 2 * max(DRIFT_HZ)
"""Compared frames a second below which the fastest grating seems to drift otherwise than it does."""
CYCLES = (2, 4, 8, 16)
"""Of a picture; the Gaussian of each is also taken without a grating."""
DIRECTIONS_DEG = tuple(range(0, 360, 45))
ENVELOPE_CYCLES, MAX_ENVELOPE, SPACING = 0.6, 0.3, 3.5
"""Deviation of the spatial Gaussian in cycles, its most in pictures, and the way to the next in deviations."""
TIME_ENVELOPE, LENGTH_S = 0.3, 2 / 3
"""Deviation of the temporal Gaussian in lengths of the filter, and that length."""
FLOOR = 1e-5


class Gratings(NamedTuple):
    """Filters of one grating at every place: (places, px) complex along each axis."""

    down: NDArray[np.complex128]
    across: NDArray[np.complex128]
    drifts_hz: tuple[float, ...]


def motion_energy(video: NDArray[np.floating], fps: float) -> NDArray[np.float64]:
    """(frames, px, px, 3) sRGB, 0 to 255, to (frames, filters): log of each filter's energy around that frame.

    Frames beyond the video's ends count as black, as in pymoten.
    """
    light = np.stack(
        [cv2.cvtColor(np.ascontiguousarray(f, np.float32) / 255, cv2.COLOR_RGB2LAB)[..., 0] for f in video]
    )
    found = []
    for gratings in _pyramid(video.shape[1]):
        seen = np.einsum("vy,tyx,hx->tvh", gratings.down, light, gratings.across, optimize=True)
        seen = seen.reshape(len(seen), -1)
        found += [np.abs(_through_time(seen, drift, fps)) for drift in gratings.drifts_hz]
    return np.log(np.concatenate(found, axis=1) + FLOOR)


def motion_energy_correlation(predicted: NDArray[np.floating], truth: NDArray[np.floating]) -> float:
    """(frames, filters) of both: Pearson over the filters, mean over frames (brain2video's "ME")."""
    p, t = (x - x.mean(1, keepdims=True) for x in (predicted, truth))
    scale = np.linalg.norm(p, axis=1) * np.linalg.norm(t, axis=1)
    return float(np.divide((p * t).sum(1), scale, out=np.zeros_like(scale), where=scale > 0).mean())


@cache
def _pyramid(px: int) -> list[Gratings]:
    return list(_gratings(px))


def _gratings(px: int) -> Iterator[Gratings]:
    where = np.linspace(0, 1, px)
    for cycles in CYCLES:
        envelope = min(ENVELOPE_CYCLES / cycles, MAX_ENVELOPE)
        step = SPACING * envelope
        each_side = max(np.floor((1 - step) / step / 2), 0)
        centres = step * np.arange(-each_side, each_side + 1) + 0.5
        away = where - centres[:, None]
        gauss = np.exp(-(away**2) / (2 * envelope**2))
        yield Gratings(gauss + 0j, gauss + 0j, DRIFT_HZ)
        for direction in np.deg2rad(DIRECTIONS_DEG):
            down, across = 2 * np.pi * cycles * np.array([np.sin(direction), -np.cos(direction)])
            # What stands still has no direction: half of them would be seen twice.
            drifts = DRIFT_HZ if direction < np.pi else DRIFT_HZ[1:]
            yield Gratings(gauss * np.exp(1j * down * away), gauss * np.exp(1j * across * away), drifts)


def _through_time(seen: NDArray[np.complex128], drift_hz: float, fps: float) -> NDArray[np.complex128]:
    """(frames, places), and the drifting Gaussian around each frame."""
    length = int(fps * LENGTH_S)
    at = np.arange(length) / length - 0.5
    kernel = np.exp(-(at**2) / (2 * TIME_ENVELOPE**2) + 2j * np.pi * drift_hz * length / fps * at)
    found = np.zeros_like(seen)
    for place, weight in enumerate(kernel):
        later = place - (length + 1) // 2 + 1
        if later > 0:
            found[later:] += weight * seen[:-later]
        else:
            found[: len(seen) + later] += weight * seen[-later:]
    return found
