"""Figures against their goals: what every benchmark's page and JSON line say of a figure.

A figure's key is its goal's id with its document, and what else tells it from others of the same goal, parted by
slashes: ``perf.D1``, ``perf.T1/ddp``. What belongs to no goal stands below ``other/``.
"""

from collections.abc import Iterable
from typing import Any

__all__ = ["figures", "verdict"]


def verdict(value: float, sense: str, floor: float, target: float) -> str:
    """``target``, ``floor`` or ``MISSED``; ``sense`` is ``>=`` where more is better, else ``<=``."""

    def meets(limit: float) -> bool:
        return value >= limit if sense == ">=" else value <= limit

    return "target" if meets(target) else "floor" if meets(floor) else "MISSED"


def figures(found: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """For the JSON line: ``perf.T1/ddp`` becomes ``{"perf.T1": {"ddp": ...}}``.

    Raises:
        ValueError: a key stands twice, or is a figure and a group of figures.
    """
    nested: dict[str, Any] = {}
    for key, value in found:
        *groups, last = key.split("/")
        group = nested
        for name in groups:
            group = group.setdefault(name, {})
            if not isinstance(group, dict):
                raise ValueError(f"found the figure '{key}' below a figure, expected it below a group")
        if last in group:
            raise ValueError(f"found '{key}' twice, expected every figure once")
        group[last] = value
    return nested
