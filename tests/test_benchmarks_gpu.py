"""The GPU benchmark: its counting and its steps, at a size that a CPU can take."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from benchmarks import bench_gpu_training, bench_gpu_video

import tiny_diffusers
from cineray.serving.generators.animatediff import AnimateDiffConfig
from conftest import REPOSITORY

CPU = torch.device("cpu")


def test_without_a_gpu_it_says_so_and_names_every_figure():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_gpu"], cwd=REPOSITORY, capture_output=True, text=True, check=True,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    said, last = done.stdout.splitlines()
    assert "there is no CUDA GPU" in said
    assert json.loads(last) == {
        "perf.G1": None, "perf.G2": None, "perf.G3": {"256x1664": None, "257x768": None},
        "perf.G10": None, "perf.G11": None, "perf.G12": None, "other": {"gpu": None},
    }  # fmt: skip


def test_a_rows_operations_are_those_of_its_layers():
    """Six a parameter and use: vector layers once a row, the projector and the prior's layers once a token."""
    shape = bench_gpu_training.Shape("tiny", tokens=8, dim=64, rows=2, width=512, voxels=1000, heads=2)
    with torch.device("meta"):
        semantic = shape.model().semantic
    read_in, head, projector = (
        sum(p.numel() for p in part.parameters() if p.ndim > 1)
        for part in (semantic.read_in, semantic.head, semantic.projector)
    )
    # The brain itself takes no gradient: two thirds of the work of its layer.
    least = 4 * read_in + 6 * head + 6 * shape.tokens * projector
    assert least < bench_gpu_training.tflop_a_row(shape) * 1e12
    wider = replace(shape, voxels=2000)
    grown = bench_gpu_training.tflop_a_row(wider) - bench_gpu_training.tflop_a_row(shape)
    assert grown * 1e12 == pytest.approx(4 * 1000 * 512)


def test_mindeye2_size_has_the_derived_operations():
    """0.77 TFLOP a row (129 GMAC forward of which the prior has 125, thrice for the backward)."""
    one = replace(bench_gpu_training.MINDEYE2, rows=1)
    assert bench_gpu_training.tflop_a_row(one) == pytest.approx(0.77, rel=0.1)


def test_a_training_step_is_timed(monkeypatch):
    monkeypatch.setattr(bench_gpu_training, "WARM_UP", 1)
    monkeypatch.setattr(bench_gpu_training, "STEPS", 2)
    shape = bench_gpu_training.Shape("tiny", tokens=8, dim=32, rows=4, width=16, voxels=20, heads=1)
    step = bench_gpu_training.measure(shape, CPU)
    assert step.rows_per_s == pytest.approx(4 / step.seconds)
    assert 0 < step.mfu < 1


def test_videos_are_timed_at_the_goals_settings(tmp_path, monkeypatch):
    parts = tiny_diffusers.save_animatediff(tmp_path) | {"keyframe": tiny_diffusers.save_unclip(tmp_path)}
    tiny = parts | {"precision": "float32", "compiled": False, "size": 16}
    monkeypatch.setattr(bench_gpu_video, "WARM_UP", 0)
    monkeypatch.setattr(bench_gpu_video, "REPEATS", 1)
    for case in bench_gpu_video.CASES.values():
        settings = bench_gpu_video.settings_of(case)
        assert (settings.num_frames * bench_gpu_video.CLIPS, settings.fps) == (48, 8.0)
        generator = AnimateDiffConfig.parse(settings.model_dump(mode="json") | tiny).build(device=CPU)
        steps = []
        generator.unet.register_forward_pre_hook(lambda _, given, steps=steps: steps.append(len(given[0])))
        assert bench_gpu_video.time_videos(generator) > 0
        branches = 2 if settings.guidance > 1 else 1
        assert steps == [3 * branches] * settings.steps
