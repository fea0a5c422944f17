"""The runs behind `benchmarks.results_video`: brains of a seed, two reconstructors, and every kind of video."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from benchmarks.results_video_clips import shuffled, spread, still
from numpy.typing import NDArray

from cineray.core.config import Config
from cineray.core.pretrained import Part
from cineray.core.storage import Store
from cineray.datasets.dataset import Dataset
from cineray.datasets.encoders.motion import MotionConfig, expanded
from cineray.datasets.encoders.taef2 import Taef2Config
from cineray.datasets.encoders.words import WordsConfig
from cineray.datasets.extraction import extract
from cineray.datasets.ingest import ingest
from cineray.datasets.manifest import MANIFEST_KEY
from cineray.datasets.sources.watched import WatchedConfig
from cineray.datasets.split import Selection, SplitConfig
from cineray.datasets.view import ViewConfig, Window
from cineray.serving.generators.base import Condition
from cineray.serving.generators.codecs import Taef2CodecConfig
from cineray.serving.generators.nearest import NearestConfig
from cineray.serving.jobs import Job
from cineray.serving.library import Library
from cineray.serving.outputs import OutputConfig
from cineray.serving.video_pipeline import VideoPipeline, VideoPipelineConfig
from cineray.training.feed import open_feed
from cineray.training.loop import train
from cineray.training.losses import BiMixCoConfig, InfoNCEConfig, MSEConfig, SoftCLIPConfig
from cineray.training.models.perception import PerceptionConfig
from cineray.training.models.ridge import RidgeConfig
from cineray.training.models.semantic import SemanticConfig
from cineray.training.optim import OptimConfig
from cineray.training.reconstructions import Origin, Reconstruction, Reconstructions
from cineray.training.run import EvaluationConfig, Run
from cineray.training.world import World

__all__ = ["ALL", "GENERATOR", "KINDS", "Plan", "Seed", "reconstruct"]

WORDS, LATENTS, MOTION = "words", "latents", "motion"
SPLIT = SplitConfig(
    train=Selection(films=("train",)), val=Selection(films=("val",)), test=Selection(films=("test",)), gap_s=0
)
"""The source itself leaves a twentieth of every file between two films."""
WINDOW = Window(first=-1, last=6)
"""Scans of 2 s around the one that carries a clip's response."""
FAINT, PENALTY = 0.00065, 40.0
"""Of decoded motion, which is told in one piece a clip: there is one scan in each."""
GENERATOR = NearestConfig(agreement=1.0, moves="flow", faint=FAINT, light=0.0)
"""Chosen with the two figures above on the validation film of seed 100, which is not in the plan."""
DATA, RUNS = "data", ("semantic", "perception", "motion")
KINDS = ("full", "shuffled", "mean_frame", "no_keyframe", "no_blurry", "ceiling", "true_latents")
"""Whole pipeline; the same videos beside wrong clips; one picture for all; without one of the two streams; and what no
decoder gets beyond: the pipeline given true words, latents and motion, and true latents as they are."""
ALL = "-all"
"""After a kind: not only the clips that are scored, but all of the test film."""


class Plan(Config):
    """How much of everything."""

    data: str
    """Folder with ``videos_intel_ccby4`` and ``weights_taef2``."""
    out: str = "runs/results-video"
    seeds: tuple[int, ...] = (0, 1, 2)
    mirrored: bool = False
    """Files from their end: the second half trains, the first fifth is tested."""
    num_subjects: int = 3
    voxels: tuple[int, int] = (2400, 2600)
    slow: float = 3.0
    """Films last minutes: slowed down, they make more clips, in each of which less happens."""
    train_repeats: int = 4
    test_repeats: int = 10
    """Of validation and test, whose clips are decoded from the mean of them, as those of cc2017 are."""
    most_clips: int = 12
    """Of a file that are scored, evenly spread over its part of the test film: no file may decide alone."""
    epochs: int = 15
    perception_epochs: int = 4
    """Beyond, it learns the clips by heart."""


@dataclass(frozen=True)
class Seed:
    """One repetition: brains, weights and order of clips of its own."""

    plan: Plan
    seed: int
    penalty: float = PENALTY

    @property
    def source(self) -> WatchedConfig:
        """Synthetic brains before real clips."""
        return WatchedConfig(
            folder=f"{self.plan.data}/videos_intel_ccby4",
            num_subjects=self.plan.num_subjects,
            voxels=self.plan.voxels,
            num_frames=6,
            slow=self.plan.slow,
            mirrored=self.plan.mirrored,
            backwards=True,
            train_repeats=self.plan.train_repeats,
            test_repeats=self.plan.test_repeats,
            seed=self.seed,
        )

    def folder(self, name: str) -> str:
        """Of the data set, of a run, or of a kind of video; whatever is made otherwise has another folder."""
        plan = self.plan.model_copy(update={"seeds": (), "out": "", "data": ""}).fingerprint()[:6]
        own = Path(self.plan.out) / plan / f"seed-{self.seed}"
        if name == DATA:
            return str(own / f"{DATA}-{self.source.override({'folder': '', 'seed': 0}).fingerprint()[:6]}")
        runs = {run.name: f"{run.name}-{_settings(run)}" for run in self._runs}
        if name in runs:
            return str(own / runs[name])
        made = _pipeline(*(runs[run] for run in RUNS)).fingerprint()[:6]
        return str(own / f"videos-{made}" / name)

    def make_data(self) -> None:
        """Clips, brains and what is learned from brains: words of the captions, latents of all frames, motion."""
        data = self.folder(DATA)
        if not Store.at(data).exists(MANIFEST_KEY):
            ingest(self.source, data)
        extract(data, WordsConfig(target=WORDS))
        extract(data, Taef2Config(target=LATENTS, part=self._taef2))
        extract(data, MotionConfig(target=MOTION, places=12))

    def fit(self) -> None:
        """Both reconstructors, and motion."""
        torch.set_num_threads(1)
        for run in self._runs:
            store = Store.at(self.folder(run.name))
            store.put("run.yaml", run.dump().encode())
            train(run, World(), lambda normaliser, run=run: open_feed(run, normaliser), store)

    def make_videos(self) -> None:
        """Every kind, of the test clips that are scored; some of all clips, in folders that end in `ALL`."""
        made = {"full": {}, "no_keyframe": {"use_keyframe": False}, "no_blurry": {"use_blurry": False}}
        for kind, without in made.items():
            reconstruct(self.pipeline(kind, **without), self.folder(kind + ALL), "test")
        folders = {kind: Reconstructions.open(Store.at(self.folder(kind + ALL)), "test") for kind in made}
        full, picture = folders["full"], self._mean_frame()
        self._write("mean_frame" + ALL, full, still(picture, (full.read(entry.example) for entry in full.entries)))
        scored = spread([entry.stimulus_id for entry in full.entries], self.plan.most_clips)
        examples = [entry.example for entry in full.entries if entry.stimulus_id in scored]
        for kind, folder in folders.items():
            self._write(kind, full, (folder.read(example) for example in examples))
        clips = [full.read(example) for example in examples]
        self._write("shuffled", full, shuffled(clips, self.seed))
        self._write("mean_frame", full, still(picture, iter(clips)))
        ceiling = list(self._ceiling(clips))
        self._write("ceiling", full, iter(ceiling))
        self._write(
            "true_latents", full, (replace(clip, video=clip.blurry) for clip in ceiling if clip.blurry is not None)
        )

    @property
    def _taef2(self) -> Part:
        return Part(folder=f"{self.plan.data}/weights_taef2")

    def _view(self, target: str, *, raw: bool) -> ViewConfig:
        return ViewConfig(
            dataset=self.folder(DATA),
            window=WINDOW,
            targets=(target,),
            raw_targets=(target,) if raw else (),
            split=SPLIT,
        )

    @property
    def _runs(self) -> tuple[Run, Run, Run]:
        return self._semantic(), self._perception(), self._motion()

    def _semantic(self) -> Run:
        return Run(
            name="semantic",
            seed=self.seed,
            view=self._view(WORDS, raw=True),
            model=SemanticConfig(
                target=WORDS, read_in="scan", dim=96, mixer="residual-mlp", depth=1, dropout=0.3, head_dropout=0.3
            ),
            losses=(
                BiMixCoConfig(target=WORDS, temperature=0.07, phase=(0, 0.33)),
                SoftCLIPConfig(target=WORDS, temperature=0.07, phase=(0.33, 1)),
                MSEConfig(target=WORDS, weight=30.0),
            ),
            optim=OptimConfig(lr=2e-3, epochs=self.plan.epochs, batch_size=64),
            evaluation=EvaluationConfig(clip_s=2.0),
        )

    def _perception(self) -> Run:
        return Run(
            name="perception",
            seed=self.seed,
            view=self._view(LATENTS, raw=False),
            model=PerceptionConfig(
                target=LATENTS, read_in="scan", dim=64, hidden=256, channels=16, widths=(16, 32), map_dropout=0.1
            ),
            losses=(MSEConfig(target=LATENTS), InfoNCEConfig(target=LATENTS, temperature=0.07)),
            optim=OptimConfig(lr=2e-3, epochs=self.plan.perception_epochs, batch_size=64),
            evaluation=EvaluationConfig(clip_s=2.0),
        )

    def _motion(self) -> Run:
        return Run(
            name="motion",
            seed=self.seed,
            view=self._view(MOTION, raw=True),
            model=RidgeConfig(penalties=(self.penalty,)),
            losses=(MSEConfig(target=MOTION),),
            optim=OptimConfig(epochs=0, batch_size=64),
            evaluation=EvaluationConfig(clip_s=2.0),
        )

    def pipeline(self, kind: str, **changes: bool) -> VideoPipelineConfig:
        """Settings that make a kind of video."""
        own = {"name": kind, "codec": Taef2CodecConfig(part=self._taef2), "seed": self.seed}
        return _pipeline(*map(self.folder, RUNS)).model_copy(update=own | changes)

    def _ceiling(self, clips: list[Reconstruction]) -> Iterator[Reconstruction]:
        """What the generator makes of true words, latents and motion."""
        pipeline, dataset = VideoPipeline.open(self.pipeline("full")), Dataset.open(self.folder(DATA))
        ids = dataset.stimuli(["stimulus_id"])["stimulus_id"].to_pylist()
        for clip in clips:
            row = np.array([ids.index(clip.stimulus_id)])
            words, latents = (torch.from_numpy(dataset.gather_stimuli(t, row)[0]).float() for t in (WORDS, LATENTS))
            flow = np.moveaxis(expanded(dataset.gather_stimuli(MOTION, row)[0].astype(np.float32)), 1, -1)
            blurry = pipeline.codec.decode(latents)
            condition = Condition(tokens=words.reshape(-1, words.shape[-1]), blurry=blurry, latents=latents, flow=flow)
            keyframes = pipeline.generator.keyframes([condition])
            (video,) = pipeline.generator.videos([condition], keyframes)
            yield replace(clip, video=video, keyframe=keyframes[0], blurry=blurry)

    def _mean_frame(self) -> NDArray[np.uint8]:
        """(height, width, 3) over all frames of training."""
        dataset = Dataset.open(self.folder(DATA))
        library = Library.of(dataset, self._view(WORDS, raw=False), WORDS, "frames")
        return np.rint(np.mean([library.frames(row).mean(0) for row in library.rows.tolist()], axis=0)).astype(np.uint8)

    def _write(self, kind: str, full: Reconstructions, clips: Iterator[Reconstruction]) -> None:
        origin = Origin.parse(full.origin.model_dump() | {"settings": f"{full.origin.settings}-{kind}"})
        folder = Reconstructions.begin(Store.at(self.folder(kind)), "test", origin)
        for clip in clips:
            folder.write(clip)
        folder.finish()


def reconstruct(config: VideoPipelineConfig, folder: str, split: str) -> None:
    """Every clip of a split; what is there already stays."""
    job = Job.of_split(config, folder, split)
    pieces = job.begin()
    if pieces:
        for _ in job.run(VideoPipeline.open(config), pieces):
            pass
    job.finish()


def _pipeline(semantic: str, perception: str, motion: str) -> VideoPipelineConfig:
    return VideoPipelineConfig(
        motion=OutputConfig(run_dir=motion, target=MOTION),
        semantic=OutputConfig(run_dir=semantic, target=WORDS),
        perception=OutputConfig(run_dir=perception, target=LATENTS),
        generator=GENERATOR,
        repeats="mean",
    )


def _settings(run: Run) -> str:
    """Six hex digits of all that decides a run, wherever its data set lies."""
    return run.override({"view.dataset": ""}).fingerprint()[:6]
