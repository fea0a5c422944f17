"""What the loop trains on: the streams of a run, the sizes the data decides, and the normaliser."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from cineray.datasets.examples import Examples
from cineray.datasets.normaliser import Normaliser
from cineray.datasets.order import Schedule
from cineray.datasets.stream import Stream, specs_of
from cineray.training.adapt import with_moments_of
from cineray.training.models.base import Sizes

if TYPE_CHECKING:
    from cineray.datasets.dataset import Dataset
    from cineray.datasets.split import Split
    from cineray.training.run import Run

__all__ = ["Feed", "MakeFeed", "open_feed", "open_schedule"]


@dataclass(frozen=True)
class Feed:
    """Streams of one run."""

    data: str
    """Fingerprint of what the run reads (`cineray.datasets.manifest.Manifest.fingerprint_of`)."""
    sizes: Sizes
    train: Stream
    val: Stream | None
    """None where nothing is held out to choose by."""
    normaliser: Normaliser | None


MakeFeed = Callable[[Normaliser | None], Feed]
"""Opens the data; a run that goes on hands in the normaliser of its checkpoint, a new one None."""


def open_feed(run: "Run", normaliser: Normaliser | None = None, device: torch.device | str = "cpu") -> Feed:
    """Open the data set of a run's view and split it; a missing normaliser is fitted on the training rows."""
    view, optim = run.view, run.optim
    dataset, split = _open(run)
    if view.normalise and normaliser is None:
        normaliser = Normaliser.fit(dataset, split.train, view.scaled_targets)
        if run.start:
            normaliser = with_moments_of(run.start, normaliser)

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
    return Feed(
        dataset.fingerprint_of(view.targets), sizes, train, stream(split.val) if len(split.val) else None, normaliser
    )


def open_schedule(run: "Run") -> Schedule:
    """The global steps of a run, without reading a single row: what carries the references elsewhere needs no more."""
    _, split = _open(run)
    return Schedule(run.seed, len(split.train), run.optim.batch_size)


def _open(run: "Run") -> "tuple[Dataset, Split]":
    from cineray.datasets.dataset import Dataset
    from cineray.datasets.split import make_split

    dataset = Dataset.open(run.view.dataset)
    specs_of(dataset, run.view)  # before anything is read, and before workers are started
    return dataset, make_split(dataset, run.view.split, run.view.subjects, run.view.window)
