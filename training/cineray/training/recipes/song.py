"""Runs on the SONG film set (source ``song``): decode the stimulus components of a film the decoder has never met.

One film trains, another tests; both are runs of the data set. Scores are 2AFC among the 20-s clips of the test film,
26 people, training on ``sitcomep2`` and testing on ``sitcomep1`` / the other way round (docs/results/song.md; chance
.5). Every fit takes a few seconds on one core.
"""

from collections.abc import Sequence

from cineray.datasets.split import Selection, SplitConfig
from cineray.datasets.view import ViewConfig, Window
from cineray.training.models import ModelConfig
from cineray.training.models.matched_filter import MatchedFilterConfig
from cineray.training.models.mean_of_others import MeanOfOthersConfig
from cineray.training.models.pooled_ridge import PooledRidgeConfig
from cineray.training.models.ridge import RidgeConfig
from cineray.training.optim import OptimConfig
from cineray.training.run import Run

__all__ = [
    "matched_filter",
    "matched_filter_aligned",
    "matched_filter_unseen",
    "pooled_ridge",
    "ridge_unseen",
    "ridge_within",
]

DATASET, TRAIN, TEST = "runs/data/song", "sitcomep1", "sitcomep2"

AROUND = Window(first=-16, last=16)
"""The high-pass reaches 4 standard deviations of 4 scans."""


def ridge_within(*, dataset: str = DATASET, train: str = TRAIN, test: str = TEST, subjects: Sequence[str] = ()) -> Run:
    """Ridge from each person's own scans, penalty 3000: .734 / .721.

    ``cineray train song:ridge dataset=runs/data/song train=sitcomep1 test=sitcomep2``; every subject must have both
    runs, so name them (``subjects=[…]``) where somebody missed one.
    """
    return _run("ridge", RidgeConfig(), Window(), dataset, train, test, subjects)


def ridge_unseen(*, dataset: str = DATASET, train: str = TRAIN, test: str = TEST, subjects: Sequence[str] = ()) -> Run:
    """Ridge from the mean of the others, penalty 300: .670 / .668.

    ``cineray train song:mean_of_others dataset=runs/data/song train=sitcomep1 test=sitcomep2``
    """
    return _run("mean_of_others", MeanOfOthersConfig(), Window(), dataset, train, test, subjects)


def pooled_ridge(*, dataset: str = DATASET, train: str = TRAIN, test: str = TEST, subjects: Sequence[str] = ()) -> Run:
    """Ridge from the single scans of all the others together, penalty 3000; model.own=1 adds the person's own.

    ``cineray train song:pooled_ridge dataset=runs/data/song train=sitcomep1 test=sitcomep2``
    """
    return _run("pooled_ridge", PooledRidgeConfig(), Window(), dataset, train, test, subjects)


def matched_filter(
    *, dataset: str = DATASET, train: str = TRAIN, test: str = TEST, subjects: Sequence[str] = ()
) -> Run:
    """Matched filter with the person's own labelled scans (equations: `cineray.training.models.matched_filter`).

    Expected: at least .80 / .80. ``cineray train song:matched_filter dataset=runs/data/song train=sitcomep1
    test=sitcomep2``; every subject must have both runs.
    """
    return _run("matched_filter", MatchedFilterConfig(), AROUND, dataset, train, test, subjects)


def matched_filter_aligned(
    *, dataset: str = DATASET, train: str = TRAIN, test: str = TEST, subjects: Sequence[str] = ()
) -> Run:
    """Matched filter that aligns the person by scans of the training film: at least .80 / .80.

    The labels of those scans are the others'. Everybody sees the film in step, so they are the person's own labels;
    what is saved is the person's own log of what was on the screen.

    ``cineray train song:matched_filter_aligned dataset=runs/data/song train=sitcomep1 test=sitcomep2``
    """
    model = MatchedFilterConfig(person="aligned")
    return _run("matched_filter_aligned", model, AROUND, dataset, train, test, subjects)


def matched_filter_unseen(
    *, dataset: str = DATASET, train: str = TRAIN, test: str = TEST, subjects: Sequence[str] = ()
) -> Run:
    """Matched filter of which nothing has seen the person: at least .78 / .78.

    ``cineray train song:matched_filter_unseen dataset=runs/data/song train=sitcomep1 test=sitcomep2``
    """
    model = MatchedFilterConfig(person="unseen")
    return _run("matched_filter_unseen", model, AROUND, dataset, train, test, subjects)


def _run(
    name: str, model: ModelConfig, window: Window, dataset: str, train: str, test: str, subjects: Sequence[str]
) -> Run:
    split = SplitConfig(train=Selection(runs=(train,)), test=Selection(runs=(test,)))
    return Run(
        name=f"song-{name}",
        view=ViewConfig(dataset=dataset, subjects=tuple(subjects), window=window, split=split),
        model=model,
        optim=OptimConfig(epochs=0, batch_size=512),
    )
