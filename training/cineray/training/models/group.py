"""Second moments of a group that watched the same film, and the closed-form pieces that are solved from them.

Every piece below needs the rows only through products summed over rows. Kept per person, those make it cheap to leave
each person out in turn.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cineray.core.errors import DataError

__all__ = [
    "Group",
    "Moments",
    "Person",
    "encoder",
    "least_squares_factor",
    "matched_filter",
    "noise_scatter",
    "personal_map",
]

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Moments:
    """Sums over rows of products of stimulus values y (rows, p) and brains x (rows, v)."""

    xx: Array
    """(v, v)."""
    yx: Array
    """(p, v)."""
    yy: Array
    """(p, p)."""

    @classmethod
    def of(cls, x: Array, y: Array) -> "Moments":
        """Of rows, as they are."""
        return cls(x.T @ x, y.T @ x, y.T @ y)

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.xx + other.xx, self.yx + other.yx, self.yy + other.yy)

    def __sub__(self, other: "Moments") -> "Moments":
        return Moments(self.xx - other.xx, self.yx - other.yx, self.yy - other.yy)

    def __truediv__(self, num: int) -> "Moments":
        return Moments(self.xx / num, self.yx / num, self.yy / num)


@dataclass(frozen=True)
class Person:
    """One person's rows beside everybody's."""

    own: Moments
    """With the person's own labels."""
    total_x: Array
    """(v, v): everybody's summed brain times this brain."""
    total_y: Array
    """(p, v): everybody's summed labels times this brain."""


class Group:
    """People who saw the same rows; brains and labels are centred on each person's own means.

    Args:
        brains: person -> (rows, voxels).
        labels: person -> (rows, values): what was on the screen.
    """

    def __init__(self, brains: Mapping[str, Array], labels: Mapping[str, Array]) -> None:
        self.mean_brain = {s: _mean(x) for s, x in brains.items()}
        self.mean_label = {s: _mean(y) for s, y in labels.items()}
        total_x = np.sum([x - self.mean_brain[s] for s, x in brains.items()], axis=0)
        total_y = np.sum([y - self.mean_label[s] for s, y in labels.items()], axis=0)
        self.total_xx = total_x.T @ total_x
        self.people: dict[str, Person] = {}
        for s in brains:
            x, y = brains[s] - self.mean_brain[s], labels[s] - self.mean_label[s]
            self.people[s] = Person(Moments.of(x, y), total_x.T @ x, total_y.T @ x)

    @cached_property
    def all(self) -> Moments:
        """Summed over everybody."""
        first, *rest = (person.own for person in self.people.values())
        return sum(rest, start=first)

    def others(self, subject: str) -> list[str]:
        """Everybody else."""
        return [s for s in self.people if s != subject]

    def without(self, subject: str) -> Moments:
        """Mean over the others."""
        rest = self.all - self.people[subject].own if subject in self.people else self.all
        return rest / len(self.others(subject))

    def labelled_by_others(self, subject: str) -> Moments:
        """One person's brain with the labels that the others have for the same rows; own labels are not used."""
        person, num = self.people[subject], len(self.others(subject))
        return Moments(person.own.xx, (person.total_y - person.own.yx) / num, self.without(subject).yy)

    def response(self, subject: str) -> tuple[Array, Array]:
        """g'g and g'x, (v, v) each: g is the mean brain of the others, x the person's."""
        person, num = self.people[subject], len(self.others(subject))
        gx = person.total_x - person.own.xx
        return (self.total_xx - person.total_x - gx.T) / num**2, gx / num


def encoder(m: Moments, penalty: float) -> Array:
    """Ridge regression of the brain on the stimulus: B (p, v) in x = y B."""
    return np.linalg.solve(m.yy + penalty * np.eye(len(m.yy)), m.yx)


def noise_scatter(m: Moments, encoding: Array) -> Array:
    """(v, v): scatter of what the encoding leaves, (x - y B)'(x - y B)."""
    cross = m.yx.T @ encoding
    return m.xx - cross - cross.T + encoding.T @ m.yy @ encoding


def personal_map(gg: Array, gx: Array, penalty: float) -> Array:
    """M (v, v) in x = g M by a ridge regression that shrinks towards the identity instead of zero."""
    eye = np.eye(len(gg))
    return eye + np.linalg.solve(gg + penalty * eye, gx - gg)


def matched_filter(encoding: Array, noise: Array, penalty: float, gain: float) -> Array:
    """(v, p): S⁻¹ B' with column p scaled by (b_p S⁻¹ b_p')^(gain / 2); the penalty shrinks S."""
    filters = np.linalg.solve(noise + penalty * np.eye(len(noise)), encoding.T)
    snr = np.maximum((encoding.T * filters).sum(0), 0.0)
    return filters * snr ** (gain / 2)


def least_squares_factor(m: Moments, weights: Array) -> float:
    """What x W must be multiplied by to come closest to y over all rows and values.

    Raises:
        DataError: x W is zero, as it is where labels do not vary.
    """
    size = float((weights * (m.xx @ weights)).sum())
    if size == 0:
        raise DataError(
            "the labels or the scans of the common training rows are constant, expected some that vary; "
            "train on more rows (view.split.train) or on another target (view.targets)"
        )
    return float((m.yx.T * weights).sum() / size)


def _mean(x: Array) -> Array:
    """(columns,) means of rows; that of a constant column is exact, so that centring leaves zero and not rounding."""
    return x[0] + (x - x[0]).mean(0, dtype=np.float64)
