"""Goals of the benchmarks: verdicts (more is better, less is better, the limits themselves are met) and keys."""

import re

import pytest
from benchmarks import bench_features_report, bench_gpu, bench_stream_report, bench_training_report
from benchmarks.goals import figures, verdict


@pytest.mark.parametrize(
    ("value", "more", "less"),
    [(0.9, "MISSED", "target"), (1.0, "floor", "target"), (1.5, "floor", "floor"), (2.0, "target", "floor")],
)
def test_floor_and_target_are_met_from_their_own_side(value, more, less):
    assert (verdict(value, ">=", 1.0, 2.0), verdict(value, "<=", 2.0, 1.0)) == (more, less)


def test_beyond_the_floor_is_missed():
    assert verdict(2.1, "<=", 2.0, 1.0) == "MISSED"


def test_figures_of_one_goal_stand_together():
    found = [("perf.D1", 0.97), ("perf.T1/plain", 1.9), ("perf.T1/ddp", None), ("other/zero1/memory", 0.9)]
    assert figures(found) == {
        "perf.D1": 0.97,
        "perf.T1": {"plain": 1.9, "ddp": None},
        "other": {"zero1": {"memory": 0.9}},
    }


@pytest.mark.parametrize("second", ["perf.T1", "perf.T1/ddp/fp32", "perf.T1/ddp"])
def test_a_key_is_one_figure_or_one_group(second):
    with pytest.raises(ValueError, match=r"perf\.T1"):
        figures([("perf.T1/ddp", 1.0), (second, 2.0)])


@pytest.mark.parametrize("report", [bench_features_report, bench_gpu, bench_stream_report, bench_training_report])
def test_every_limit_is_of_a_goal_by_its_id(report):
    found = figures(dict.fromkeys(report.GOALS, 0.0).items())
    assert all(re.fullmatch(r"perf\.[A-Z]\d+", goal) for goal in found)
