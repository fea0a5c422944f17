"""What a video pipeline stands on, made the way users make it: ingest, features, two trained runs; seconds."""

from pathlib import Path

from cineray.core.storage import Store
from cineray.datasets.encoders.pool import PoolConfig
from cineray.datasets.extraction import extract
from cineray.datasets.ingest import ingest
from cineray.datasets.sources.synthetic import SyntheticConfig
from cineray.datasets.split import Blocks, Selection, SplitConfig
from cineray.datasets.view import ViewConfig, Window
from cineray.serving.video_pipeline import RunOutput, VideoPipelineConfig
from cineray.training.feed import open_feed
from cineray.training.loop import train
from cineray.training.losses import MSEConfig
from cineray.training.models.ridge import RidgeConfig
from cineray.training.optim import OptimConfig
from cineray.training.run import Run
from cineray.training.world import World

__all__ = ["SPLIT", "tiny_video"]

SPLIT = SplitConfig(
    train=Selection(films=("train",), blocks=Blocks(num=4, take=(0, 1, 2))),
    val=Selection(films=("train",), blocks=Blocks(num=4, take=(3,))),
    test=Selection(films=("test",)),
    gap_s=4,
)


def tiny_video(folder: Path, **changes: object) -> VideoPipelineConfig:
    """Two subjects, films of 8 frames of 16 x 16 pixels a clip; ``changes`` are overrides with ``__`` for the dot."""
    source = SyntheticConfig(
        num_subjects=2, minutes=2, test_minutes=1, run_minutes=1, tr_s=2, fps=4, frame_px=16, voxels=(30, 40), noise=0.2
    )
    ingest(source, folder / "data")
    extract(str(folder / "data"), PoolConfig(factor=4))
    for name, target in (("semantic", "features"), ("perception", "latents")):
        view = ViewConfig(
            dataset=str(folder / "data"),
            window=Window(first=1, last=3),
            targets=(target,),
            raw_targets=("latents",) if target == "latents" else (),
            split=SPLIT,
        )
        run = Run(
            name=name,
            view=view,
            model=RidgeConfig(penalties=(30.0,)),
            losses=(MSEConfig(target=target),),
            optim=OptimConfig(epochs=0),
        )
        store = Store.at(folder / name)
        store.put("run.yaml", run.dump().encode())
        train(run, World(), lambda normaliser, run=run: open_feed(run, normaliser), store)
    config = VideoPipelineConfig(
        semantic=RunOutput(run_dir=str(folder / "semantic"), target="features"),
        perception=RunOutput(run_dir=str(folder / "perception"), target="latents"),
    )
    return config.override({key.replace("__", "."): value for key, value in changes.items()})
