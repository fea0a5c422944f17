"""Motion energy against whole three-dimensional filters summed pixel by pixel, and on gratings that drift."""

import cv2
import numpy as np
import pytest

from cineray.training.pictures import VIDEO_METRICS
from cineray.training.pictures.bank import Bank, Pairing
from cineray.training.pictures.motion_energy import _gratings, motion_energy, motion_energy_correlation
from cineray.training.pictures.resize import resized

FPS = 12


def clouds(seed: int, frames: int, px: int) -> np.ndarray:
    cells = np.random.default_rng(seed).integers(0, 256, (frames, 6, 6, 3), np.uint8)
    return resized(cells, px)


def drifting(direction_deg: float, cycles: float, hz: float, px: int = 48, frames: int = 16) -> np.ndarray:
    """A grey grating that moves that way (0: to the right, 90: up)."""
    y, x = np.mgrid[:px, :px] / (px - 1)
    angle = np.deg2rad(direction_deg)
    phase = cycles * (x * np.cos(angle) - y * np.sin(angle)) - hz * np.arange(frames)[:, None, None] / FPS
    return np.repeat((128 + 60 * np.cos(2 * np.pi * phase))[..., None], 3, -1).astype(np.float32)


def test_energies_are_those_of_whole_filters_summed_pixel_by_pixel():
    """Nishimoto et al. 2011: a quadrature pair of Gaussian times grating, each in two dimensions and time."""
    px, frames, length = 24, 10, 8
    video = clouds(0, frames, px)
    light = np.stack([cv2.cvtColor(f / 255, cv2.COLOR_RGB2LAB)[..., 0] for f in video]).astype(float)
    axis, time = np.linspace(0, 1, px), np.arange(length) / length - 0.5
    y, x = np.meshgrid(axis, axis, indexing="ij")
    expected = []
    for cycles, direction, hz, cy, cx in ((2, 45, 2, 0.5, 0.5), (4, 180, 4, 0.5, 0.5), (16, 90, 0, 0.36875, 0.5)):
        envelope, angle = min(0.6 / cycles, 0.3), np.deg2rad(direction)
        space = 2 * np.pi * cycles * (-(x - cx) * np.cos(angle) + (y - cy) * np.sin(angle))
        bump = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * envelope**2))
        energy = []
        for frame in range(frames):
            pair = np.zeros(2)
            for k, t in enumerate(time):
                if 0 <= (shown := frame - (k - 3)) < frames:
                    phase = space + 2 * np.pi * hz * (2 / 3) * t
                    weights = bump * np.exp(-(t**2) / (2 * 0.3**2)) * np.stack([np.cos(phase), np.sin(phase)])
                    pair += (weights * light[shown]).sum((1, 2))
            energy.append(np.log(np.linalg.norm(pair) + 1e-5))
        expected.append(energy)
    found = motion_energy(video, FPS)
    for energy in expected:
        assert np.abs(found - np.array(energy)[:, None]).max(0).min() < 1e-6, "one of the filters is this one"


def test_there_are_as_many_filters_as_pymoten_has_at_96_px():
    assert sum(len(g.down) * len(g.across) * len(g.drifts_hz) for g in _gratings(96)) == 1380


@pytest.mark.parametrize("direction", [0, 90, 225])
def test_the_strongest_drifting_filter_moves_as_the_grating_does(direction):
    found = np.exp(motion_energy(drifting(direction, 4, 4), FPS))[8]
    first, best = 0, (0.0, -1)
    for number, gratings in enumerate(_gratings(48)):
        for drift in gratings.drifts_hz:
            num = len(gratings.down) * len(gratings.across)
            if drift == 4:
                best = max(best, (found[first : first + num].max(), number))
            first += num
    # Filters run through time backwards, in pymoten too: each answers to what moves against its name.
    assert best[1] % 9 - 1 == (direction // 45 + 4) % 8
    assert best[1] // 9 == 1, "of 2, 4, 8 and 16 cycles"


def test_correlation_tells_directions_apart():
    right, left, again = (motion_energy(drifting(d, 4, 4), FPS) for d in (0, 180, 0))
    expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(right, left, strict=True)]
    assert motion_energy_correlation(left, right) == pytest.approx(np.mean(expected))
    assert motion_energy_correlation(again, right) == pytest.approx(1)
    assert motion_energy_correlation(left, right) < 0.95


def test_the_metric_takes_eight_frames_a_second():
    metric = VIDEO_METRICS["motion_energy"]
    assert metric.min_fps == 8
    videos = [np.rint(drifting(d, 4, 4)).astype(np.uint8) for d in (0, 90)]
    every = np.arange(2)
    own, wrong = (
        metric.values(Pairing(Bank(videos), Bank(videos), every, beside, every, FPS), {})
        for beside in (every, every[::-1])
    )
    assert own == pytest.approx([1, 1])
    assert max(wrong) < 0.95
