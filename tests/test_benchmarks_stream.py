"""What the streaming benchmark times, with clocks in place of readers."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from benchmarks import bench_stream


def reader(seconds):
    """Takes a worker's start longer after every pause, as Ray does that has ended its idle workers."""
    calls = []

    def call(_):
        cold = not calls or calls[-1] == "pause"
        calls.append("call")
        return seconds + 2.0 * cold

    return call, calls


def test_the_first_batch_is_timed_on_warm_workers_whatever_the_pauses_do(monkeypatch):
    ours, our_calls = reader(0.05)
    theirs, their_calls = reader(1.0)

    def pause(_):
        our_calls.append("pause")
        their_calls.append("pause")

    monkeypatch.setattr(bench_stream.time, "sleep", pause)
    monkeypatch.setattr(bench_stream.on_ray, "first_batch_ours", ours)
    monkeypatch.setattr(bench_stream.on_ray, "first_batch_theirs", theirs)
    monkeypatch.setattr(bench_stream.Dataset, "open", lambda folder: folder)
    lines = []
    bench_stream._first_batch(SimpleNamespace(dataset=None, folder=Path(), one_table=[], add=lines.append))
    assert {line.key: line.value for line in lines} == pytest.approx(
        {"perf.D12/open": 0.05, "perf.D12/first_touch": 0.05}
    )
