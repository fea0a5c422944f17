"""Runs on the synthetic source: films with known content, brains with a known code."""

from cineray.datasets.split import Blocks, Selection, SplitConfig
from cineray.datasets.view import ViewConfig, Window
from cineray.training.losses import MSEConfig
from cineray.training.models.shared import SharedConfig
from cineray.training.optim import OptimConfig
from cineray.training.run import EvaluationConfig, Run

__all__ = ["tiny"]


def tiny(*, dataset: str = "runs/data/synthetic") -> Run:
    """A small shared decoder, to see that everything works: seconds on one core."""
    split = SplitConfig(
        train=Selection(films=("train",), blocks=Blocks(num=5, take=(0, 1, 2, 3))),
        val=Selection(films=("train",), blocks=Blocks(num=5, take=(4,))),
        test=Selection(films=("test",)),
    )
    return Run(
        name="synthetic-tiny",
        view=ViewConfig(dataset=dataset, window=Window(first=-2, last=2), split=split),
        model=SharedConfig(dim=32, embedding_dim=0),
        losses=(MSEConfig(),),
        optim=OptimConfig(epochs=3, batch_size=32),
        evaluation=EvaluationConfig(clip_s=4.0),
    )
