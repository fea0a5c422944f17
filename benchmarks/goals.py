"""Figures against their goals: what every benchmark's page says of a line."""

__all__ = ["verdict"]


def verdict(value: float, sense: str, floor: float, target: float) -> str:
    """``target``, ``floor`` or ``MISSED``; ``sense`` is ``>=`` where more is better, else ``<=``."""

    def meets(limit: float) -> bool:
        return value >= limit if sense == ">=" else value <= limit

    return "target" if meets(target) else "floor" if meets(floor) else "MISSED"
