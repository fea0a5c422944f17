"""From brains to videos, on films made on the spot: features, two reconstructors, clips, scores, a gallery."""

from typing import Any

import numpy as np

from cineray.core.records import progress
from cineray.core.storage import Store
from cineray.datasets.sources.synthetic import SyntheticConfig
from cineray.training.recipes import synthetic
from cineray.training.run import Run

__all__ = ["FILMS", "METRICS", "RECONSTRUCTORS", "compute_features", "reconstruct", "score"]

FILMS = SyntheticConfig(
    films="own",
    num_subjects=3,
    minutes=40,
    test_minutes=4,
    repeats=4,
    tr_s=4,
    frame_px=32,
    frame_step=4,
    noise=0.3,
    seed=1,
)
"""Scenes of 4 s as 8 pictures. Less noise than the first data set has: minutes must do where labs have hours."""
RECONSTRUCTORS = {
    "semantic": ("what is seen: the words of the caption", synthetic.semantic),
    "perception": ("where it is and how it moves: a blurry video", synthetic.perception),
}
KIND = r"(red|green|blue|yellow|magenta|cyan) (circle|square|triangle|cross|ring|bar)"
"""What the classifier of the semantic metrics learns to tell, from pictures of training scenes."""
METRICS = ("nway_frame@2", "nway_frame@10", "clip_sim", "ssim", "psnr", "epe")
NUM_ACTORS = 2


def compute_features(data: str) -> None:
    """Words of the captions and pictures in small, by Ray Data."""
    from cineray.datasets.encoders.pool import PoolConfig
    from cineray.datasets.encoders.words import WordsConfig
    from cineray.datasets.extraction import extract
    from cineray.datasets.features import on_ray

    for encoder in (WordsConfig(), PoolConfig(factor=4)):
        extract(data, encoder, workers=on_ray, progress=progress)


def reconstruct(out: str) -> int:
    """Every test clip of everybody from the mean of its showings, on Ray actors; returns how many there are."""
    from cineray.serving.jobs import Job
    from cineray.serving.outputs import OutputConfig
    from cineray.serving.reconstruct import reconstruct as over_actors
    from cineray.serving.video_pipeline import VideoPipelineConfig

    config = VideoPipelineConfig(
        semantic=OutputConfig(run_dir=f"{out}/semantic", target=synthetic.WORDS),
        perception=OutputConfig(run_dir=f"{out}/perception", target=synthetic.LATENTS),
        repeats="mean",
    )
    job = Job.of_split(config, f"{out}/videos", "test")
    pieces = job.begin()
    for _ in progress(over_actors(job, pieces, num_actors=NUM_ACTORS) if pieces else (), "pieces", len(pieces)):
        pass
    job.finish()
    return sum(len(piece.clips) for piece in job.pieces)


def score(out: str) -> dict[str, Any]:
    """Train the small judge on training pictures, score all clips with it, and write the gallery."""
    from cineray.training.backbones.trained import TrainedConfig
    from cineray.training.evaluate_video import EvaluateVideoConfig, evaluate_video, format_video_table
    from cineray.training.video_report import video_report

    _train_judge(out)
    judge = TrainedConfig(folder=f"{out}/judge")
    config = EvaluateVideoConfig(metrics=METRICS, networks={"frame_classifier": judge, "clip": judge})
    found = evaluate_video(f"{out}/videos", "test", config)
    print(format_video_table(found))
    kept = ("value", "low", "high", "chance", "null", "baselines")
    return {
        "gallery": video_report(f"{out}/videos", "test"),
        "metrics": {name: {key: line[key] for key in kept} for name, line in found["metrics"].items()},
    }


def _train_judge(out: str) -> None:
    from cineray.datasets.dataset import Dataset
    from cineray.datasets.split import make_split
    from cineray.training.backbones.trained import ClassifierConfig, train_classifier
    from cineray.training.predict import read_run

    if Store.at(f"{out}/judge").exists("classifier.json"):
        return
    view = read_run(Store.at(f"{out}/semantic")).view
    dataset = Dataset.open(view.dataset)
    train = make_split(dataset, view.split, view.subjects, view.window).train
    rows = [dataset.gather_stimulus_rows(train.rows(numbers)) for numbers in train.chunks()]
    about = train_classifier(
        dataset, np.unique(np.concatenate(rows)), f"{out}/judge", ClassifierConfig(pattern=KIND, px=32)
    )
    print(f"  the judge tells {len(about['classes'])} kinds, {about['training_accuracy']:.3f} of its training pictures")


def run_of(name: str, data: str) -> Run:
    """One of the two reconstructors, of everybody."""
    return RECONSTRUCTORS[name][1](subjects=FILMS.subjects, dataset=data)
