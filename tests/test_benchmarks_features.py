"""The benchmark of features: what counts as lost, how memory is compared, and its keys."""

import json
import os
import sys

import numpy as np
import pytest
from benchmarks import bench_features, bench_features_data, bench_features_kills, bench_features_memory
from benchmarks.bench_features_report import GOALS, Line

from cineray.datasets.encoders.pool import PoolConfig


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """The benchmark sets it for Ray's workers."""
    monkeypatch.setenv("PYTHONPATH", "")


def test_anonymous_memory_is_seen_and_a_process_that_ended_has_none():
    before = bench_features_data.rss_anon()
    held = np.ones(64 << 20, np.uint8)
    assert 60 << 20 < bench_features_data.rss_anon() - before < 80 << 20
    assert held.sum() == 64 << 20
    assert bench_features_data.rss_anon(2**22 + 1) == 0  # beyond the largest process number


def test_the_watched_pool_notes_its_process_and_computes_what_the_pool_does(tmp_path):
    log, frames = tmp_path / "log", np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8, 3), np.uint8)
    noted = bench_features_data.NotedPoolConfig(log=str(log)).build("cpu")
    assert np.array_equal(noted.encode(frames, ["", ""]), PoolConfig().build("cpu").encode(frames, ["", ""]))
    pid, size = map(int, log.read_text().split())
    assert pid == os.getpid()
    assert 0 < size <= bench_features_data.rss_anon() * 1.5


def test_what_another_process_begins_anew_was_lost():
    begun = [(1, 0), (2, 1), (1, 2), (2, 3), (3, 2), (3, 4), (4, 4), (4, 5)]
    assert bench_features_kills.lost_by([1, 3, 2], begun) == [1, 1, 0]


def test_row_groups_begun_are_read_from_the_log(tmp_path):
    watched = bench_features_kills.Watched.of(tmp_path / "set", 1)
    assert watched._begun() == []
    rows = watched.job.part_rows
    watched.log.write_text(f"0 7\n32 7\n{rows} 8\n{rows + 32} 8\n")
    assert watched._begun() == [(7, 0), (8, 1)]


def test_memory_is_compared_with_and_without_the_imports(tmp_path, monkeypatch):
    found = iter([{"driver": (400, 410), "actor": (400, 500)}, {"driver": (400, 410), "actor": (400, 520)}])
    monkeypatch.setattr(bench_features_memory, "held", lambda folder: next(found))
    monkeypatch.setattr(bench_features_data, "make_clips", lambda folder, *_: folder.mkdir())
    lines = {line.key: line for line in bench_features_memory.measure(tmp_path, 1, 8)}
    ratios = {"perf.P6/driver": 1.0, "perf.P6/actor": 1.04, "perf.P6/above_imports": 130 / 110}
    assert {key: line.value for key, line in lines.items()} == pytest.approx(ratios)
    assert (lines["perf.P6/actor"].verdict, lines["perf.P6/above_imports"].verdict) == ("target", "MISSED")


def test_the_last_line_is_json_by_goal_and_the_page_names_what_missed(tmp_path, monkeypatch, capsys):
    lines = [Line(key, "", 2.0 if "P1" in key else 1.5, "") for key in GOALS]
    monkeypatch.setattr(bench_features, "PARTS", {("P1",): lambda folder: iter(lines)})
    monkeypatch.setattr(sys, "argv", ["bench", "--out", str(tmp_path / "page.md")])
    bench_features.main()
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["perf.P1"] == {"transformer": 2.0}
    assert last["perf.P5"] == {"one_actor": 1.5, "one_of_two_actors": 1.5, "two_actors": 1.5}
    page = (tmp_path / "page.md").read_text()
    assert "perf.P5/two_actors (1.5)" in page.splitlines()[-1]
    assert "perf.P1" not in page.splitlines()[-1]


def test_a_part_alone_writes_no_page_and_unknown_goals_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench_features, "PARTS", {("P1", "P2"): lambda folder: iter([])})
    monkeypatch.setattr(sys, "argv", ["bench", "--only", "P2", "--out", str(tmp_path / "page.md")])
    bench_features.main()
    assert not (tmp_path / "page.md").exists()
    monkeypatch.setattr(sys, "argv", ["bench", "--only", "P9"])
    with pytest.raises(SystemExit):
        bench_features.main()
    assert "found P9" in capsys.readouterr().err
