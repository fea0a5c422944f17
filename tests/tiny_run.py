"""A run folder made the way users make one: ingest, train, predict; three subjects, seconds."""

from pathlib import Path

from cineray.core.storage import Store
from cineray.datasets.ingest import ingest
from cineray.datasets.sources.synthetic import SyntheticConfig
from cineray.datasets.split import Blocks, Selection, SplitConfig
from cineray.datasets.view import ViewConfig, Window
from cineray.training.feed import open_feed
from cineray.training.loop import train
from cineray.training.run import Run
from cineray.training.world import World

__all__ = ["TEST_RUN", "tiny_run", "trained_in"]

TEST_RUN = "test-00-repeat-0"


def tiny_run(folder: Path | str, *, voxels: tuple[int, int] = (20, 40), **changes: object) -> str:
    """Train in ``folder``/run on ``folder``/data (or ``s3://…``); ``changes`` are overrides with ``__`` for the dot."""
    source = SyntheticConfig(
        num_subjects=3, minutes=2, test_minutes=1, run_minutes=1, tr_s=2, frame_px=8, voxels=voxels
    )
    ingest(source, f"{folder}/data")
    split = SplitConfig(
        train=Selection(films=("train",), blocks=Blocks(num=4, take=(0, 1, 2))),
        val=Selection(films=("train",), blocks=Blocks(num=4, take=(3,))),
        test=Selection(films=("test",)),
        gap_s=4,
    )
    view = ViewConfig(dataset=f"{folder}/data", window=Window(first=-1, last=2), split=split)
    small = Run(name="tiny", view=view).override({"optim.epochs": 2, "model.dim": 16, "evaluation.clip_s": 10.0})
    run = small.override({key.replace("__", "."): value for key, value in changes.items()})
    return trained_in(f"{folder}/run", run)


def trained_in(folder: Path | str, run: Run) -> str:
    """The folder, with a run trained in it."""
    store = Store.at(folder)
    store.put("run.yaml", run.dump().encode())
    train(run, World(), lambda normaliser: open_feed(run, normaliser), store)
    return str(folder)
