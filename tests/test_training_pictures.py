"""Pixel, colour and motion metrics against other libraries, plain loops and pictures whose answer is known."""

import colorsys

import numpy as np
import pytest
import torch
from skimage.color import rgb2gray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure
from torchvision.transforms import v2

from cineray.core.errors import ConfigError
from cineray.training.pictures.flow import endpoint_error, farneback, flow_cosine
from cineray.training.pictures.hue import hue, hue_animator
from cineray.training.pictures.pixcorr import pixcorr
from cineray.training.pictures.psnr import psnr
from cineray.training.pictures.resize import FrameRule, resized
from cineray.training.pictures.ssim import LUMINANCE, ssim, ssim_columns, ssim_rgb


def smooth_noise(seed: int, frames: int = 2, px: int = 64, cells: int = 9) -> np.ndarray:
    """Coloured clouds, (frames, px, px, 3) float32, 0 to 255."""
    cloud = np.random.default_rng(seed).integers(0, 256, (frames, cells, cells, 3), np.uint8)
    return np.rint(resized(cloud, px))


A, B = smooth_noise(0).astype(float), smooth_noise(1).astype(float)


def test_ssim_is_scikit_images_on_grey_pictures():
    for x, y in ((A, B), (A, A)):
        expected = [
            structural_similarity(
                rgb2gray(a / 255), rgb2gray(b / 255), data_range=1.0, gaussian_weights=True, sigma=1.5,
                use_sample_covariance=False,
            )
            for a, b in zip(x, y, strict=True)
        ]  # fmt: skip
        assert ssim(x, y) == pytest.approx(np.mean(expected), abs=1e-9)


def test_ssim_is_torchmetrics_as_well():
    x, y = (torch.from_numpy(v @ LUMINANCE / 255)[:, None] for v in (A, B))
    found = structural_similarity_index_measure(x, y, sigma=1.5, data_range=1.0, return_full_image=True)
    full = found[1].squeeze()
    assert ssim(A, B) == pytest.approx(float(full[:, 5:-5, 5:-5].mean()), abs=1e-6)


def test_ssim_by_a_direct_sum_over_one_window():
    """An 11 x 11 picture has one full window."""
    x, y = (v[0, :11, :11] @ LUMINANCE for v in (A, B))
    g = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    w = np.outer(g, g) / g.sum() ** 2
    mx, my = (w * x).sum(), (w * y).sum()
    vx, vy, cov = (w * (x - mx) ** 2).sum(), (w * (y - my) ** 2).sum(), (w * (x - mx) * (y - my)).sum()
    c1, c2 = 2.55**2, 7.65**2
    expected = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    assert ssim(A[:1, :11, :11], B[:1, :11, :11]) == pytest.approx(expected)


def test_legacy_ssim_by_colour_and_by_column():
    rgb = [structural_similarity(a, b, data_range=255, channel_axis=-1) for a, b in zip(A, B, strict=True)]
    assert ssim_rgb(A, B) == pytest.approx(np.mean(rgb), abs=1e-6)
    columns = [
        structural_similarity(
            rgb2gray(a / 255), rgb2gray(b / 255), data_range=1.0, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False, channel_axis=-1,
        )
        for a, b in zip(A, B, strict=True)
    ]  # fmt: skip
    assert ssim_columns(A, B) == pytest.approx(np.mean(columns), abs=1e-9)
    one = [
        structural_similarity(
            a[:, k], b[:, k], data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for a, b in zip(A @ LUMINANCE, B @ LUMINANCE, strict=True)
        for k in range(A.shape[2])
    ]
    assert ssim_columns(A, B) == pytest.approx(np.mean(one), abs=1e-9)
    assert len({round(f(A, B), 3) for f in (ssim, ssim_rgb, ssim_columns)}) == 3


def test_psnr_is_scikit_images_and_has_a_cap():
    x, y = A.astype(np.uint8), B.astype(np.uint8)
    expected = [peak_signal_noise_ratio(b, a, data_range=255) for a, b in zip(x, y, strict=True)]
    assert psnr(A, B) == pytest.approx(np.mean(expected))
    assert psnr(A, A) == 100.0
    assert psnr(A + 0.4, A) == 100.0, "pixels are whole numbers"
    half = np.concatenate([A[:1], B[1:]])
    assert psnr(A, half) == pytest.approx((100 + expected[1]) / 2)


def test_pixcorr_is_pearson_frame_by_frame():
    expected = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(A, B, strict=True)]
    assert pixcorr(A, B) == pytest.approx(np.mean(expected), abs=1e-7)
    assert pixcorr(A, 0.3 * A + 20) == pytest.approx(1, abs=1e-6)
    assert pixcorr(A, np.full_like(A, 128)) == 0.0


def test_resizing_is_torchvisions():
    picture = np.random.default_rng(0).integers(0, 256, (2, 40, 60, 3), np.uint8)
    for antialias in (True, False):
        tensor = torch.from_numpy(picture).permute(0, 3, 1, 2).float()
        expected = v2.functional.resize(tensor, [17, 17], antialias=antialias).permute(0, 2, 3, 1)
        np.testing.assert_allclose(resized(picture, 17, antialias=antialias), expected, atol=1e-3)
    assert np.abs(resized(picture, 17) - resized(picture, 17, antialias=False)).max() > 10
    np.testing.assert_array_equal(resized(picture[:, :40, :40], 40), picture[:, :40, :40])


def wheel(turn: float = 0.0, sense: int = 1, px: int = 48) -> np.ndarray:
    """All hues around the centre, saturated, (1, px, px, 3)."""
    axis = np.arange(px) - (px - 1) / 2
    angle = np.arctan2(axis[:, None], axis) / (2 * np.pi)
    # Four lobes more on one side, so that the hues have a mean direction.
    value = (0.25 * np.cos(2 * np.pi * angle) + 0.1 * np.sin(4 * np.pi * angle)) * sense + turn
    rgb = [[colorsys.hsv_to_rgb(v % 1.0, 1.0, 1.0) for v in row] for row in value]
    return 255 * np.array(rgb, np.float32)[None]


def test_hue_follows_a_turned_and_a_reversed_colour_wheel():
    assert hue(wheel(), wheel()) == pytest.approx(1)
    assert hue(wheel(0.4), wheel()) == pytest.approx(1, abs=1e-5), "all colours turned by one angle"
    assert hue(wheel(sense=-1), wheel()) == pytest.approx(-1, abs=1e-5)
    assert hue_animator(wheel(0.4), wheel()) < 0.9


def test_hue_by_its_formula_on_weighted_angles():
    rng = np.random.default_rng(3)
    h, s = rng.uniform(0, 1, (2, 8, 8)), rng.uniform(0, 1, (2, 8, 8))
    x, y = (
        255
        * np.array([[colorsys.hsv_to_rgb(*p, 1.0) for p in zip(*row, strict=True)] for row in zip(hh, ss, strict=True)])
        for hh, ss in zip(h, s, strict=True)
    )
    w, (a, b) = s[0] * s[1], 2 * np.pi * h
    mean_a, mean_b = (np.arctan2((w * np.sin(t)).sum(), (w * np.cos(t)).sum()) for t in (a, b))
    num = (w * np.sin(a - mean_a) * np.sin(b - mean_b)).sum()
    expected = num / np.sqrt((w * np.sin(a - mean_a) ** 2).sum() * (w * np.sin(b - mean_b) ** 2).sum())
    assert hue(x[None], y[None]) == pytest.approx(expected, abs=1e-6)


def test_hue_of_unrelated_clouds_is_about_zero_and_the_published_one_is_not():
    pairs = [(smooth_noise(k, 1), smooth_noise(k + 100, 1)) for k in range(40)]
    assert np.mean([hue(a, b) for a, b in pairs]) == pytest.approx(0, abs=0.1)
    assert np.mean([hue_animator(a, b) for a, b in pairs]) > 0.5


def test_hue_where_there_is_none():
    grey = np.full((1, 8, 8, 3), 90, np.float32)
    assert hue(grey, wheel(px=8)) == 0.0
    assert np.isnan(hue(wheel(px=8), grey))


def sliding(pixels_per_s: float, fps: float, seconds: float = 2.0, px: int = 96) -> np.ndarray:
    """A fixed texture that moves to the right, (frames, px, px, 3)."""
    wide = smooth_noise(5, 1, px=2 * px, cells=24)[0]
    at = [px - 20 - round(pixels_per_s * k / fps) for k in range(round(seconds * fps))]
    return np.stack([wide[:px, x : x + px] for x in at])


def test_epe_of_a_known_translation():
    """12 px/s to the right; the error of a still prediction is the speed, whatever the frame rate."""
    for fps in (3.0, 6.0):
        moving = farneback(sliding(12, fps))
        still = farneback(np.repeat(sliding(12, fps)[:1], len(moving) + 1, 0))
        np.testing.assert_allclose(moving[:, 24:-24, 24:-24].mean((0, 1, 2)) * fps, [12, 0], atol=0.3)
        assert endpoint_error(moving, moving) == 0.0
        assert endpoint_error(still[:, 24:-24, 24:-24], moving[:, 24:-24, 24:-24]) * fps == pytest.approx(12, abs=0.4)
        np.testing.assert_allclose(still[:, 24:-24, 24:-24], 0, atol=1e-2)
    assert not farneback(np.full((3, 64, 64, 3), 128, np.float32)).any()


def test_flow_cosine_knows_directions():
    right, left = (farneback(sliding(v, 3)) for v in (12, -12))
    inner = (slice(None), slice(24, -24), slice(24, -24))
    assert flow_cosine(right[inner], right[inner]) == pytest.approx(1, abs=1e-3)
    assert flow_cosine(left[inner], right[inner]) < -0.95
    assert flow_cosine(0 * right, right) == 0.0
    assert np.isnan(flow_cosine(right, 0.01 * right)), "nothing in the truth moves by a pixel"


def test_the_published_epe_sees_other_greys():
    red = smooth_noise(9, 3)
    red[..., 2] = 0
    assert np.abs(farneback(red, swapped=True) - farneback(red)).max() > 0
    np.testing.assert_array_equal(farneback(red, swapped=True), farneback(red[..., ::-1]))


@pytest.mark.parametrize(
    ("rule", "truth_fps", "expected_s"),
    [
        (FrameRule(), 8.0, np.arange(6) / 3),
        (FrameRule(), 2.0, np.arange(4) / 2),
        (FrameRule(fps=4), 8.0, np.arange(8) / 4),
        (FrameRule(), 0.25, [0.0]),
    ],
)
def test_compared_moments(rule, truth_fps, expected_s):
    np.testing.assert_allclose(rule.moments_s(2.0, truth_fps), expected_s)


def test_frames_are_the_nearest_ones():
    video = np.arange(16, dtype=np.uint8)
    moments = FrameRule().moments_s(2.0, 8.0)
    assert FrameRule.frames_at(video, 8.0, moments).tolist() == [0, 3, 5, 8, 11, 13]
    assert FrameRule.frames_at(video[:1], 1.0, moments).tolist() == [0] * 6
    loop = [min(range(16), key=lambda k: abs(k / 8 - t)) for t in moments]
    assert FrameRule.frames_at(video, 8.0, moments).tolist() == loop


def test_the_published_slice_of_a_prediction():
    rule, video = FrameRule(predicted_fps=8, first=4, step=2), np.arange(16, dtype=np.uint8)
    moments = rule.predicted_moments_s(rule.moments_s(2.0, 3.0))
    np.testing.assert_array_equal(FrameRule.frames_at(video, 8.0, moments), video[4::2])
    assert FrameRule().predicted_moments_s(moments) is moments
    with pytest.raises(ConfigError, match="only beside predicted_fps"):
        FrameRule.parse({"first": 4})
