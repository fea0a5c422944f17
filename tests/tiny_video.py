"""What a video pipeline stands on, made the way users make it: ingest, features, two trained runs; seconds."""

from pathlib import Path

from cineray.core.storage import Store
from cineray.datasets.encoders.pool import PoolConfig
from cineray.datasets.extraction import extract
from cineray.datasets.ingest import ingest
from cineray.datasets.sources.synthetic import SyntheticConfig
from cineray.datasets.split import Blocks, Selection, SplitConfig
from cineray.datasets.view import ViewConfig, Window
from cineray.serving.outputs import OutputConfig
from cineray.serving.video_pipeline import VideoPipelineConfig
from cineray.training.feed import open_feed
from cineray.training.loop import train
from cineray.training.losses import MSEConfig
from cineray.training.models import ModelConfig
from cineray.training.models.ridge import RidgeConfig
from cineray.training.optim import OptimConfig
from cineray.training.run import Run
from cineray.training.world import World

__all__ = ["SPLIT", "tiny_video", "trained"]

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
        trained(folder, name, RidgeConfig(penalties=(30.0,)), (target,), epochs=0)
    config = VideoPipelineConfig(
        semantic=OutputConfig(run_dir=str(folder / "semantic"), target="features"),
        perception=OutputConfig(run_dir=str(folder / "perception"), target="latents"),
    )
    return config.override({key.replace("__", "."): value for key, value in changes.items()})


def trained(folder: Path, name: str, model: ModelConfig, targets: tuple[str, ...], epochs: int) -> str:
    """A run in ``folder``/name on ``folder``/data; latents stay as they are."""
    raw = tuple(target for target in targets if target == "latents")
    look = ViewConfig(
        dataset=str(folder / "data"), window=Window(first=1, last=3), targets=targets, raw_targets=raw, split=SPLIT
    )
    run = Run(
        name=name,
        view=look,
        model=model,
        losses=(MSEConfig(target=targets[0]),),
        optim=OptimConfig(epochs=epochs, batch_size=16),
    )
    store = Store.at(folder / name)
    store.put("run.yaml", run.dump().encode())
    train(run, World(), lambda normaliser: open_feed(run, normaliser), store)
    return store.url
