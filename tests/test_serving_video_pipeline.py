"""One recording in, clips out: predictions, candidates, seeds, switches and chains are what the settings say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cineray.core.errors import ConfigError, DataError
from cineray.core.pretrained import Part
from cineray.core.storage import Store
from cineray.datasets.encoders.captions import BlipConfig, as_text
from cineray.datasets.encoders.motion import MotionConfig
from cineray.datasets.extraction import extract
from cineray.datasets.split import make_split
from cineray.serving.captions import BlipCaptionsConfig
from cineray.serving.clips import Clip, by_recording, clips_of, clips_of_recording, recording_of
from cineray.serving.generators.base import Condition
from cineray.serving.link import LinkConfig
from cineray.serving.pipeline import Pipeline
from cineray.serving.video_pipeline import VideoPipeline, VideoPipelineConfig, clip_seed
from cineray.training.models.ridge import RidgeConfig
from cineray.training.predict import predict
from tiny_encoders import blip as make_blip
from tiny_video import tiny_video, trained


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return tiny_video(tmp_path_factory.mktemp("video"))


@pytest.fixture(scope="module")
def pipeline(config):
    return VideoPipeline.open(config)


def clips_and_recording(pipeline, split="test", number=0):
    dataset, view = pipeline.semantic.dataset, pipeline.semantic.pipeline.run.view
    examples = getattr(make_split(dataset, view.split, view.subjects, view.window), split)
    (subject, run), clips = list(by_recording(clips_of(dataset, examples)).items())[number]
    return clips, recording_of(dataset, subject, run)


class Watching:
    """A generator that notes what it is given; its keyframes are flat and its videos count frames."""

    fps = 8.0

    def __init__(self):
        self.asked: list[tuple[str, list[Condition]]] = []

    def keyframes(self, conditions):
        self.asked.append(("keyframes", list(conditions)))
        return np.stack([np.full((4, 4, 3), c.seed % 251, np.uint8) for c in conditions])

    def videos(self, conditions, keyframes):
        self.asked.append(("videos", list(conditions)))
        rows = [np.broadcast_to(np.arange(6, dtype=np.uint8)[:, None, None, None], (6, 4, 4, 3)) for _ in conditions]
        return np.stack([row + keyframe[0, 0, 0] // 2 for row, keyframe in zip(rows, keyframes, strict=True)])


def test_conditions_are_what_cineray_eval_predicts(config, pipeline):
    """In the units of the stored targets, though the semantic run's are z-scored."""
    clips, recording = clips_and_recording(pipeline, number=1)
    watching = Watching()
    results = replace(pipeline, generator=watching).reconstruct(recording, clips)
    (_, conditions), _ = watching.asked
    semantic, perception = (predict(part.run_dir, "test") for part in (config.semantic, config.perception))
    at = [semantic.example.tolist().index(clip.example) for clip in clips]
    mean, sd = semantic.scale["features"]
    tokens = torch.stack([c.tokens for c in conditions if c.tokens is not None])
    np.testing.assert_allclose(tokens[:, 0], semantic.predicted["features"][at] * sd + mean, atol=1e-4)
    for i, result in zip(at, results, strict=True):
        small = (perception.predicted["latents"][i] + 1) * 127.5
        pooled = result.blurry.reshape(8, 4, 4, 4, 4, 3).mean((2, 4)).transpose(0, 3, 1, 2)
        assert np.corrcoef(pooled.ravel(), small.ravel())[0, 1] > 0.9


def test_a_clip_is_all_that_is_known_of_it(pipeline):
    clips, recording = clips_and_recording(pipeline)
    results = pipeline.reconstruct(recording, clips)
    frames, height, width = pipeline.library.shape
    for clip, result in zip(clips, results, strict=True):
        assert (result.example, result.subject, result.run) == (clip.example, clip.subject, clip.run)
        assert result.stimulus_id == clip.stimulus_id
        assert result.video.shape == result.blurry.shape == (frames, height, width, 3)
        assert result.keyframe.shape == (height, width, 3)
        assert (result.fps, result.carried) == (4.0, False)
        assert result.seed == clip_seed(0, clip, "video")
    known = pipeline.semantic.dataset.stimuli(["caption"])["caption"].to_pylist()
    of_training = {known[row] for row in pipeline.library.rows}
    assert {result.caption for result in results} <= of_training


def test_pictures_are_only_ever_training_pictures(pipeline):
    clips, recording = clips_and_recording(pipeline)
    training = {pipeline.library.frames(int(row))[4].tobytes() for row in pipeline.library.rows}
    keyframes = [result.keyframe.tobytes() for result in pipeline.reconstruct(recording, clips)]
    assert set(keyframes) <= training
    assert len(set(keyframes)) > 5


def test_alone_together_and_backwards(pipeline):
    clips, recording = clips_and_recording(pipeline)
    together = pipeline.reconstruct(recording, clips)
    alone = [pipeline.reconstruct(recording, [clip])[0] for clip in clips]
    again = replace(pipeline).reconstruct(recording, clips[5:9])
    for result, single in zip(together, alone, strict=True):
        assert result.seed == single.seed
        assert np.abs(result.blurry.astype(int) - single.blurry).max() <= 1
        assert np.abs(result.video.astype(int) - single.video).mean() < 1
    assert [x.seed for x in again] == [x.seed for x in together[5:9]]
    assert pipeline.reconstruct(recording, []) == []


def test_seeds_tell_everything_apart_and_stay_the_same():
    clip = Clip(3, "sub-01", "run", 7, "film-3", follows=False)
    others = [
        replace(clip, subject="sub-02"),
        replace(clip, run="r"),
        replace(clip, scan=8),
        replace(clip, stimulus_id=""),
    ]
    seeds = [clip_seed(0, clip, "video"), clip_seed(1, clip, "video"), clip_seed(0, clip, "keyframe")]
    seeds += [clip_seed(0, other, "video") for other in others]
    assert len(set(seeds)) == 7
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert clip_seed(0, replace(clip, example=99, follows=True, group="g"), "video") == seeds[0]
    assert seeds[0] == 6969875913985102125


def test_without_the_keyframe_nothing_of_the_tokens_is_left(pipeline):
    clips, recording = clips_and_recording(pipeline)
    watching = Watching()
    without = replace(pipeline, generator=watching, config=pipeline.config.override({"use_keyframe": False}))
    results = without.reconstruct(recording, clips)
    assert [name for name, _ in watching.asked] == ["videos"]
    assert all(c.tokens is None and c.caption == "" and c.blurry is not None for c in watching.asked[0][1])
    assert all(np.array_equal(r.keyframe, r.blurry[0]) and r.caption == "" for r in results)


def test_a_motion_run_says_how_pictures_move(config, tmp_path):
    """Conditions hold what it predicts, squared with its sign; without the perception stream there is none."""
    folder = Path(config.semantic.run_dir).parent
    extract(str(folder / "data"), MotionConfig(places=4))
    run_dir = trained(folder, "motion", RidgeConfig(penalties=(30.0,)), ("motion",), epochs=0)
    moving = config.override({"motion": {"run_dir": run_dir, "target": "motion"}, "generator.moves": "flow"})
    assert moving.run_dirs == [config.semantic.run_dir, config.perception.run_dir, run_dir]
    pipeline = VideoPipeline.open(moving.located())
    clips, recording = clips_and_recording(pipeline)
    videos = [result.video for result in pipeline.reconstruct(recording, clips)]
    assert any(np.ptp(video.astype(int), axis=0).any() for video in videos), "something moves"
    watching = Watching()
    replace(pipeline, generator=watching).reconstruct(recording, clips)
    motion = predict(run_dir, "test")
    mean, sd = motion.scale.get("motion", (0.0, 1.0))
    for clip, condition in zip(clips, watching.asked[0][1], strict=True):
        values = motion.predicted["motion"][motion.example.tolist().index(clip.example)] * sd + mean
        for axis in range(2):
            roots = values[:, axis]
            np.testing.assert_allclose(condition.flow[..., axis], np.sign(roots) * roots**2, atol=1e-4)
    watching = Watching()
    still = replace(pipeline, generator=watching, config=moving.override({"use_blurry": False}))
    still.reconstruct(recording, clips)
    assert all(c.flow is None for c in watching.asked[0][1])


def test_motion_and_its_use_come_together(config):
    with pytest.raises(ConfigError, match=r"found generator\.moves=flow without motion"):
        config.override({"generator.moves": "flow"})
    with pytest.raises(ConfigError, match="found motion beside a generator that has no use for it"):
        config.override({"motion": {"run_dir": "x", "target": "motion"}})
    with pytest.raises(ConfigError, match=r"'latents' is .* in sRGB, -1 to 1, expected .* in signed square roots"):
        VideoPipeline.open(config.override({"motion": config.perception.model_dump(), "generator.moves": "flow"}))


def test_without_the_blurry_video_the_keyframe_stands_still(pipeline):
    clips, recording = clips_and_recording(pipeline)
    full = pipeline.reconstruct(recording, clips)
    without = replace(pipeline, config=pipeline.config.override({"use_blurry": False})).reconstruct(recording, clips)
    for with_it, result in zip(full, without, strict=True):
        assert np.array_equal(result.keyframe, with_it.keyframe)
        assert np.array_equal(result.video, np.broadcast_to(result.keyframe, result.video.shape))
        assert not np.array_equal(result.video, with_it.video)


def test_the_brain_decides(pipeline):
    """Another stretch of the recording under the same names gives other videos."""
    clips, recording = clips_and_recording(pipeline)
    other = pipeline.reconstruct(np.roll(recording, 7, axis=0), clips)
    for here, there in zip(pipeline.reconstruct(recording, clips), other, strict=True):
        assert not np.array_equal(here.video, there.video)


class Linked:
    """Everything that may be linked is."""

    config = LinkConfig(max_clips=3)

    def chains(self, embeddings, follows):
        assert embeddings.shape[1] == 80
        return [[0, 1, 2], [3], [4, 5]]


def test_a_chain_goes_on_from_its_last_frame_and_the_others_do_not_wait(pipeline):
    clips, recording = clips_and_recording(pipeline)
    watching = Watching()
    linked = replace(pipeline, generator=watching, link=Linked(), config=pipeline.config.override({"link": {}}))
    results = linked.reconstruct(recording, clips[:6])
    assert [r.carried for r in results] == [False, True, True, False, False, True]
    asked = [conditions for name, conditions in watching.asked if name == "videos"]
    seeds = [r.seed for r in results]
    assert [[seeds.index(c.seed) for c in conditions] for conditions in asked] == [[0, 3, 4], [1, 5], [2]]
    assert all(c.first_frame is None for c in asked[0])
    assert np.array_equal(asked[1][0].first_frame, results[0].video[-1])
    assert np.array_equal(asked[1][1].first_frame, results[4].video[-1])
    assert np.array_equal(asked[2][0].first_frame, results[1].video[-1])


def test_the_link_is_trained_once_and_kept_with_the_semantic_run(config, pipeline, monkeypatch):
    """Scenes of the synthetic film last one clip, so some are joined here for the labels' sake."""
    original = clips_of

    def joined(dataset, examples):
        return [replace(clip, group=str(clip.scan // 3)) for clip in original(dataset, examples)]

    monkeypatch.setattr("cineray.serving.scenes.clips_of", joined)
    chosen = config.override({"link": {"steps": 20, "precision": 0.5, "max_clips": 2}})
    opened = VideoPipeline.open(chosen)
    files = Store.at(config.semantic.run_dir).list("links/")
    assert len(files) == 1
    monkeypatch.setattr("cineray.serving.scenes.fit_link", None)
    again = VideoPipeline.open(chosen)
    assert again.link is not None
    assert again.link.dumps() == opened.link.dumps()
    clips, recording = clips_and_recording(again)
    results = again.reconstruct(recording, clips)
    assert len(results) == len(clips)


def test_a_film_of_one_clip_scenes_cannot_teach_a_link(config):
    with pytest.raises(DataError, match=r"0 of .* neighbouring training clips within one scene"):
        VideoPipeline.open(config.override({"link": {"seed": 5}}))


def test_blip_describes_the_generated_keyframes_and_nothing_else(tmp_path, pipeline):
    """A tiny model of the class, through the code that loads the real one; each picture as by the encoder alone."""
    make_blip(tmp_path)
    settings = BlipConfig(part=Part(folder=str(tmp_path)), num_beams=1, max_tokens=4)
    captioner = BlipCaptionsConfig(encoder=settings).build(library=pipeline.library, device="cpu")
    clips, recording = clips_and_recording(pipeline)
    results = replace(pipeline, captioner=captioner).reconstruct(recording, clips[:2])
    for result in results:
        assert result.keyframe is not None
        alone = settings.build("cpu").encode(result.keyframe[None, None], [""])
        assert result.caption == as_text(alone)[0] != ""


def test_clips_are_showings_and_neighbours_follow(pipeline):
    dataset = pipeline.semantic.dataset
    clips, _ = clips_and_recording(pipeline)
    rows = dataset.samples(["subject", "run", "scan", "stimulus_id"]).to_pylist()
    for clip in clips:
        row = next(r for r in rows if (r["subject"], r["run"], r["scan"]) == (clip.subject, clip.run, clip.scan))
        assert row["stimulus_id"] == clip.stimulus_id == clip.group
    assert [clip.follows for clip in clips] == [False] + [True] * (len(clips) - 1)
    cut = clips_of_recording("sub-01", "scan", 7, 3)
    assert [(c.example, c.scan, c.stimulus_id, c.follows) for c in cut] == [
        (0, 0, "scan:0", False), (3, 3, "scan:3", True), (6, 6, "scan:6", True)
    ]  # fmt: skip


def test_what_does_not_fit_is_named(tmp_path, config, pipeline):
    clips, recording = clips_and_recording(pipeline)
    with pytest.raises(DataError, match=r"shape \(3, 5\), expected \(scans, \d+\) for sub-01"):
        pipeline.reconstruct(np.zeros((3, 5), np.float32), clips)
    with pytest.raises(DataError, match="no subject"):
        pipeline.reconstruct(recording, [replace(clips[0], subject="nobody")])
    with pytest.raises(ConfigError, match="predicts features, the settings ask it for 'clip_tokens'"):
        VideoPipeline.open(config.override({"semantic.target": "clip_tokens"}))
    with pytest.raises(ConfigError, match="expected one of them to be true"):
        config.override({"use_keyframe": False, "use_blurry": False})
    assert VideoPipelineConfig.loads(config.dump()) == config


def test_runs_of_different_splits_are_refused(config, monkeypatch):
    """What one holds out, the other may have seen."""
    original = Pipeline.open

    def changed(run_dir, **settings):
        found = original(run_dir, **settings)
        gap_s = 4.0 if "semantic" in run_dir else 3.0
        return replace(found, run=found.run.override({"view.split.gap_s": gap_s}))

    monkeypatch.setattr(Pipeline, "open", changed)
    with pytest.raises(ConfigError, match="perception was trained on another split than"):
        VideoPipeline.open(config)
