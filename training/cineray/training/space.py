"""What a search varies: dotted settings of a run, each over an interval or a list of values."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from cineray.core.config import Config, parse_overrides
from cineray.core.errors import ConfigError
from cineray.training.losses import active
from cineray.training.run import Run

__all__ = ["Choices", "Interval", "SearchConfig", "Space", "parse_space"]

HOW = "low..high, log:low..high or a,b,c"


class Interval(Config):
    """Numbers between two bounds, both included; whole ones if both bounds are whole."""

    kind: Literal["interval"] = "interval"
    low: float | int
    high: float | int
    log: bool = False
    """Uniform in the logarithm."""

    @model_validator(mode="after")
    def _rising(self) -> "Interval":
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ConfigError(
                f"found the interval {self.low}..{self.high}, expected low below high"
                f"{' and above 0' if self.log else ''}; change the bounds"
            )
        return self

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def edges(self) -> tuple[Any, ...]:
        """Values at which a run must be valid."""
        return (self.low, self.high)


class Choices(Config):
    """A list of values."""

    kind: Literal["choices"] = "choices"
    values: tuple[Any, ...] = Field(min_length=1)

    @property
    def edges(self) -> tuple[Any, ...]:
        """Values at which a run must be valid."""
        return self.values


Space = dict[str, Annotated[Interval | Choices, Field(discriminator="kind")]]


class SearchConfig(Config):
    """How a search goes about it: ASHA over trials that a tree of Parzen estimators proposes.

    ASHA: Li et al. (2020, arXiv 1810.05934); the estimator: Bergstra et al. (2011), as optuna has it.
    """

    num_trials: int = Field(default=8, ge=1)
    max_concurrent: int = Field(default=1, ge=1)
    """Trials at a time; they share the cluster's CPUs."""
    search_seed: int = 0
    metric: str = "val/loss"
    """What is made least, on validation data: a name of the run's metric log."""
    grace_epochs: int = Field(default=1, ge=1)
    """Epochs that every trial gets."""
    reduction_factor: int = Field(default=3, ge=2)
    """At each rung the best of this many goes on."""


def parse_space(words: Mapping[str, Any], run: Run, search: SearchConfig) -> Space:
    """``{"optim.lr": "log:1e-4..1e-2", "model.dim": "64,128"}`` to a space, tried on the run at its edges.

    Raises:
        ConfigError: a setting that the run does not have, values it refuses, a metric that cannot compare trials.
    """
    if not words:
        raise ConfigError(
            "found nothing to search over, expected search.KEY=RANGE, e.g. search.optim.lr=log:1e-4..1e-2"
        )
    space: Space = {key: _dimension(key, text) for key, text in words.items()}
    for key, dimension in space.items():
        for value in dimension.edges:
            run.override({key: value})
    if run.view.split.val is None or not run.optim.epochs:
        raise ConfigError(
            f"run '{run.name}' has no validation set or no epochs, expected both: a search chooses on validation data; "
            f"set view.split.val and optim.epochs"
        )
    _refuse_unequal(space, run, search)
    return space


def _refuse_unequal(space: Space, run: Run, search: SearchConfig) -> None:
    """Trials are compared epoch by epoch on one metric, which must mean the same in all of them."""
    labels = [f"val/{loss.label}" for loss in active(run.losses, run.optim.epochs - 1, run.optim.epochs)]
    if search.metric not in ("val/loss", *labels):
        raise ConfigError(f"found metric={search.metric}, expected val/loss or one of {', '.join(labels)}")
    if search.grace_epochs > run.optim.epochs:
        raise ConfigError(
            f"found grace_epochs={search.grace_epochs}, expected at most optim.epochs ({run.optim.epochs}); lower it"
        )
    if search.metric == "val/loss" and (moving := [key for key in space if key.startswith("losses")]):
        raise ConfigError(
            f"found {moving[0]} in the search, which changes what val/loss measures; set metric to one part of it, "
            f"e.g. metric={labels[0]}"
        )
    if fixed := [key for key in space if key == "optim.epochs" or re.match(r"view\.(?!window)", key)]:
        raise ConfigError(
            f"found {fixed[0]} in the search, expected it to be equal in all trials: they are compared epoch by epoch "
            f"on the same rows and units; search with each value apart"
        )
    parts = labels if search.metric == "val/loss" else [search.metric]
    if "optim.batch_size" in space and (among := [label for label in parts if not label.startswith("val/mse/")]):
        raise ConfigError(
            f"found optim.batch_size in the search, which decides among how many rows {among[0]} picks; "
            f"set metric to the mean squared error, e.g. metric=val/mse/features, or search with each value apart"
        )


def _dimension(key: str, text: Any) -> Interval | Choices:
    words = str(text)
    body = words.removeprefix("log:")
    low, dots, high = body.partition("..")
    if dots:
        bounds = parse_overrides([f"low={low}", f"high={high}"])
        if not all(isinstance(bound, int | float) and not isinstance(bound, bool) for bound in bounds.values()):
            raise ConfigError(f"found search.{key}={words}, expected numbers on both sides of the dots ({HOW})")
        return Interval.parse({**bounds, "log": words != body})
    values = text if isinstance(text, list) else [parse_overrides([f"x={word}"])["x"] for word in words.split(",")]
    if len(values) < 2:
        raise ConfigError(f"found search.{key}={words}, expected something to choose from: {HOW}")
    return Choices(values=tuple(values))
