"""A search on Ray Tune: every trial is a run on Ray Train in a folder of its own, chosen on validation data.

``OUT/trials/<id>`` are ordinary run folders, ``OUT/search`` is Ray's own account of them. The same call goes on after
the driver died: finished trials stay as they are, one that was under way goes on from its newest checkpoint.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from textwrap import shorten
from typing import Any

import optuna
import ray
from ray import tune
from ray.train import Checkpoint
from ray.tune.experiment import Trial
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from ray.util.state import get_node
from ray.util.state.exception import RayStateApiException

from cineray.core.config import Config
from cineray.core.errors import CinerayError, ConfigError
from cineray.core.records import read_records
from cineray.core.storage import Store
from cineray.datasets.dataset import Dataset
from cineray.training.launch import launch
from cineray.training.run import Run
from cineray.training.space import Interval, SearchConfig, Space

__all__ = ["Search", "TrialResult", "format_trials", "search"]

RAY_FOLDER = "search"
EPOCH = "epoch"
"""ASHA's clock. Ray's own counter begins again when a trial goes on after a crash."""

DRIVER_CPUS = 0.01
"""A trial's coordinator only waits; its workers ask for CPUs of their own."""

WORKERS_SHARE = 0.95
"""Part of the CPUs for workers: with all of them, the last group would wait for ever for what coordinators hold."""


class Search(Config):
    """All that decides a search; ``search.yaml`` of its folder."""

    run: Run
    space: Space
    search: SearchConfig
    data: str = ""
    """Fingerprint of the data set, which `search` fills in: trials on other data could not be compared."""


@dataclass(frozen=True)
class TrialResult:
    """How one trial went."""

    trial: str
    settings: dict[str, Any]
    value: float | None
    """Least value of the metric over its epochs; None if it failed before the first."""
    epochs: float
    state: str
    """``finished``, ``stopped early`` or ``failed``."""


def search(what: Search, out: str, *, on_trial: Callable[[TrialResult], None] = print) -> list[TrialResult]:
    """Search on the connected Ray cluster, from where the folder stands; the best trial first.

    ``OUT/best/run.yaml`` is the best trial's run and ``OUT/trials.json`` the table of all.

    Raises:
        ConfigError: the folder holds another search, or one on other data.
        CinerayError: workers cannot ask the cluster's state API; or no trial came to an end of an epoch.
    """
    _require_state_api()
    store = Store.at(out)
    run = what.run.located()
    what = what.model_copy(update={"run": run, "data": Dataset.open(run.view.dataset).fingerprint_of(run.view.targets)})
    _claim(what, store)
    tuner = _tuner(what, store, on_trial)
    found = sorted(
        (_result(what, store, trial.trial_id, trial.config, trial.status) for trial in _trials(tuner.fit())),
        key=lambda trial: (trial.value is None, trial.value),
    )
    store.put("trials.json", json.dumps([asdict(trial) for trial in found], indent=1).encode())
    if found[0].value is None:
        raise CinerayError(
            f"no trial of {len(found)} finished an epoch, expected at least one; look at {store.path('trials')} "
            f"or train the recipe once by itself"
        )
    store.put("best/run.yaml", what.run.override(found[0].settings).dump().encode())
    return found


def _require_state_api() -> None:
    """On the head, where Ray Train's cleaner asks it whether a trial lives: else a stopped one would hold its CPUs."""
    task = ray.remote(num_cpus=0)(_wrong_with_state_api).options(resources={"node:__internal_head__": 0.001})
    if wrong := ray.get(task.remote()):
        raise CinerayError(
            f"{wrong}, expected Ray's state API of the head to answer (stopped trials would keep their CPUs); start "
            "Ray with its dashboard, and set RAY_ADDRESS in its workers where several run on one machine"
        )


def _wrong_with_state_api() -> str:
    own = ray.get_runtime_context().get_node_id()
    try:
        known = get_node(own)
    except (ConnectionError, RayStateApiException) as error:
        return f"found no answer ({shorten(str(error), 200, placeholder=' …')})"
    return "" if known else "found another Ray's answer"


def format_trials(trials: Sequence[TrialResult]) -> str:
    """One line a trial."""
    return "\n".join(
        f"{trial.trial:<16}{trial.state:<15}{trial.epochs:>4g} epochs  "
        f"{'no value' if trial.value is None else f'{trial.value:.5f}':>9}  "
        + " ".join(
            f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
            for key, value in trial.settings.items()
        )
        for trial in trials
    )


def _claim(what: Search, store: Store) -> None:
    text = what.dump().encode()
    if not store.exists("search.yaml"):
        store.put("search.yaml", text)
    elif store.get("search.yaml") != text:
        raise ConfigError(
            f"{store.url} holds another search (search.yaml differs in settings or data); choose another folder"
        )


def _tuner(what: Search, store: Store, on_trial: Callable[[TrialResult], None]) -> tune.Tuner:
    share = WORKERS_SHARE / what.search.max_concurrent
    trainable = tune.with_resources(partial(_trial, run=what.run, out=store.url, share=share), {"CPU": DRIVER_CPUS})
    if store.list(f"{RAY_FOLDER}/experiment_state-"):
        path = store.path(RAY_FOLDER)
        return tune.Tuner.restore(path, trainable=trainable, resume_unfinished=True, restart_errored=True)
    for key in store.list(f"{RAY_FOLDER}/"):  # of a driver that died before it had started anything
        store.delete(key)
    how = what.search
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return tune.Tuner(
        trainable,
        param_space={key: _domain(dimension) for key, dimension in what.space.items()},
        tune_config=tune.TuneConfig(
            metric=how.metric,
            mode="min",
            num_samples=how.num_trials,
            max_concurrent_trials=how.max_concurrent,
            search_alg=OptunaSearch(seed=how.search_seed),
            scheduler=ASHAScheduler(
                time_attr=EPOCH,
                max_t=what.run.optim.epochs,
                grace_period=how.grace_epochs,
                reduction_factor=how.reduction_factor,
            ),
            trial_dirname_creator=_name,
        ),
        run_config=tune.RunConfig(
            name=RAY_FOLDER, storage_path=store.url, verbose=0, callbacks=[_Tell(what, store.url, on_trial)]
        ),
    )


def _domain(dimension: Any) -> Any:
    if not isinstance(dimension, Interval):
        return tune.choice(list(dimension.values))
    if dimension.whole:
        high = int(dimension.high) + 1  # tune's whole numbers leave the upper bound out
        return (tune.lograndint if dimension.log else tune.randint)(int(dimension.low), high)
    return (tune.loguniform if dimension.log else tune.uniform)(dimension.low, dimension.high)


def _trial(config: dict[str, Any], *, run: Run, out: str, share: float) -> None:
    """One trial, in Tune's actor: it starts the workers and waits.

    Tune ends a trial the moment it has heard enough, so it hears of the last epoch when the last checkpoint is written.
    """
    folder = _folder(out, tune.get_context().get_trial_id())
    listeners = [_ReportEpochs(run.optim.epochs)]
    trained = launch(run.override(config), folder, listeners=listeners, cpu_share=share)
    tune.report(trained.metrics)


class _ReportEpochs(TuneReportCallback):
    """Tells Tune of every epoch but the last."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epochs = epochs

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None) -> None:
        """Ray Train's hook."""
        if metrics[0][EPOCH] < self.epochs:
            super().after_report(run_context, metrics, checkpoint)


class _Tell(tune.Callback):
    """Says how each trial went as soon as it ends."""

    def __init__(self, what: Search, out: str, on_trial: Callable[[TrialResult], None]) -> None:
        self.what, self.out, self.on_trial = what, out, on_trial

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Tune's hook."""
        self.on_trial(_result(self.what, Store.at(self.out), trial.trial_id, trial.config, trial.status))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Tune's hook."""
        self.on_trial_complete(iteration, trials, trial)


def _trials(grid: tune.ResultGrid) -> list[Trial]:
    return list(grid._experiment_analysis.trials)  # pyright: ignore[reportOptionalMemberAccess]


def _result(what: Search, store: Store, trial: str, settings: dict[str, Any], status: str) -> TrialResult:
    """Read from the trial's own metric log, which says the same before and after a restart."""
    lines = [
        line
        for line in read_records(Store.at(_folder(store.url, trial)), "metrics.jsonl")
        if what.search.metric in line
    ]
    epochs = max((line[EPOCH] for line in lines), default=0.0)
    state = "failed" if status == Trial.ERROR else "finished" if epochs >= what.run.optim.epochs else "stopped early"
    return TrialResult(
        trial, dict(settings), min((line[what.search.metric] for line in lines), default=None), epochs, state
    )


def _folder(out: str, trial: str) -> str:
    return f"{out}/trials/{trial}"


def _name(trial: Trial) -> str:
    return trial.trial_id
