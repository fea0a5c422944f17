"""A picture moved by a coarse flow: every pixel by a loop, whole shifts, noise left out."""

import numpy as np
import pytest
from scipy import ndimage

from cineray.serving.generators.warp import dense_flow, displaced


@pytest.fixture(scope="module")
def picture():
    rng = np.random.default_rng(0)
    return ndimage.gaussian_filter(rng.uniform(0, 255, (24, 32, 3)), (1, 1, 0)).astype(np.uint8)


def test_whole_pixels_by_rolling(picture):
    """3 right and 1 up a frame; the picture itself stands at frame 2."""
    flow = np.broadcast_to(np.array([3, -1], np.float32), (4, 24, 32, 2))
    video = displaced(picture, flow, 2)
    assert (video.shape, video.dtype) == ((5, 24, 32, 3), np.uint8)
    np.testing.assert_array_equal(video[2], picture)
    for frame in range(5):
        moved = np.roll(picture, (-(frame - 2), 3 * (frame - 2)), (0, 1))
        np.testing.assert_array_equal(video[frame, 2:-2, 6:-6], moved[2:-2, 6:-6])


def test_parts_of_pixels_by_scipy(picture):
    """Another flow at every pixel and step, looked up bilinearly where the sum says; edges repeat."""
    rng = np.random.default_rng(1)
    flow = ndimage.gaussian_filter(rng.normal(0, 9, (3, 24, 32, 2)), (0, 4, 4, 0)).astype(np.float32)
    video = displaced(picture, flow, 1)
    y, x = np.indices((24, 32))
    for frame, way in ((0, -flow[0]), (1, 0 * flow[0]), (2, flow[1]), (3, flow[1] + flow[2])):
        for channel in range(3):
            expected = ndimage.map_coordinates(
                picture[..., channel].astype(float), [y - way[..., 1], x - way[..., 0]], order=1, mode="nearest"
            )
            assert np.abs(video[frame, ..., channel] - expected).max() < 5, "OpenCV looks up 1/32 of a pixel"


def test_steps_and_places_are_spread_over_the_video():
    flow = np.zeros((2, 2, 2, 2), np.float32)
    flow[0, :, 1, 0] = 0.1
    flow[1, 0, :, 1] = -0.2
    dense = dense_flow(flow, 6, 8, 16, 0)
    assert dense.shape == (5, 8, 16, 2)
    first, second = dense[:3], dense[3:]
    np.testing.assert_allclose(first[:, :, 12:, 0], 1.6, rtol=1e-5)
    np.testing.assert_allclose(first[:, :, :4, 0], 0)
    assert (np.diff(first[0, 0, :, 0]) >= 0).all(), "between two places speed rises steadily"
    np.testing.assert_allclose(second[:, :2, :, 1], -1.6, rtol=1e-5)
    assert not first[..., 1].any()
    assert not second[..., 0].any()


def test_faint_motion_is_left_out():
    """By the garrote's formula for each vector: v (1 - (t / |v|)²), and nothing below t."""
    rng = np.random.default_rng(2)
    flow = rng.normal(0, 1, (1, 5, 5, 2)).astype(np.float32)
    dense = dense_flow(flow, 2, 5, 5, 1.0)
    for row in range(5):
        for column in range(5):
            vector = flow[0, row, column]
            speed = np.hypot(*vector)
            kept = vector * (1 - 1 / speed**2) if speed > 1 else 0 * vector
            np.testing.assert_allclose(dense[0, row, column], 5 * kept, atol=1e-5)
    np.testing.assert_array_equal(dense_flow(np.zeros_like(flow), 2, 5, 5, 0.0), 0)
