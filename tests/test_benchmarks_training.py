"""The training benchmark: its peer computes what our loop computes, its memory and its verdicts are right."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
from benchmarks import bench_training_child as child
from benchmarks import bench_training_data as data
from benchmarks import bench_training_loss as loss
from benchmarks import bench_training_memory as memory
from benchmarks import bench_training_peer as peer
from benchmarks.bench_stream_measure import Cost, Ratio
from benchmarks.bench_training_report import Line

from cineray.training.world import World
from conftest import REPOSITORY


class Notes:
    """A pace that only listens."""

    def __init__(self):
        self.losses = []

    def __call__(self, step, metrics):
        self.losses.append(metrics["loss"])

    def watched(self, batches):
        return batches


@pytest.fixture
def small(monkeypatch, tmp_path):
    for module in (data, child):
        for name, value in {"VOXELS": {"a": 30, "b": 40}, "TOKENS": 4, "WIDTH": 8, "DIM": 16}.items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)
    return data.make_data(tmp_path / "data")


def test_the_peer_trains_as_our_loop_does(small, tmp_path):
    ours, theirs, run = Notes(), Notes(), data.make_run(small)
    child._ours(ours, run, str(tmp_path / "out"), World())
    child._peer(theirs, run, peer.Manner())
    assert len(ours.losses) == 3 * 2 * data.CLIPS // data.BATCH
    assert np.mean(ours.losses[-10:]) < 0.9 * np.mean(ours.losses[10:20])
    np.testing.assert_allclose(ours.losses, theirs.losses, rtol=1e-4)
    assert not np.allclose(ours.losses[5:], _with_other_rate(run), rtol=1e-3)


def _with_other_rate(run):
    found = Notes()
    child._peer(found, run, peer.Manner(lr=1e-3))
    return found.losses[5:]


def test_both_losses_are_one():
    values = [loss.evaluation(kind, 96)() for kind in (loss.tiles, loss.full, loss.step)]
    for value, _ in values[1:]:
        assert value == pytest.approx(values[0][0], rel=1e-5)
    torch.testing.assert_close(values[0][1], values[1][1], rtol=1e-4, atol=1e-7)


def test_a_peak_that_is_gone_is_seen():
    found = memory.peak_extra_bytes(lambda: np.ones(64 << 20, np.uint8).sum())
    assert 60 << 20 < found < 80 << 20  # the kernel counts pages in lots


@pytest.mark.parametrize(("load", "gate"), [(0.5, 4.0), (99.0, 2.0)])
def test_the_gate_is_cpu_time_where_the_machine_is_busy(load, gate):
    ours, theirs = Cost(10, wall_s=1.0, cpu_s=1.0), Cost(10, wall_s=4.0, cpu_s=2.0)
    ratio = Ratio([ours] * 5, [theirs] * 5, [load])
    assert Line.of_ratio("x", "", ratio).value == pytest.approx(gate)
    assert Line.of_ratio("x", "", ratio, time=True).value == pytest.approx(1 / gate)


def test_verdicts():
    line = Line("perf.T1/ddp", "", 2.0, "")
    assert [dataclasses.replace(line, value=v).verdict for v in (1.7, 1.8, 2.6)] == ["MISSED", "floor", "target"]
    line = Line("perf.T8/plain", "", 0.02, "")
    assert [dataclasses.replace(line, value=v).verdict for v in (0.06, 0.05, 0.01)] == ["MISSED", "floor", "target"]


def test_a_goal_that_is_not_measured_is_named():
    command = [sys.executable, "-m", "benchmarks.bench_training", "--only", "T99"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "found T99" in done.stderr
