"""The published chain as one, by the real classes in tiny: tokens by a semantic model and its prior, unCLIP keyframe,
BLIP caption, blurry latents, AnimateDiff with SparseCtrl, three clips linked to 6 s at 8 fps."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import tiny_diffusers
import tiny_encoders
from cineray.core.errors import ConfigError
from cineray.core.pretrained import Part
from cineray.datasets.dataset import Dataset
from cineray.datasets.encoders.captions import BlipConfig, as_text
from cineray.datasets.encoders.clip import OpenClipConfig
from cineray.datasets.encoders.text import OpenClipTextConfig
from cineray.datasets.encoders.vae import VaeConfig
from cineray.datasets.extraction import extract
from cineray.datasets.ingest import ingest
from cineray.datasets.sources.synthetic import SyntheticConfig
from cineray.serving.clips import clips_of
from cineray.serving.generators.animatediff import AnimateDiffConfig
from cineray.serving.generators.base import Condition
from cineray.serving.generators.unclip import UnclipConfig
from cineray.serving.jobs import Job, write_piece
from cineray.serving.video_pipeline import VideoPipeline, VideoPipelineConfig, clip_seed
from cineray.training.models.ridge import RidgeConfig
from cineray.training.predict import predict
from cineray.training.recipes.neuroclips import perception, prior, semantic
from cineray.training.reconstructions import Reconstructions
from cineray.training.run import Run
from tiny_run import trained_in
from tiny_video import SPLIT, trained

CPU = torch.device("cpu")
LOOK = {"view.subjects": ["sub-01"], "view.window": {"first": 1, "last": 3}}
SHORT = {"optim.batch_size": 16, "optim.epochs": 2, "optim.warmup_fraction": 0.5, "strategy.precision": "fp32"}
PRIOR = {"model.depth": 1, "model.heads": 2, "model.head_dim": 8, "model.steps": 4}
PERCEPTION = {"model.dim": 16, "model.hidden": 16, "model.channels": 4, "model.widths": [4, 8]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Films of clips of 2 s, and what the encoders make of them."""
    folder = tmp_path_factory.mktemp("chain")
    source = SyntheticConfig(
        num_subjects=1, minutes=2, test_minutes=1, run_minutes=1, tr_s=2, fps=4, frame_px=16, voxels=(30, 40), noise=0.2
    )
    ingest(source, folder / "data")
    torch.manual_seed(0)
    for name in ("bigg", "blip"):
        (folder / name).mkdir()
    tiny_encoders.open_clip(folder / "bigg", tiny_diffusers.DIM)
    tiny_encoders.blip(folder / "blip")
    tiny_diffusers.save_animatediff(folder / "parts")
    bigg, vae = Part(folder=str(folder / "bigg")), Part(folder=str(folder / "parts" / "base" / "vae"))
    for encoder in (
        OpenClipConfig(part=bigg, image_range="mindeye2"),
        OpenClipConfig(part=bigg, target="plain_tokens"),
        OpenClipTextConfig(part=bigg),
        VaeConfig(part=vae),
    ):
        extract(str(folder / "data"), encoder)
    return folder


def learned(run: Run, folder: Path) -> str:
    return trained_in(folder, run.model_copy(update={"view": run.view.model_copy(update={"split": SPLIT})}))


@pytest.fixture(scope="module")
def config(folder):
    """The recipes as they are, but for their sizes; the prior is asked for the tokens."""
    data = str(folder / "data")
    below = learned(semantic(dataset=data).override(LOOK | SHORT | {"model.dim": 16}), folder / "semantic")
    above = learned(prior(from_=below).override(SHORT | PRIOR), folder / "prior")
    blurry = learned(perception(dataset=data).override(LOOK | SHORT | PERCEPTION), folder / "perception")
    parts = {n: {"folder": str(folder / "parts" / n)} for n in ("base", "motion", "control")}
    generator = {"name": "animatediff", "size": 16, "num_frames": 16, "steps": 3, "strength": 0.7, **parts}
    generator |= {"unet": parts["base"], "keyframe": tiny_diffusers.save_unclip(folder)}
    return VideoPipelineConfig.parse(
        {
            "semantic": {"run_dir": above, "target": "clip_tokens"},
            "perception": {"run_dir": blurry, "target": "latents"},
            "codec": {"name": "autoencoder", "part": parts["base"], "subfolder": "vae"},
            "captions": {"name": "blip", "encoder": {"part": {"folder": str(folder / "blip")}, "max_tokens": 4}},
            "generator": generator,
            "link": {"steps": 10, "precision": 0.01, "max_clips": 3},
        }
    )


@pytest.fixture
def scenes(monkeypatch):
    """Scenes of the synthetic film last one clip, so some are joined for the link's sake."""
    monkeypatch.setattr(
        "cineray.serving.scenes.clips_of",
        lambda *given: [replace(clip, group=str(clip.scan // 3)) for clip in clips_of(*given)],
    )


def linked(config):
    """Opened, all neighbours linked whatever the link has learned of so little."""
    pipeline = VideoPipeline.open(config)
    assert pipeline.link is not None
    return replace(pipeline, link=replace(pipeline.link, threshold=0.0))


def length_of(path):
    """Frames, and frames per second."""
    film = cv2.VideoCapture(path)
    return sum(film.read()[0] for _ in range(60)), film.get(cv2.CAP_PROP_FPS)


def test_six_seconds_are_what_its_parts_make_one_after_another(folder, config, scenes, monkeypatch):
    """Every step again by its own class alone; the training stimuli's tokens and latents are never read."""
    read, original = set(), Dataset.gather_stimuli
    monkeypatch.setattr(
        Dataset,
        "gather_stimuli",
        lambda self, name, *rest, **more: read.add(name) or original(self, name, *rest, **more),
    )
    job = Job.of_split(config, folder / "videos", "test")
    clips = job.begin()[0].clips[:3]
    write_piece(job, linked(config), replace(job.pieces[0], clips=clips))
    assert not read, "neither engine nor captions look anything up"
    results = [Reconstructions(job.store, "test", job.origin).read(clip.example) for clip in clips]
    assert [r.carried for r in results] == [False, True, True]
    assert {(r.video.shape, r.fps) for r in results} == {((16, 16, 16, 3), 8.0)}

    found, blurry = (predict(part.run_dir, "test") for part in (config.semantic, config.perception))
    at = [found.example.tolist().index(clip.example) for clip in clips]
    assert isinstance(config.generator, AnimateDiffConfig)
    assert isinstance(config.generator.keyframe, UnclipConfig)
    engine = config.generator.keyframe.build(device=CPU)
    speaker = BlipConfig(part=Part(folder=str(folder / "blip")), max_tokens=4).build("cpu")
    generator, before = config.generator.build(device=CPU), None
    for i, clip, result in zip(at, clips, results, strict=True):
        tokens = torch.from_numpy(found.predicted["clip_tokens"][i])
        seeds = clip_seed(0, clip, "keyframe"), 0
        keyframe, other = (engine([Condition(tokens=tokens, seed=seed)])[0].astype(int) for seed in seeds)
        assert np.abs(keyframe - result.keyframe).max() <= 1
        assert np.abs(other - result.keyframe).mean() > 5
        assert result.caption == as_text(speaker.encode(result.keyframe[None, None], [""]))[0] != ""
        latents = torch.from_numpy(blurry.predicted["latents"][i])
        decoded = generator.autoencoder.decode(latents).add(1).mul(127.5)
        assert np.abs(decoded.clamp(0, 255).movedim(1, -1).numpy() - result.blurry).max() <= 1
        seed = clip_seed(0, clip, "video")
        alone = Condition(blurry=result.blurry, caption=result.caption, seed=seed, first_frame=before)
        np.testing.assert_array_equal(generator.videos([alone], result.keyframe[None])[0], result.video)
        unlinked = generator.videos([replace(alone, first_frame=None)], result.keyframe[None])[0]
        assert np.array_equal(unlinked, result.video) == (before is None)
        before = result.video[-1]

    assert length_of(job.store.path(f"{job.folder}/chain-{clips[0].example:06d}.mp4")) == (48, 8.0)


def test_what_codec_or_engine_would_misread_does_not_open(folder, config):
    """Tokens of the other image range, latents for another codec, a vector where latents belong."""
    plain = config.override({"link": None})
    run_dir = trained(folder, "plain", RidgeConfig(penalties=(30.0,)), ("plain_tokens",), epochs=0)
    other = {"semantic": {"run_dir": run_dir, "target": "plain_tokens"}}
    for changes, sentence in [
        (
            {"codec": {"name": "pool"}},
            r"'latents' is \(8, 4, 8, 8\) in scaled latent, expected \(frames, 3, height, width\) in sRGB, -1 to 1 for "
            r"codec\.name=pool; name .*, or the codec of its latents: .* autoencoder of vae",
        ),
        (
            {"perception": {"run_dir": config.semantic.run_dir, "target": "clip_text"}},
            r"'clip_text' is \(8,\) in CLIP, expected \(frames, 4, height, width\) in scaled latent",
        ),
        (
            other,
            r"'plain_tokens' is \(16, 16\) in CLIP, image range zero_one, expected \(tokens, 16\) in CLIP, image range "
            r"mindeye2 for generator\.keyframe\.name=unclip; train .*image_range=mindeye2",
        ),
    ]:
        with pytest.raises(ConfigError, match=sentence):
            VideoPipeline.open(plain.override(changes))
    VideoPipeline.open(plain.override(other | {"use_keyframe": False}))
