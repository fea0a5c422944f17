"""Synthetic films, measured from their pixels and compared with formulas and loops of their own."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from cineray.datasets.sources.synthetic_film import Film, features, make_film, simple_units

PX, FPS, SCENE_S = 64, 8, 2.0
FRAMES = 16
AREA = {  # of a shape of size 1, by plane geometry
    "circle": math.pi,
    "square": 1.7**2,
    "triangle": 1.5 * (1.5 / 0.87) / 2,
    "cross": 2 * 0.6 * 2 - 0.6**2,
    "ring": math.pi * (1 - 0.44**2),
    "bar": 2 * 0.6,
}
RGB = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "magenta": (255, 0, 255),
    "cyan": (0, 255, 255),
}
SHAPES, COLOURS = tuple(AREA), tuple(RGB)
WAYS = ("right", "down right", "down", "down left", "left", "up left", "up", "up right")


@pytest.fixture(scope="module")
def film():
    return make_film(np.random.default_rng(0), 150, scene_s=SCENE_S, fps=FPS)


@pytest.fixture(scope="module")
def masks(film):
    """(scenes, frames, PX, PX) part of each pixel that the shape covers, from its brightest channel."""
    pictures = film.frames(PX).reshape(len(film), FRAMES, PX, PX, 3).astype(float)
    covered = np.empty(pictures.shape[:4])
    for scene, seen in enumerate(pictures):
        ground = np.rint(255 * film.background[scene])
        rgb = np.array(RGB[COLOURS[film.colour[scene]]], float)
        channel = np.abs(rgb - ground).argmax()
        covered[scene] = (seen[..., channel] - ground) / (rgb[channel] - ground)
    return covered


@pytest.fixture(scope="module")
def centroids(masks):
    """(scenes, frames, 2) x and y in frame widths."""
    axis = (np.arange(PX) + 0.5) / PX
    total = masks.sum((2, 3))
    return np.stack([(masks.sum(2) * axis).sum(2) / total, (masks.sum(3) * axis).sum(2) / total], axis=2)


def bouncing(film: Film, scene: int) -> tuple[np.ndarray, np.ndarray]:
    """Centre and velocity, frame after frame: straight on, and back from an edge."""
    place = np.array(film.start[scene])
    velocity = film.speed[scene] * np.array([math.cos(film.direction_rad[scene]), math.sin(film.direction_rad[scene])])
    places, velocities = [], []
    for _ in range(FRAMES):
        places.append(place.copy())
        velocities.append(velocity.copy())
        place += velocity / FPS
        for axis in (0, 1):
            if not 0 <= place[axis] <= 1:
                place[axis] = -place[axis] if place[axis] < 0 else 2 - place[axis]
                velocity[axis] *= -1
    return np.array(places), np.array(velocities)


def whole(film: Film, places: np.ndarray) -> np.ndarray:
    """(scenes, frames) whether the shape is all inside the frame."""
    room = 1.3 * film.size[:, None, None] + 1 / PX
    return np.all((places > room) & (places < 1 - room), axis=2)


def test_the_shape_moves_straight_and_bounces_off_the_edges(film, centroids):
    path, velocity = film.path()
    both = [bouncing(film, scene) for scene in range(len(film))]
    np.testing.assert_allclose(path, [places for places, _ in both], atol=1e-12)
    np.testing.assert_allclose(velocity, [velocities for _, velocities in both], atol=1e-12)
    bounced = (np.diff(velocity, axis=1) != 0).any(2)
    assert bounced.any(1).sum() > 50
    inside = whole(film, path)
    assert inside.sum() > 500
    np.testing.assert_allclose(centroids[inside], path[inside], atol=0.1 / PX)
    free = inside[:, 1:] & inside[:, :-1] & ~bounced
    measured = np.diff(centroids, axis=1) * FPS
    np.testing.assert_allclose(measured[free], velocity[:, :-1][free], atol=0.2 / PX * FPS)


def test_every_shape_has_its_area_and_its_size(film, masks):
    inside = whole(film, film.path()[0])
    area = masks.sum((2, 3)) / PX**2
    for index, name in enumerate(SHAPES):
        scenes, frames = np.nonzero(inside & (film.shape == index)[:, None])
        assert len(scenes) > 20, name
        np.testing.assert_allclose(area[scenes, frames] / film.size[scenes] ** 2, AREA[name], rtol=0.03, err_msg=name)


def test_shapes_differ_in_outline(film, masks):
    """Areas are not all: a shape's second moments about its centre, by integration over a fine grid of its own."""
    fine = (np.arange(400) + 0.5) / 200 - 1
    x, y = np.meshgrid(fine, fine)
    inside = {
        "circle": np.hypot(x, y) < 1,
        "square": (abs(x) < 0.85) & (abs(y) < 0.85),
        "triangle": (y < 0.5) & (0.87 * abs(x) < 0.5 * (1 + y)),
        "cross": (abs(x) < 0.3) | (abs(y) < 0.3),
        "ring": (np.hypot(x, y) > 0.44) & (np.hypot(x, y) < 1),
        "bar": abs(y) < 0.3,
    }
    path = film.path()[0]
    axis = (np.arange(PX) + 0.5) / PX
    for scene, frame in zip(*np.nonzero(whole(film, path) & (film.size > 0.17)[:, None]), strict=True):
        name, seen = SHAPES[film.shape[scene]], masks[scene, frame]
        across, down = ((axis - path[scene, frame, k]) / film.size[scene] for k in (0, 1))
        found = [(seen * across**2).sum() / seen.sum(), (seen * down[:, None] ** 2).sum() / seen.sum()]
        expected = [(x**2)[inside[name]].mean(), (y**2)[inside[name]].mean()]
        np.testing.assert_allclose(found, expected, rtol=0.08, err_msg=name)


def test_the_colour_is_that_of_the_pixels_and_the_ground_is_grey(film, masks):
    pictures = film.frames(PX).reshape(len(film), FRAMES, PX, PX, 3)
    for scene in range(len(film)):
        frame = int(whole(film, film.path()[0])[scene].argmax())
        seen, mask = pictures[scene, frame], masks[scene, frame]
        full = seen[mask == mask.max()]
        assert {tuple(int(c) for c in pixel) for pixel in full} == {RGB[COLOURS[film.colour[scene]]]}
        assert (seen[mask == 0] == np.rint(255 * film.background[scene])).all()


def test_the_caption_tells_what_is_seen(film, masks, centroids):
    sentence = re.compile(
        rf"^a (small|middle-sized|large) ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)}) moves ([a-z ]+), (\w+)$"
    )
    inside = whole(film, film.path()[0])
    checked = 0
    for scene in np.flatnonzero(inside[:, 0] & inside[:, 1]):
        ((size, colour, shape, way, speed),) = sentence.findall(film.caption(scene))
        assert (colour, shape) == (COLOURS[film.colour[scene]], SHAPES[film.shape[scene]])
        width = math.sqrt(masks[scene, 0].sum() / PX**2 / AREA[shape])
        step = (centroids[scene, 1] - centroids[scene, 0]) * FPS
        thirds = (width - 0.1) / 0.12 * 3, math.log(math.hypot(*step) / 0.2) / math.log(3) * 3
        eighth = math.atan2(step[1], step[0]) / (math.pi / 4)
        if all(0.1 < part % 1 < 0.9 for part in thirds) and abs(eighth - round(eighth)) < 0.4:
            checked += 1
            assert size == ("small", "middle-sized", "large")[int(thirds[0])]
            assert speed == ("slowly", "steadily", "fast")[int(thirds[1])]
            assert way == WAYS[round(eighth) % 8]
    assert checked > 15


def test_a_longer_film_begins_with_the_shorter_one(film):
    longer = make_film(np.random.default_rng(0), 201, scene_s=SCENE_S, fps=FPS)
    for name, values in vars(film).items():
        np.testing.assert_array_equal(getattr(longer, name)[: len(film)] if np.ndim(values) else values, values)
    np.testing.assert_array_equal(longer.frames(16)[: len(film) * FRAMES], film.frames(16))
    np.testing.assert_array_equal(simple_units(longer, 16)[: len(film) * FRAMES], simple_units(film, 16))
    other = make_film(np.random.default_rng(1), 150, scene_s=SCENE_S, fps=FPS)
    assert (other.start != film.start).all()


def test_properties_are_drawn_evenly_and_apart():
    many = make_film(np.random.default_rng(3), 36_000, scene_s=SCENE_S, fps=FPS)
    kinds = np.bincount(many.shape * 6 + many.colour, minlength=36)
    assert ((kinds - 1000) ** 2 / 1000).sum() < 66.6  # chi square of 35 degrees of freedom, p = .001
    numbers = [many.start[:, 0], many.start[:, 1], many.direction_rad, np.log(many.speed), many.size, many.background]
    ranges = [(0, 1), (0, 1), (0, 2 * math.pi), (math.log(0.2), math.log(0.6)), (0.1, 0.22), (0, 0.2)]
    for values, (low, high) in zip(numbers, ranges, strict=True):
        assert low <= values.min() < values.max() < high
        np.testing.assert_allclose(np.histogram(values, 10, (low, high))[0] / 3600, 1, atol=0.09)
    together = np.corrcoef([*numbers, many.shape, many.colour])
    assert abs(together - np.eye(8)).max() < 0.025


def one(**changes: object) -> Film:
    """A film of one scene: a small red circle in the middle that stands still on black."""
    nothing = np.zeros(1)
    plain = Film(
        scene_s=SCENE_S,
        fps=FPS,
        shape=np.zeros(1, int),
        colour=np.zeros(1, int),
        start=np.full((1, 2), 0.5),
        direction_rad=nothing,
        speed=nothing,
        size=np.array([0.1]),
        background=nothing,
    )
    return replace(plain, **changes)


@pytest.mark.parametrize("way", range(4))
def test_motion_energy_is_largest_in_the_true_direction(way):
    units = simple_units(one(direction_rad=np.array([way * math.pi / 2]), speed=np.array([0.2])), 32)
    energy = (units[:, 16:32] ** 2).reshape(FRAMES, 4, 4).sum(2)
    np.testing.assert_allclose(energy.sum(1), 1)
    assert (energy.argmax(1) == way).all()
    assert (energy[:, way] > 5 * energy[:, (way + 2) % 4]).all()


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 3), (1, 2), (3, 1)])
def test_contrast_and_motion_are_where_the_shape_is(row, column):
    there = np.array([[(column + 0.5) / 4, (row + 0.5) / 4]])
    still = simple_units(one(start=there), 64)
    expected = np.zeros(16)
    expected[row * 4 + column] = 1
    np.testing.assert_array_equal(still[:, :16], np.tile(expected, (FRAMES, 1)))
    assert (still[:, 16:32] == 0).all()  # nothing moves: no energy, no shares
    moving = simple_units(one(start=there, speed=np.array([0.2])), 64)[0, 16:32].reshape(4, 4)
    assert set(np.flatnonzero(moving.sum(0))) == {row // 2 * 2 + column // 2}


def test_simple_units_are_gradients_read_off_the_pictures(film):
    """Everything again for some scenes, one frame and one pixel at a time."""
    px, scenes = 16, (0, 70, 149)
    units = simple_units(film, px).reshape(len(film), FRAMES, -1)
    pictures = film.frames(px).reshape(len(film), FRAMES, px, px, 3)
    for scene in scenes:
        light = [[[sum(map(int, pixel)) / 765 for pixel in line] for line in picture] for picture in pictures[scene]]
        for frame in (0, 7, FRAMES - 1):
            earlier = min(frame, FRAMES - 2)
            contrast, motion = np.zeros((4, 4)), np.zeros((4, 2, 2))
            for y in range(px):
                for x in range(px):
                    above, below, left, right = max(y - 1, 0), min(y + 1, px - 1), max(x - 1, 0), min(x + 1, px - 1)
                    down = (light[frame][below][x] - light[frame][above][x]) / (below - above)
                    across = (light[frame][y][right] - light[frame][y][left]) / (right - left)
                    change = light[earlier + 1][y][x] - light[earlier][y][x]
                    contrast[y // 4, x // 4] += down**2 + across**2
                    for way, slope in enumerate((across, down, -across, -down)):
                        motion[way, y // 8, x // 8] += max(0.0, -change * slope)
            shares = [np.sqrt(energy / energy.sum()).ravel() for energy in (contrast, motion)]
            kinds = [float(film.shape[scene] == k) for k in range(6)] + [
                float(film.colour[scene] == k) for k in range(6)
            ]
            np.testing.assert_allclose(units[scene, frame], np.concatenate([*shares, kinds]), atol=2e-4)


def test_shares_sum_to_one_or_are_none():
    units = simple_units(make_film(np.random.default_rng(2), 40, scene_s=SCENE_S, fps=FPS), 4)
    for part in (units[:, :16], units[:, 16:32]):
        sums = (part**2).sum(1)
        assert np.all(np.isclose(sums, 1) | (sums == 0))
    assert np.isfinite(units).all()
    lost = simple_units(one(start=np.array([[0.25, 0.25]]), size=np.array([0.01])), 4)
    assert (lost[:, :32] == 0).all()


def test_features_are_means_over_a_scene_and_its_kind(film):
    units = simple_units(film, 16)
    found = features(film, units)
    assert (found.shape, found.dtype) == ((150, 80), np.float32)
    for scene in (0, 64, 149):
        mean = sum(units[scene * FRAMES + frame] for frame in range(FRAMES)) / FRAMES
        np.testing.assert_allclose(found[scene, :44], mean, rtol=1e-5, atol=1e-7)
        kind = int(film.shape[scene]) * 6 + int(film.colour[scene])
        assert found[scene, 44:].tolist() == [float(number == kind) for number in range(36)]
