"""Synthetic brains: every documented parameter recovered or recomputed by formulas and loops of the tests' own."""

import math
import re

import numpy as np
import pytest

from cineray.datasets.sources.synthetic import SyntheticConfig
from cineray.datasets.sources.synthetic_brain import REGIONS, Brain
from conftest import REPOSITORY

SOURCE = SyntheticConfig(num_subjects=6, fps=4, frame_px=16, voxels=(150, 400), noise=0.7)
FPS = 4
STATED = {  # part of the voxels, own noise, noise of the units, memory: the card's table
    "early": (0.3, 0.5, 2.5, 0.3),
    "motion": (0.2, 0.5, 2.5, 0.3),
    "semantic": (0.2, 0.5, 0.4, 0.4),
    "mixed": (0.2, 0.5, 3.0, 0.4),
    "silent": (0.1, 1.0, 0.0, 0.5),
}
REGION = {name: number for number, name in enumerate(STATED)}
UNITS = {"early": range(16), "motion": range(16, 32), "semantic": range(32, 44), "mixed": range(44, 60)}


@pytest.fixture(scope="module")
def brain():
    return SOURCE.brain("sub-01")


@pytest.fixture(scope="module")
def reference(brain):
    """(frames, units) activity over the reference film."""
    return all_units(brain, SOURCE.simple("reference"))


@pytest.fixture(scope="module")
def evoked(brain, reference):
    """(frames, units) noiseless BOLD once the first response is over: numpy's convolution, unit by unit."""
    columns = (reference - brain.centre).T
    return np.stack([np.convolve(column, brain.hrf)[len(brain.hrf) : len(column)] for column in columns], axis=1)


@pytest.fixture(scope="module")
def unit_sd(evoked):
    """(units,) spread of each unit's response."""
    return evoked.std(0)


def all_units(brain: Brain, simple: np.ndarray) -> np.ndarray:
    """Simple units, then 16 conjunctions: threshold, square, divide by 0.2 plus the pool's mean; frame by frame."""
    atlas, out = brain.atlas, []
    for frame in simple:
        drive = []
        for unit in range(16):
            scaled = ((x - m) / s for x, m, s in zip(frame, atlas.mean, atlas.scale, strict=True))
            total = sum(x * w for x, w in zip(scaled, atlas.weights[:, unit], strict=True)) - atlas.threshold[unit]
            drive.append(total**2 if total > 0 else 0.0)
        out.append([*frame, *(value / (0.2 + sum(drive) / 16) for value in drive)])
    return np.array(out)


def voxels(brain: Brain, region: str) -> np.ndarray:
    return np.flatnonzero(brain.region == REGION[region])


def test_regions_are_those_of_the_card():
    card = (REPOSITORY / "datasets" / "cards" / "synthetic.md").read_text(encoding="utf-8")
    assert [region.name for region in REGIONS] == list(STATED)
    for name, numbers in STATED.items():
        (cells,) = re.findall(
            rf"^\| {name} \|.*\| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", card, re.MULTILINE
        )
        assert tuple(map(float, cells)) == numbers


def test_people_differ_in_all_but_the_atlas():
    brains = [SOURCE.brain(subject) for subject in SOURCE.subjects]
    counts = [brain.num_voxels for brain in brains]
    assert all(150 <= count <= 400 for count in counts)
    assert len(set(counts)) > 3
    for brain in brains:
        shares = [len(voxels(brain, name)) - share * brain.num_voxels for name, (share, *_) in STATED.items()]
        assert max(map(abs, shares)) <= 1
        np.testing.assert_array_equal(brain.atlas.weights, brains[0].atlas.weights)
    assert len({brain.hrf.argmax() for brain in brains} | {float(brain.hrf[8]) for brain in brains}) > 5
    assert abs(np.corrcoef(brains[0].mixture[:40, 0], brains[1].mixture[:40, 0])[0, 1]) < 0.5


def test_voxels_read_the_units_of_their_own_region(brain):
    for name, own in UNITS.items():
        others = np.setdiff1d(np.arange(60), own)
        assert (brain.mixture[np.ix_(voxels(brain, name), others)] == 0).all()
        assert (brain.mixture[np.ix_(voxels(brain, name), np.array(own))] != 0).all()
    assert (brain.mixture[voxels(brain, "silent")] == 0).all()
    assert REGION.keys() - UNITS.keys() == {"silent"}


@pytest.mark.parametrize("subject", SOURCE.subjects)
def test_the_response_function_is_the_canonical_one_stretched(subject):
    hrf = SOURCE.brain(subject).hrf
    assert len(hrf) == 28 * FPS

    def canonical(t: float) -> float:
        return t**5 * math.exp(-t) / math.factorial(5) - t**15 * math.exp(-t) / math.factorial(15) / 6

    def drawn(peak_s: float) -> np.ndarray:
        values = np.array([canonical(frame / FPS * 5 / peak_s) for frame in range(28 * FPS)])
        return values / values.sum()

    # The peak is the one unknown: the best of a fine grid explains all of the curve.
    errors = {peak: abs(hrf - drawn(peak)).max() for peak in np.linspace(5, 6, 2001)}
    best = min(errors, key=lambda peak: errors[peak])
    assert errors[best] < 1e-4 * hrf.max()
    assert abs(hrf.argmax() / FPS - best) <= 1 / FPS
    assert hrf.sum() == pytest.approx(1)
    assert hrf[0] == 0
    assert hrf.min() < 0 < hrf.max()


def test_bold_is_a_sum_over_the_frames_before(brain):
    frames, scans, tr = 60, 25, 16
    simple = SOURCE.simple("test")[:frames]
    found = brain.bold(simple, tr, scans)
    assert found.shape == (scans, brain.num_voxels)
    drive = all_units(brain, simple) - brain.centre
    for scan in (0, 1, 3, 5, 9, 24):
        units = np.zeros(60)
        for frame in range(frames):
            if 0 <= scan * tr - frame < len(brain.hrf):
                units += brain.hrf[scan * tr - frame] * drive[frame]
        np.testing.assert_allclose(found[scan], brain.mixture @ units, atol=1e-9)
    np.testing.assert_allclose(found[0], 0, atol=1e-9)
    np.testing.assert_allclose(found[24], 0, atol=1e-9)  # 384 - 60 frames after the film the response is over


def test_signals_have_unit_spread_and_units_no_mean_over_the_reference_film(brain, reference, evoked):
    active = brain.region != REGION["silent"]
    np.testing.assert_allclose((evoked @ brain.mixture.T)[:, active].std(0), 1)
    np.testing.assert_allclose(reference.mean(0), brain.centre)


def test_early_voxels_have_a_gaussian_field_one_place_wide(brain, unit_sd):
    weights = np.log((brain.mixture * unit_sd)[voxels(brain, "early"), :16]).reshape(-1, 4, 4)
    # log exp(-(x - c)² / 2s²) on places 1/4 apart with s = 1/4: second difference -1, first difference tells c.
    np.testing.assert_allclose(np.diff(weights, 2, axis=1), -1, atol=1e-9)
    np.testing.assert_allclose(np.diff(weights, 2, axis=2), -1, atol=1e-9)
    np.testing.assert_allclose(np.diff(np.diff(weights, axis=1), axis=2), 0, atol=1e-9)  # as wide as high, not tilted
    centres = np.stack([np.diff(weights, axis=2)[:, 0, 0], np.diff(weights, axis=1)[:, 0, 0]], 1) / 4 + 0.25
    assert (centres >= 0).all()
    assert (centres <= 1).all()
    # A voxel answers most to a shape in the place of its centre, be the scale of that place what it may.
    bold = [brain.bold(np.tile(np.eye(44)[place], (80, 1)), 16, 5)[-1] for place in range(16)]
    answer = np.stack(bold, 1)[voxels(brain, "early")]
    blank = brain.bold(np.zeros((80, 44)), 16, 5)[-1][voxels(brain, "early")]
    scaled = (answer - blank[:, None]) * unit_sd[:16]
    place = np.minimum((centres * 4).astype(int), 3)
    np.testing.assert_array_equal(scaled.argmax(1), place[:, 1] * 4 + place[:, 0])


def test_motion_voxels_prefer_a_direction_in_a_place(brain, unit_sd):
    weights = np.log((brain.mixture * unit_sd)[voxels(brain, "motion"), 16:32]).reshape(-1, 4, 4)
    tuning = weights[:, :, 0]
    np.testing.assert_allclose(
        weights - weights[:, :1], np.repeat((tuning - tuning[:, :1])[..., None], 4, 2), atol=1e-9
    )
    right, down, left, up = tuning.T
    # log exp(cos(angle - preferred)) in four directions: opposite pairs add up alike, differences lie on a circle.
    np.testing.assert_allclose(right + left, down + up, atol=1e-9)
    np.testing.assert_allclose(np.hypot(right - left, down - up), 2, atol=1e-9)
    preferred = np.arctan2(down - up, right - left)
    assert (np.histogram(preferred, 4, (-math.pi, math.pi))[0] > 0).all()


def test_semantic_voxels_answer_to_shape_and_colour_alone(brain):
    scene = SOURCE.simple("test")[:80].copy()
    scene[:, 32:] = 0
    seen = {}
    for shape in range(6):
        for colour in range(6):
            shown = scene.copy()
            shown[:, [32 + shape, 38 + colour]] = 1
            seen[shape, colour] = brain.bold(shown, 16, 5)[-1]
    semantic = voxels(brain, "semantic")
    assert min(abs(seen[a, 0] - seen[b, 0])[semantic].max() for a in range(6) for b in range(a)) > 0.5
    assert min(abs(seen[0, a] - seen[0, b])[semantic].max() for a in range(6) for b in range(a)) > 0.5
    seen_elsewhere = SOURCE.simple("test")[320:400].copy()
    seen_elsewhere[:, 32:] = 0
    seen_elsewhere[:, [32, 38]] = 1
    np.testing.assert_allclose(brain.bold(seen_elsewhere, 16, 5)[-1][semantic], seen[0, 0][semantic], atol=1e-9)
    # A conjunction: what shape and colour do together beyond what each does. Only the mixed region knows it.
    together = seen[1, 2] - seen[1, 0] - seen[0, 2] + seen[0, 0]
    np.testing.assert_allclose(together[semantic], 0, atol=1e-9)
    assert (abs(together[voxels(brain, "mixed")]) > 0.01).mean() > 0.9


def test_no_linear_map_of_the_simple_units_explains_the_mixed_region(brain):
    """Least squares on one film, with the true response function, scored on another."""
    fitted, scored = (
        np.column_stack([np.convolve(unit, brain.hrf)[: len(film)] for unit in film.T] + [np.ones(len(film))])
        for film in (SOURCE.simple("reference"), SOURCE.simple("test"))
    )
    train, test = (brain.bold(SOURCE.simple(name), 1, len(SOURCE.simple(name))) for name in ("reference", "test"))
    weights = np.linalg.lstsq(fitted, train, rcond=None)[0]
    explained = 1 - ((test - scored @ weights) ** 2).sum(0) / np.maximum(((test - test.mean(0)) ** 2).sum(0), 1e-12)
    for name in ("early", "motion", "semantic"):
        assert (explained[voxels(brain, name)] > 0.99).all()
    assert np.median(explained[voxels(brain, "mixed")]) < 0.8


def test_noise_has_the_spread_correlation_and_memory_of_its_region(brain, unit_sd):
    noise = brain.noise(np.random.default_rng(0), 40_000)
    covariance = np.cov(noise.T)
    expected = np.zeros_like(covariance)
    for name, units in UNITS.items():
        for unit in units:
            pattern = np.where(brain.region == REGION[name], brain.mixture[:, unit], 0)
            expected += np.outer(pattern, pattern) * (0.7 * STATED[name][2] * unit_sd[unit]) ** 2
    expected += np.diag([(0.7 * list(STATED.values())[region][1]) ** 2 for region in brain.region])
    spread = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), spread, rtol=0.03)
    np.testing.assert_allclose(covariance / np.outer(spread, spread), expected / np.outer(spread, spread), atol=0.04)
    normal = noise / noise.std(0)
    for lag in (1, 2):
        memory = (normal[lag:] * normal[:-lag]).mean(0)
        for number, (region, (*_, rho)) in enumerate(STATED.items()):
            np.testing.assert_allclose(memory[brain.region == number], rho**lag, atol=0.03, err_msg=region)
    first = np.stack([brain.noise(np.random.default_rng(seed), 1)[0] for seed in range(2000)])
    np.testing.assert_allclose(first.std(0), spread, rtol=0.1)  # stationary from the first scan


def test_noise_scales_with_its_setting(brain):
    louder = SOURCE.override({"noise": 2.1}).brain("sub-01")
    draw = brain.noise(np.random.default_rng(5), 50)
    np.testing.assert_allclose(louder.noise(np.random.default_rng(5), 50), 3 * draw)
    np.testing.assert_array_equal(louder.mixture, brain.mixture)
    assert (SOURCE.override({"noise": 0}).brain("sub-01").noise(np.random.default_rng(5), 50) == 0).all()
