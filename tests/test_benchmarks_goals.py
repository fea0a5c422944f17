"""Verdicts of the benchmarks: more is better, less is better, and the limits themselves are met."""

import pytest
from benchmarks.goals import verdict


@pytest.mark.parametrize(
    ("value", "more", "less"),
    [(0.9, "MISSED", "target"), (1.0, "floor", "target"), (1.5, "floor", "floor"), (2.0, "target", "floor")],
)
def test_floor_and_target_are_met_from_their_own_side(value, more, less):
    assert (verdict(value, ">=", 1.0, 2.0), verdict(value, "<=", 2.0, 1.0)) == (more, less)


def test_beyond_the_floor_is_missed():
    assert verdict(2.1, "<=", 2.0, 1.0) == "MISSED"
