"""A run on Ray Train: the loop on every worker, references through Ray Data, dead workers replaced.

What a run leaves behind is the loop's own: checkpoints, ledger and metrics in the run folder. Ray's part is to start
the workers, to hand them the order of examples, and to start them again after a failure; they go on from the newest
checkpoint in the folder, on as many workers as the run asks for this time.
"""

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import ray
import ray.data
import ray.train
import ray.train.torch
import torch
from ray.data import Dataset
from ray.train import (
    ControllerError,
    FailureConfig,
    RunConfig,
    ScalingConfig,
    TrainingFailedError,
    UserCallback,
    WorkerGroupError,
)

from cineray.core.errors import CinerayError, ConfigError
from cineray.core.storage import Store
from cineray.datasets.manifest import Manifest, require_data
from cineray.datasets.references import RayReferences, data_config, references_dataset
from cineray.training.checkpoint import Position
from cineray.training.feed import open_feed, open_schedule
from cineray.training.loop import Callbacks, Trained, train
from cineray.training.resume import resumable
from cineray.training.run import Run
from cineray.training.world import World

__all__ = ["launch"]

REFERENCES = "references"

RAY_FOLDER = "ray"
"""Below the run folder: what Ray Train notes about its attempts."""

HEALTH_CHECK_INTERVAL_S = "0.2"
"""How often Ray looks at its workers; its default of 2 s would be most of a short run (and of each restart)."""

HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"
"""Torch's switch for transparent huge pages: gradients are given back and taken anew every step, and on a CPU the page
faults of small pages were up to a quarter of it."""


def launch(
    run: Run,
    out: str,
    *,
    callbacks: Callbacks | None = None,
    listeners: Sequence[UserCallback] = (),
    cpu_share: float = 1.0,
) -> Trained:
    """Train on the connected Ray cluster into the run folder ``out``; from its newest checkpoint where it has one.

    Args:
        run: everything that decides the result; the number of workers may differ from the last attempt's. Its folders
            are made absolute, also in ``run.yaml``.
        out: folder or ``s3://`` prefix that all nodes reach.
        callbacks: pickled to the workers and called there.
        listeners: told of each epoch's metrics, in Ray Train's controller.
        cpu_share: part of the cluster's CPUs that the workers may count on; the rest is for runs beside this one.

    Raises:
        CinerayError: the settings do not suit the data (before anything starts), or a worker failed more often than
            ``fault.max_failures`` allows; the run folder keeps the last checkpoint.
    """
    run, store = run.located(), Store.at(out)
    manifest = resumable(run, store)
    if manifest:
        data = Manifest.read(Store.at(run.view.dataset)).fingerprint_of(run.view.targets)
        require_data(data, manifest.data, url=run.view.dataset, user=store.url)
    open_schedule(run)
    store.put("run.yaml", run.dump().encode())  # a folder that cannot be written is told before anything starts
    if manifest and manifest.position.epoch >= run.optim.epochs:
        return Trained(manifest.position, manifest.metrics)
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", HEALTH_CHECK_INTERVAL_S)
    trainer = ray.train.torch.TorchTrainer(
        partial(_work, callbacks=callbacks or Callbacks()),
        train_loop_config={"run": run.dump(), "out": store.url},
        scaling_config=_scaling(run, cpu_share),
        run_config=RunConfig(
            name=RAY_FOLDER,
            storage_path=store.url,
            failure_config=FailureConfig(max_failures=run.fault.max_failures),
            callbacks=list(listeners),
            worker_runtime_env={"env_vars": {HUGE_PAGES: os.environ.get(HUGE_PAGES, "1")}},
        ),
        # A factory: Ray calls it for every attempt, and each begins at another step.
        datasets={REFERENCES: partial(_references, run, store.url)},
        dataset_config=data_config(),
    )
    try:
        with _interruptible():
            found: Any = trainer.fit().return_value
    except TrainingFailedError as error:
        raise _explained(error, run, store) from error
    return Trained(Position.parse(found["position"]), found["metrics"])


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C is the caller's again: Ray Train's handler exits without a word, and stays when the run is over."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        if threading.current_thread() is threading.main_thread():  # Tune calls from another, where Ray sets none
            signal.signal(signal.SIGINT, handler)


def _scaling(run: Run, cpu_share: float) -> ScalingConfig:
    """One GPU a worker where the cluster has any; else its threads, or an equal part of too few CPUs."""
    have = ray.cluster_resources()
    if have.get("GPU"):
        if have["GPU"] < run.num_workers:
            raise ConfigError(
                f"found {have['GPU']:g} GPUs, expected one for each of {run.num_workers} workers; lower num_workers"
            )
        return ScalingConfig(num_workers=run.num_workers, use_gpu=True)
    return ScalingConfig(num_workers=run.num_workers, resources_per_worker={"CPU": _cpus_each(run, cpu_share)})


def _cpus_each(run: Run, cpu_share: float) -> float:
    """The most CPUs a worker, up to its threads, with which all fit: a group that does not would wait, silently."""
    most = 100 * run.strategy.threads_per_worker  # in hundredths: sums are exact
    nodes = [int(100 * node["Resources"].get("CPU", 0) * cpu_share) for node in ray.nodes() if node["Alive"]]
    parts = {min(cpus // number, most) for cpus in nodes for number in range(1, run.num_workers + 1)}
    for each in sorted(parts - {0}, reverse=True):
        if sum(cpus // each for cpus in nodes) >= run.num_workers:
            return each / 100
    raise ConfigError(
        f"found {sum(nodes) / 100:g} CPUs, expected a hundredth for each of {run.num_workers} workers; "
        f"lower num_workers"
    )


def _references(run: Run, out: str) -> Dataset:
    """The steps that are left, counted from the newest checkpoint; made anew for every attempt, in the controller."""
    manifest = resumable(run, Store.at(out))
    place = manifest.position if manifest else Position()
    return references_dataset(open_schedule(run), place.epoch, place.epoch_step, run.optim.epochs)


def _work(config: dict[str, str], callbacks: Callbacks) -> dict[str, Any]:
    """One worker, from the newest checkpoint to the end of the run."""
    run, store = Run.loads(config["run"]), Store.at(config["out"])
    torch.set_num_threads(run.strategy.threads_per_worker)
    context, device = ray.train.get_context(), ray.train.torch.get_device()
    world = World(context.get_world_rank(), context.get_world_size(), torch.device(device))
    shard = ray.train.get_dataset_shard(REFERENCES)
    assert shard is not None, "launch hands the references to every worker"
    with closing(RayReferences(shard, open_schedule(run))) as references:
        trained = train(
            run,
            world,
            partial(open_feed, run, device=world.device),
            store,
            references=references,
            callbacks=replace(callbacks, on_step=partial(_on_step, callbacks)),
        )
    return {"position": trained.position.model_dump(), "metrics": trained.metrics}


def _on_step(callbacks: Callbacks, step: int, metrics: dict[str, float]) -> None:
    callbacks.on_step(step, metrics)
    if "val/loss" in metrics:  # the same step on every rank, which `report` demands
        ray.train.report(metrics | {"step": step})


def _explained(error: TrainingFailedError, run: Run, store: Store) -> CinerayError:
    """The sentence of a worker (or the controller) that failed in our own words, else what Ray says of it."""
    failures = [error.controller_failure] if isinstance(error, ControllerError) else []
    failures += error.worker_failures.values() if isinstance(error, WorkerGroupError) else []
    for failure in failures:
        cause = getattr(failure, "cause", failure)
        if isinstance(cause, CinerayError):
            return cause
    # Ray starts workers again, and nothing else.
    after = f" after {run.fault.max_failures} restarts" if isinstance(error, WorkerGroupError) else ""
    return CinerayError(
        f"training ended{after} ({_last_line(error)}), expected the run to end; "
        f"{store.url} keeps the last checkpoint: run the same command again to go on from there"
    )


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
