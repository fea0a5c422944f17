"""Showings of a stimulus decoded together: which they are, what their mean is, and the job that reconstructs it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cineray.core.errors import DataError
from cineray.core.storage import Store
from cineray.datasets.dataset import Dataset
from cineray.datasets.examples import Examples
from cineray.datasets.ingest import ingest
from cineray.datasets.sources.synthetic import SyntheticConfig
from cineray.datasets.split import make_split
from cineray.datasets.view import Window
from cineray.serving.clips import Clip, clips_of
from cineray.serving.jobs import Job
from cineray.serving.link import LinkConfig, embedding
from cineray.serving.outputs import OutputConfig
from cineray.serving.repeats import mean_clips, mean_recording
from cineray.serving.scenes import _pairs, link_of
from cineray.serving.video_pipeline import VideoPipeline
from cineray.training.models.ridge import RidgeConfig
from cineray.training.reconstructions import Reconstructions
from tiny_video import SPLIT, tiny_video, trained

WINDOW = Window(first=-2, last=3)


def shown(subject, run, *stimuli, cut=()):
    """Clips of one run; those in ``cut`` do not follow the one before."""
    follows = [scan > 0 and scan not in cut for scan in range(len(stimuli))]
    return [Clip(0, subject, run, scan, name, follows[scan]) for scan, name in enumerate(stimuli)]


def test_a_clip_stands_for_all_showings_and_follows_only_where_all_do():
    clips = [
        *shown("sub-01", "a", "x", "y", "z"),
        *shown("sub-01", "b", "y", "z", "x", "w", cut=(2,)),
        *shown("sub-02", "c", "x", "y"),
    ]
    found = mean_clips(clips)
    assert [(clip.subject, clip.stimulus_id, clip.showings, clip.follows) for clip in found] == [
        ("sub-01", "x", (("a", 0), ("b", 2)), False),
        ("sub-01", "y", (("a", 1), ("b", 0)), False),
        ("sub-01", "z", (("a", 2), ("b", 1)), True),
        ("sub-01", "w", (("b", 3),), False),  # it follows x there, which is not the clip before it here
        ("sub-02", "x", (("c", 0),), False),
        ("sub-02", "y", (("c", 1),), True),
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every test clip was shown three times."""
    folder = tmp_path_factory.mktemp("repeats")
    source = SyntheticConfig(
        num_subjects=2, minutes=2, test_minutes=1, run_minutes=1, tr_s=2, fps=4, frame_px=16, voxels=(30, 40), repeats=3
    )
    ingest(source, folder / "data")
    return folder


@pytest.mark.parametrize("window", [WINDOW, Window(first=1, last=3), Window(first=-3, last=-1)])
def test_the_recording_of_means_holds_every_window_where_its_clip_is(folder, window):
    """Scan by scan, with the ends of runs repeated; also where a window leaves the clip's own scan out."""
    dataset = Dataset.open(str(folder / "data"))
    clips = [
        c for c in mean_clips(clips_of(dataset, make_split(dataset, SPLIT, (), WINDOW).test)) if c.subject == "sub-02"
    ]
    assert {len(clip.showings) for clip in clips} == {3}
    recording, placed = mean_recording(dataset, clips, window)
    rows = {info.run: np.array(info.rows) for info in dataset.runs if info.subject == "sub-02"}
    for clip, at in zip(clips, placed, strict=True):
        assert replace(at, scan=clip.scan) == clip
        for offset in range(window.first, window.last + 1):
            scans = [rows[run][np.clip(scan + offset, 0, len(rows[run]) - 1)] for run, scan in clip.showings]
            expected = dataset.gather_samples(np.array(scans)).astype(np.float64).mean(0)
            np.testing.assert_allclose(recording[at.scan + offset], expected, rtol=1e-6)


def test_a_job_of_means_reconstructs_each_stimulus_once(tmp_path):
    """With one showing of each the mean is that showing: the same pixels."""
    config = tiny_video(tmp_path)
    found = {}
    for repeats in ("each", "mean"):
        job = Job.of_split(config.override({"repeats": repeats}), tmp_path / repeats, "test")
        pipeline = VideoPipeline.open(job.config)
        list(job.run(pipeline, job.begin()[::3]))
        job.finish()
        found[repeats] = Reconstructions.open(Store.at(tmp_path / repeats), "test")
    assert len(found["mean"].entries) == len(found["each"].entries) == 2 * 12
    assert "every clip is the mean of its showings (1 to 1)" in found["mean"].origin.notes
    assert [found[repeats].origin.labels for repeats in ("each", "mean")] == [("single",), ("test_average@input",)]
    for entry in found["each"].entries[::7]:
        mean = found["mean"].read(entry.example)
        assert mean.stimulus_id == entry.stimulus_id
        each = found["each"].read(entry.example)
        np.testing.assert_array_equal(mean.video, each.video)
        assert mean.seed == each.seed, "its place among the means is no part of its name"


def test_the_link_learns_from_the_brains_it_is_to_judge(folder):
    """Every pair was shown three times; as means it is one."""
    trained(folder, "semantic", RidgeConfig(penalties=(30.0,)), ("features",), epochs=0)
    semantic = OutputConfig(run_dir=str(folder / "semantic"), target="features").build(device="cpu")
    view = semantic.pipeline.run.view
    shown = make_split(semantic.dataset, view.split, (), view.window).test
    each, mean = (_pairs(semantic, shown, repeats) for repeats in ("each", "mean"))
    clips = [clip for clip in mean_clips(clips_of(semantic.dataset, shown)) if clip.subject == "sub-01"]
    values = embedding(semantic.tokens(*mean_recording(semantic.dataset, clips, view.window)))
    middle = len(clips) // 2
    for half, of_mean, seconds in zip(each, mean, (range(1, middle), range(middle + 1, len(clips))), strict=True):
        assert len(half.same) == 3 * len(of_mean.same) > 0
        first, second = ([second - back for second in seconds] for back in (1, 0))
        torch.testing.assert_close(of_mean.first[: len(first)], values[first])
        torch.testing.assert_close(of_mean.second[: len(second)], values[second])
        groups = [clip.group for clip in clips]
        assert of_mean.same[: len(first)].tolist() == [
            groups[a] == groups[b] for a, b in zip(first, second, strict=True)
        ]


def test_without_validation_there_is_nothing_to_teach_a_link(folder, monkeypatch):
    def nothing_held_out(*args):
        return replace(make_split(*args), val=Examples.of(("sub-01",), []))

    trained(folder, "semantic", RidgeConfig(penalties=(30.0,)), ("features",), epochs=0)
    semantic = OutputConfig(run_dir=str(folder / "semantic"), target="features").build(device="cpu")
    monkeypatch.setattr("cineray.serving.scenes.make_split", nothing_held_out)
    with pytest.raises(DataError, match=r"holds nothing out for validation.*link=null"):
        link_of(LinkConfig(), semantic)
