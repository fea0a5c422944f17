"""What codecs and engines read: numbers of the right shape may mean something else, which no arithmetic notices."""

from dataclasses import dataclass

from cineray.core.errors import ConfigError
from cineray.datasets.schema import TensorSpec
from cineray.datasets.sources.stimulus_table import AS_GIVEN

__all__ = ["Accepts"]


@dataclass(frozen=True)
class Accepts:
    """The targets that a part reads as they are meant."""

    part: str
    """As errors call it."""
    shapes: tuple[tuple[int | str, ...], ...]
    """Of one stimulus; a word stands for any length."""
    units: tuple[str, ...]
    """Targets in other units are refused, but those of a table, for which its owner answers."""
    remedy: str
    """Of errors: what to do."""

    def require(self, target: str, spec: TensorSpec) -> None:
        """Refuse a target of another shape or unit.

        Raises:
            ConfigError: says what it is, what the part reads, and the remedy.
        """
        if any(_fits(spec.shape, shape) for shape in self.shapes) and spec.unit in (*self.units, AS_GIVEN):
            return
        shapes = " or ".join(f"({', '.join(map(str, shape))})" for shape in self.shapes)
        raise ConfigError(
            f"'{target}' is {spec.shape} in {spec.unit}, expected {shapes} in {' or '.join(self.units)} for "
            f"{self.part}; {self.remedy}"
        )


def _fits(found: tuple[int, ...], expected: tuple[int | str, ...]) -> bool:
    return len(found) == len(expected) and all(
        isinstance(wanted, str) or wanted == side for side, wanted in zip(found, expected, strict=True)
    )
