"""What the loop trains on: the streams of a run, the sizes the data decides, and the normaliser."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from cineray.datasets.examples import Examples
from cineray.datasets.normaliser import Normaliser
from cineray.datasets.stream import Stream
from cineray.training.models.base import Sizes

if TYPE_CHECKING:
    from cineray.training.run import Run

__all__ = ["Feed", "MakeFeed", "open_feed"]


@dataclass(frozen=True)
class Feed:
    """Streams of one run."""

    sizes: Sizes
    train: Stream
    val: Stream | None
    """None where nothing is held out to choose by."""
    normaliser: Normaliser | None


MakeFeed = Callable[[Normaliser | None], Feed]
"""Opens the data; a run that goes on hands in the normaliser of its checkpoint, a new one None."""


def open_feed(run: "Run", normaliser: Normaliser | None = None, device: torch.device | str = "cpu") -> Feed:
    """Open the data set of a run's view and split it; a missing normaliser is fitted on the training rows."""
    from cineray.datasets.dataset import Dataset
    from cineray.datasets.split import make_split

    view, optim = run.view, run.optim
    dataset = Dataset.open(view.dataset)
    subjects = view.subjects or dataset.subjects
    split = make_split(dataset, view.split, subjects)
    if view.normalise and normaliser is None:
        normaliser = Normaliser.fit(dataset, split.train, view.targets)

    def stream(examples: Examples) -> Stream:
        return Stream(
            dataset,
            view,
            examples,
            batch_size=optim.batch_size,
            seed=run.seed,
            normaliser=normaliser,
            device=device,
        )

    train = stream(split.train)
    sizes = Sizes(train.voxels, view.window.scans, {t: dataset.target_specs[t].shape for t in view.targets})
    return Feed(sizes, train, stream(split.val) if len(split.val) else None, normaliser)
