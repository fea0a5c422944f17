"""Whole jobs: a split, a recording, a folder; resumed, spread over actors, and told on the command line."""

import json
import shutil
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cineray.cluster import cli, reconstruction
from cineray.core.errors import ConfigError, DataError
from cineray.datasets.dataset import Dataset
from cineray.datasets.video import frames_at, probe
from cineray.serving import jobs
from cineray.serving.clips import recording_of
from cineray.serving.jobs import Job
from cineray.serving.link import LinkConfig
from cineray.serving.reconstruct import reconstruct
from cineray.serving.video_pipeline import VideoPipeline, VideoPipelineConfig
from cineray.training.reconstructions import Reconstructions
from tiny_video import tiny_video


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return tiny_video(tmp_path_factory.mktemp("video"))


@pytest.fixture(scope="module")
def pipeline(config):
    return VideoPipeline.open(config)


@pytest.fixture(scope="module")
def done(config, pipeline, tmp_path_factory):
    """The test split, reconstructed in this process."""
    job = Job.of_split(config, tmp_path_factory.mktemp("done"), "test")
    assert len(list(job.run(pipeline, job.begin()))) == len(job.pieces)
    job.finish()
    return job


@pytest.fixture
def recording(config):
    dataset = Dataset.open(Path(config.semantic.run_dir).parent / "data")
    return recording_of(dataset, "sub-02", "test-00-repeat-0")


def content(job):
    """Every clip's bytes by name; npz files are the same where their arrays are."""
    store = job.store
    return {key: store.get(key) for key in store.list(f"{job.folder}/") if key.endswith((".npz", ".mp4"))}


def run_cli(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["cineray", *map(str, words)])
    cli.main()
    return capsys.readouterr().out


def test_a_split_is_every_showing_of_both_subjects(config, done):
    found = Reconstructions.open(done.store, "test")
    dataset = Dataset.open(Path(config.semantic.run_dir).parent / "data")
    assert len(found.entries) == 2 * 30
    assert {entry.subject for entry in found.entries} == {"sub-01", "sub-02"}
    films = dict(zip(*(dataset.stimuli([c])[c].to_pylist() for c in ("stimulus_id", "film")), strict=True))
    assert {films[entry.stimulus_id] for entry in found.entries} == {"test"}
    assert found.origin.data == dataset.fingerprint
    assert VideoPipelineConfig.loads(done.store.get("reconstruct.yaml")) == config


def test_each_clip_has_an_mp4_that_shows_it(done):
    found = Reconstructions.open(done.store, "test")
    for entry in found.entries[:3]:
        clip = found.read(entry.example)
        path = Path(done.store.url) / done.folder / f"{entry.example:06d}.mp4"
        assert probe(path).fps == clip.fps
        shown = frames_at(path, np.arange(len(clip.video)) / clip.fps)
        # Light alone: colour is stored at half the resolution, which is much of 16 pixels.
        assert np.corrcoef(shown.mean(3).ravel(), clip.video.mean(3).ravel())[0, 1] > 0.95


def test_a_second_call_computes_nothing_and_a_lost_clip_only_its_piece(tmp_path, config, pipeline, monkeypatch):
    job = Job.of_split(config, tmp_path, "val")
    list(job.run(pipeline, job.begin()))
    assert job.begin() == []
    before = content(job)
    lost = job.pieces[1].clips[2].example
    job.store.delete(f"{job.folder}/{lost:06d}.npz")
    asked = []
    original = VideoPipeline.reconstruct
    monkeypatch.setattr(
        VideoPipeline, "reconstruct", lambda self, x, clips: asked.append(clips) or original(self, x, clips)
    )
    assert job.begin() == [job.pieces[1]]
    list(job.run(pipeline, job.begin()))
    assert asked == [job.pieces[1].clips]
    assert content(job) == before


def test_a_killed_job_has_lost_only_the_piece_in_work(tmp_path, config, pipeline):
    job = Job.of_split(config, tmp_path, "test")
    pieces = job.begin()
    work = job.run(pipeline, pieces)
    for _ in range(3):
        next(work)
    work.close()
    assert Job.of_split(config, tmp_path, "test").begin() == pieces[3:]
    with pytest.raises(ConfigError, match="is not finished"):
        Reconstructions.open(job.store, "test")


def test_pieces_do_not_depend_on_each_other(config, done, pipeline, tmp_path):
    """Backwards, with a pipeline that has seen other subjects: the same bytes."""
    job = Job.of_split(config, tmp_path, "test")
    list(job.run(pipeline, job.begin()[::-1]))
    assert content(job) == content(done)


def test_other_settings_or_checkpoints_are_not_mixed_in(config, done, monkeypatch):
    with pytest.raises(ConfigError, match="write into another folder"):
        Job.of_split(config.override({"seed": 1}), done.store.url, "test").begin()
    with pytest.raises(ConfigError, match="write into another folder"):
        Job.of_split(config.override({"seed": 1}), done.store.url, "val").begin()
    assert VideoPipelineConfig.loads(done.store.get("reconstruct.yaml")) == config
    read = jobs.read_manifest
    monkeypatch.setattr(jobs, "read_manifest", lambda *of: read(*of).model_copy(update={"files": {}}))
    with pytest.raises(ConfigError, match="these settings, weights and checkpoints have"):
        Job.of_split(config, done.store.url, "test").begin()


def test_moved_runs_and_weights_are_gone_on_with_and_other_weights_are_not(tmp_path, config, pipeline):
    """Motion and the codec's part are never opened here; two files of the part are trained, of one size."""
    config = config.override({"motion": config.perception.model_dump(), "generator.moves": "flow"})

    def at(place, weights):
        runs = {name: str(shutil.copytree(getattr(config, name).run_dir, place / name)) for name in config.trained}
        (place / "part").mkdir()
        (place / "part" / "taef2.safetensors").write_bytes(weights)
        return config.override(
            {f"{name}.run_dir": run_dir for name, run_dir in runs.items()}
            | {"codec": {"name": "taef2", "part": {"folder": str(place / "part")}}}
        )

    first, moved, other = (at(tmp_path / name, data) for name, data in (("a", b"123"), ("b", b"123"), ("c", b"124")))
    job = Job.of_split(first, tmp_path / "out", "val")
    list(job.run(pipeline, job.begin()))
    shutil.rmtree(tmp_path / "a")
    again = Job.of_split(moved, tmp_path / "out", "val")
    assert again.begin() == []
    again.finish()
    assert VideoPipelineConfig.loads(job.store.get("reconstruct.yaml")) == moved
    assert Reconstructions.open(job.store, "val").origin.run_dir == str(tmp_path / "b" / "semantic")
    with pytest.raises(ConfigError, match="write into another folder"):
        Job.of_split(other, tmp_path / "out", "val").begin()


def test_a_recording_gives_the_split_s_videos(tmp_path, config, pipeline, done, recording):
    """The held-out run as a file of its own: other names and seeds, the same pixels wherever the split has a clip."""
    np.save(tmp_path / "scan.npy", recording)
    job = Job.of_recording(config, tmp_path / "out", tmp_path / "scan.npy", "sub-02")
    list(job.run(pipeline, job.begin()))
    job.finish()
    found = Reconstructions.open(job.store, "sub-02-scan")
    assert [entry.stimulus_id for entry in found.entries] == [f"scan:{i}" for i in range(len(recording))]
    split = Reconstructions.open(done.store, "test")
    clips = {clip.example: clip for piece in done.pieces for clip in piece.clips if clip.subject == "sub-02"}
    assert len(clips) == 30
    for example, clip in clips.items():
        ours, theirs = found.read(clip.scan), split.read(example)
        assert np.abs(ours.video.astype(int) - theirs.video).max() <= 1
        assert ours.seed != theirs.seed


def test_a_folder_is_a_job_for_each_recording(tmp_path, config, recording):
    (tmp_path / "scans" / "sub-02").mkdir(parents=True)
    np.save(tmp_path / "scans" / "sub-02" / "a.npy", recording)
    np.save(tmp_path / "scans" / "sub-02" / "b.npy", recording[:13])
    found = Job.of_folder(config, tmp_path / "out", tmp_path / "scans")
    assert [(job.name, sum(len(p.clips) for p in job.pieces)) for job in found] == [
        ("sub-02-a", len(recording)),
        ("sub-02-b", 13),
    ]
    with pytest.raises(ConfigError, match=r"no <subject>/<recording>\.npy"):
        Job.of_folder(config, tmp_path / "out", tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "values", "sentence"),
    [
        ("nothing", None, "there is no recording"),
        ("text", b"hello", "is not an .npy file"),
        ("flat", np.zeros(3), "expected finite floating-point"),
        ("hole", np.array([[np.nan]]), "expected finite floating-point"),
        ("whole", np.zeros((3, 3), int), "expected finite floating-point"),
        ("objects", np.array([[None]], object), "is not an .npy file"),
    ],
)
def test_files_that_are_no_recordings_are_refused(tmp_path, config, name, values, sentence):
    path = tmp_path / f"{name}.npy"
    if isinstance(values, bytes):
        path.write_bytes(values)
    elif values is not None:
        np.save(path, values, allow_pickle=True)
    with pytest.raises(DataError, match=sentence):
        Job.of_recording(config, tmp_path / "out", path, "sub-01")


class Linked:
    """Everything that may be linked is."""

    config = LinkConfig(max_clips=3)

    def chains(self, embeddings, follows):
        return [list(range(first, min(first + 3, len(follows)))) for first in range(0, len(follows), 3)]


def test_a_chain_has_an_mp4_of_its_own(tmp_path, config, pipeline):
    job = Job.of_split(config, tmp_path, "val")
    linked = replace(pipeline, link=Linked(), config=config.override({"link": {}}))
    piece = job.begin()[0]
    jobs.write_piece(job, linked, piece)
    folder = Path(job.store.url) / job.folder
    firsts = [clip.example for clip in piece.clips[::3]]
    assert sorted(p.name for p in folder.glob("chain-*")) == [f"chain-{first:06d}.mp4" for first in firsts]
    assert probe(folder / f"chain-{firsts[0]:06d}.mp4").length_s == pytest.approx(3 * 2.0)
    carried = [Reconstructions(job.store, "val", job.origin).read(c.example).carried for c in piece.clips]
    assert carried == [i % 3 > 0 for i in range(len(carried))]


@pytest.mark.slow
def test_two_actors_write_the_same_bytes_as_one_process(ray_cluster, tmp_path, config, done):
    job = Job.of_split(config, tmp_path, "test")
    pieces = job.begin()
    with pytest.raises(ConfigError, match="num_actors=3, expected 1 to 2, one for each CPU"):
        list(reconstruct(job, pieces, num_actors=3))
    assert len(list(reconstruct(job, pieces, num_actors=2))) == len(pieces)
    job.finish()
    assert content(job) == content(done)


@pytest.mark.slow
def test_what_an_actor_finds_wrong_is_said_in_its_own_words(ray_cluster, tmp_path, config):
    broken = Job.of_split(config.override({"frames": "pictures"}), tmp_path / "other", "test")
    with pytest.raises(ConfigError, match="has no target 'pictures'"):
        list(reconstruct(broken, broken.begin(), num_actors=1))


def test_the_command_says_what_works_and_goes_on(tmp_path, config, monkeypatch, capsys):
    """Actors are replaced by this process; what they do is tested above."""
    here = VideoPipeline.open(config)
    monkeypatch.setattr("cineray.cluster.reconstruction.connected", nullcontext)
    monkeypatch.setattr("cineray.serving.reconstruct.reconstruct", lambda job, pieces, **how: job.run(here, pieces))
    monkeypatch.setenv("CINERAY_MODELS", str(tmp_path / "models"))
    path = tmp_path / "pipeline.yaml"
    path.write_text(config.dump())
    out = run_cli(monkeypatch, capsys, "reconstruct", path, f"out={tmp_path / 'out'}", "split=val")
    assert "generator nearest, captions nearest, codec pool" in out
    assert "generator.name=animatediff needs" in out
    assert "cineray models pull" in out
    assert f"{tmp_path / 'out'}/reconstructions/val" in out
    again = run_cli(monkeypatch, capsys, "reconstruct", tmp_path / "out", "split=val")
    assert "(0 new)" in again
    index = json.loads((tmp_path / "out" / "reconstructions" / "val" / "index.json").read_bytes())
    assert len(index["clips"]) == int(again.split(" clips (0 new)")[0].splitlines()[-1])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["split=test", "folder=x"], "found split= and folder="),
        (["recording=x.npy"], "expected subject= with recording="),
        (["subject=sub-01"], "expected subject= with recording="),
        (["split=holdout"], "found split 'holdout'"),
        (["num_actors=0"], "found num_actors=0"),
        (["nonsense=1"], "nonsense"),
    ],
)
def test_words_that_make_no_sense_are_refused(tmp_path, config, words, sentence):
    path = tmp_path / "pipeline.yaml"
    path.write_text(config.dump())
    with pytest.raises(ConfigError, match=sentence):
        cli.reconstruct([str(path), f"out={tmp_path / 'out'}", *words])
    with pytest.raises(ConfigError, match=r"holds no reconstruct\.yaml"):
        cli.reconstruct([str(tmp_path / "nowhere")])


def test_missing_parts_are_named_as_they_are_pulled(tmp_path, monkeypatch):
    from cineray.core.pretrained import Part, catalogue
    from cineray.serving.generators.animatediff import AnimateDiffConfig

    monkeypatch.setenv("CINERAY_MODELS", str(tmp_path))
    found = set(reconstruction.missing_parts(AnimateDiffConfig()))
    assert {"sd15", "realistic-vision", "animatediff-v3", "sparsectrl-rgb"} <= found <= set(catalogue())
    local = AnimateDiffConfig(base=Part(folder="x"))
    assert set(reconstruction.missing_parts(local)) == found - {"sd15"}
