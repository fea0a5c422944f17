"""Films whose content is known: one coloured shape a scene, moving in a straight line and bouncing off the edges."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "COLOURS",
    "DIRECTIONS",
    "NUM_FEATURES",
    "PLACES",
    "SHAPES",
    "Film",
    "contrast_units",
    "features",
    "make_film",
    "motion_units",
    "simple_units",
]

SHAPES = ("circle", "square", "triangle", "cross", "ring", "bar")
COLOURS = {
    "red": (1, 0, 0),
    "green": (0, 1, 0),
    "blue": (0, 0, 1),
    "yellow": (1, 1, 0),
    "magenta": (1, 0, 1),
    "cyan": (0, 1, 1),
}
PLACES = 4
"""Contrast is pooled in PLACES x PLACES squares of the frame, motion energy in half as many each way."""
DIRECTIONS = 4
"""Right, down, left, up."""
NUM_SIMPLE = PLACES**2 + DIRECTIONS * (PLACES // 2) ** 2 + len(SHAPES) + len(COLOURS)
NUM_FEATURES = NUM_SIMPLE + len(SHAPES) * len(COLOURS)
SMALLEST, SIZES = 0.1, 0.12
"""`Film.size` of the smallest shape, and how much more the largest has."""
SLOWEST, SPEEDS = 0.2, 3.0
"""Frame widths per second of the slowest shape, and how many times as fast the fastest is."""
PART = 64
"""Scenes drawn at a time."""


@dataclass(frozen=True)
class Film:
    """Scenes of one length after another. Places, sizes and speeds are in frame widths; y points down."""

    scene_s: float
    fps: int
    shape: NDArray[np.int64]
    """(scenes,) index into `SHAPES`."""
    colour: NDArray[np.int64]
    """(scenes,) index into `COLOURS`."""
    start: NDArray[np.float64]
    """(scenes, 2) x and y of the centre at the scene's first frame."""
    direction_rad: NDArray[np.float64]
    speed: NDArray[np.float64]
    """(scenes,) frame widths per second."""
    size: NDArray[np.float64]
    """(scenes,) half the width of the box around the shape, nearly (a square has 0.85 of it, a triangle 0.86)."""
    background: NDArray[np.float64]
    """(scenes,) grey level, 0 to 1."""

    def __len__(self) -> int:
        return len(self.shape)

    @property
    def scene_frames(self) -> int:
        """Frames of one scene."""
        return round(self.scene_s * self.fps)

    def path(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Centre and velocity, both (scenes, frames, 2), reflected where the centre touches an edge."""
        seconds = np.arange(self.scene_frames) / self.fps
        heading = np.stack([np.cos(self.direction_rad), np.sin(self.direction_rad)], 1) * self.speed[:, None]
        free = np.mod(self.start[:, None] + heading[:, None] * seconds[:, None], 2)
        back = free > 1
        return np.where(back, 2 - free, free), heading[:, None] * np.where(back, -1.0, 1.0)

    def caption(self, scene: int) -> str:
        """One sentence, e.g. ``"a small red circle moves right, fast"``.

        Sizes and log speeds are told in thirds of their ranges, the direction the scene begins with to the next 45°.
        """
        size = ("small", "middle-sized", "large")[int((self.size[scene] - SMALLEST) / SIZES * 3)]
        speed = ("slowly", "steadily", "fast")[int(math.log(self.speed[scene] / SLOWEST) / math.log(SPEEDS) * 3)]
        turn = round(self.direction_rad[scene] / (2 * math.pi / 8)) % 8
        way = ("right", "down right", "down", "down left", "left", "up left", "up", "up right")[turn]
        return f"a {size} {list(COLOURS)[self.colour[scene]]} {SHAPES[self.shape[scene]]} moves {way}, {speed}"

    def frames(self, px: int) -> NDArray[np.uint8]:
        """Pictures, (scenes · frames, px, px, 3), edges smoothed over one pixel."""
        return np.concatenate([self._pictures(px, part) for part in self.parts()])

    def parts(self) -> Iterator[slice]:
        """Scenes in pieces small enough to hold all their pixels."""
        yield from (slice(first, first + PART) for first in range(0, len(self), PART))

    def _pictures(self, px: int, part: slice) -> NDArray[np.uint8]:
        centre, shape, size = self.path()[0][part], self.shape[part], self.size[part, None, None, None]
        axis = (np.arange(px) + 0.5) / px
        x = (axis - centre[..., :1])[..., None, :] / size
        y = (axis - centre[..., 1:])[..., :, None] / size
        mask = np.empty((*centre.shape[:2], px, px))
        for index, name in enumerate(SHAPES):
            chosen = shape == index
            distance = _distance(name, x[chosen], y[chosen]) * size[chosen]
            mask[chosen] = np.clip(0.5 - distance * px, 0, 1)
        colour = np.array(list(COLOURS.values()), float)[self.colour[part]][:, None, None, None]
        grey = self.background[part, None, None, None, None]
        picture = grey + mask[..., None] * (colour - grey)
        return np.rint(255 * picture).astype(np.uint8).reshape(-1, px, px, 3)


def make_film(rng: np.random.Generator, num_scenes: int, *, scene_s: float, fps: int) -> Film:
    """Draw scenes; every property is independent of every other and of the scenes before.

    A longer film of the same ``rng`` begins with the shorter one.
    """
    draw = rng.random((num_scenes, 8)).T
    return Film(
        scene_s=scene_s,
        fps=fps,
        shape=(draw[1] * len(SHAPES)).astype(np.int64),
        colour=(draw[2] * len(COLOURS)).astype(np.int64),
        start=draw[3:5].T,
        direction_rad=2 * math.pi * draw[5],
        speed=SLOWEST * SPEEDS ** draw[6],
        size=SMALLEST + SIZES * draw[0],
        background=0.2 * draw[7],
    )


def simple_units(film: Film, px: int) -> NDArray[np.float64]:
    """What can be read off the pictures without conjunctions: (frames, `NUM_SIMPLE`).

    `contrast_units` and `motion_units` of every scene, then one-hot shape and colour.
    """
    parts = (film._pictures(px, part) for part in film.parts())
    seen = np.concatenate(
        [np.concatenate([contrast_units(part), motion_units(part, film.scene_frames)], axis=1) for part in parts]
    )
    category = np.concatenate([np.eye(len(SHAPES))[film.shape], np.eye(len(COLOURS))[film.colour]], axis=1)
    return np.concatenate([seen, np.repeat(category, film.scene_frames, axis=0)], axis=1)


def features(film: Film, simple: NDArray[np.float64]) -> NDArray[np.float32]:
    """Simple units averaged over every scene, then one-hot kind (shape and colour at once): (scenes, `NUM_FEATURES`).

    Motion energy and categories, the two feature spaces of Nishimoto et al. (2011, doi:10.1016/j.cub.2011.08.031) and
    Huth et al. (2012, doi:10.1016/j.neuron.2012.10.014).
    """
    kind = np.eye(len(SHAPES) * len(COLOURS))[film.shape * len(COLOURS) + film.colour]
    scenes = simple.reshape(len(film), film.scene_frames, -1).mean(1)
    return np.concatenate([scenes, kind], axis=1).astype(np.float32)


def contrast_units(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Squared spatial gradient in 4 x 4 places of square pictures: (frames, 16).

    Each is the square root of its share of the frame's sum; a frame without any (a shape lost between few pixels) has
    none.
    """
    down, right = _gradient(_light(frames))
    return _shares(_pooled(down**2 + right**2, PLACES))


def motion_units(frames: NDArray[np.uint8], scene_frames: int) -> NDArray[np.float64]:
    """Motion energy in 4 directions and 2 x 2 places of square pictures: (frames, 16).

    The rectified product of the temporal and the spatial gradient, the gradient form of Adelson & Bergen (1985,
    doi:10.1364/JOSAA.2.000284), as the square root of its share of the frame's sum. The change from one scene of
    ``scene_frames`` to the next is not motion: the last frame of a scene repeats the change before it.
    """
    light = _light(frames)
    change = np.diff(light.reshape(-1, scene_frames, *light.shape[1:]), axis=1)
    change = np.concatenate([change, change[:, -1:]], axis=1).reshape(light.shape)
    down, right = _gradient(light)
    towards = (right, down, -right, -down)
    energy = [_pooled(np.maximum(-change * gradient, 0), PLACES // 2) for gradient in towards]
    return _shares(np.concatenate(energy, axis=1))


def _light(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    return frames.mean(3, dtype=np.float32) / np.float32(255)


def _gradient(light: NDArray[np.float32]) -> NDArray[np.float32]:
    """(2, frames, px, px): downwards, and to the right."""
    return np.stack([np.gradient(light, axis=axis) for axis in (1, 2)])


def _pooled(energy: NDArray[np.float32], grid: int) -> NDArray[np.float64]:
    """(frames, px, px) to (frames, grid²), row by row."""
    side = energy.shape[1] // grid
    return energy.reshape(-1, grid, side, grid, side).sum((2, 4), dtype=np.float64).reshape(-1, grid**2)


def _shares(energy: NDArray[np.float64]) -> NDArray[np.float64]:
    """Square roots of shares of the frame's sum, 0 where that is 0."""
    total = energy.sum(1, keepdims=True)
    return np.sqrt(np.divide(energy, total, out=np.zeros_like(energy), where=total > 0))


def _distance(name: str, x: NDArray, y: NDArray) -> NDArray:
    """Distance to the outline in `Film.size`, negative inside; exact near a side, a bound near a corner.

    After Quilez, 2D distance functions. A triangle points up and has its centroid in the middle.
    """
    box = np.maximum(np.abs(x), np.abs(y)) - 0.85
    match name:
        case "circle":
            return np.hypot(x, y) - 1
        case "square":
            return box
        case "triangle":
            return np.maximum(np.abs(x) * 0.87 - y * 0.5, y) - 0.5
        case "cross":
            return np.maximum(np.minimum(np.abs(x), np.abs(y)) - 0.3, box - 0.15)
        case "ring":
            return np.abs(np.hypot(x, y) - 0.72) - 0.28
        case _:
            return np.maximum(np.abs(x) - 1, np.abs(y) - 0.3)
