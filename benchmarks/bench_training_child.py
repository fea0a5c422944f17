"""Processes that train: our loop as it is, or the peer's, both at the pace of the measuring process.

python -m benchmarks.bench_training_child ours|peer RANK RANKS ADDRESS DATASET FOLDER SETTINGS      (settings as JSON)
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from benchmarks import bench_training_peer as peer
from benchmarks.bench_training_data import BATCH, DIM, EPOCHS, TOKENS, VOXELS, WIDTH, make_run
from benchmarks.bench_training_memory import reset_peak
from benchmarks.bench_training_race import Pace

from cineray.core.storage import Store
from cineray.datasets.batch import Batch
from cineray.datasets.dataset import Dataset
from cineray.datasets.normaliser import Normaliser
from cineray.datasets.order import rank_slice
from cineray.training.feed import Feed, open_feed
from cineray.training.loop import Callbacks, seeded, train
from cineray.training.mixing import MixedBatch, mix
from cineray.training.run import Run
from cineray.training.world import World

CPU = torch.device("cpu")


class Children:
    """The ranks of one loop."""

    def __init__(self, kind: str, ranks: int, *words: str) -> None:
        command = [sys.executable, "-m", "benchmarks.bench_training_child", kind]
        folder = Path(__file__).parent.parent
        self._ranks = [subprocess.Popen([*command, str(rank), str(ranks), *words], cwd=folder) for rank in range(ranks)]

    def wait(self) -> None:
        """Until all have ended."""
        for rank in self._ranks:
            rank.wait()

    def kill(self) -> None:
        """All of them."""
        for rank in self._ranks:
            rank.kill()


def start(kind: str, address: str, dataset: Path, folder: Path, *, ranks: int = 1, **settings: Any) -> Children:
    """Children that train."""
    return Children(kind, ranks, address, str(dataset), str(folder), json.dumps(settings))


def _ours(pace: Pace, run: Run, folder: str, world: World) -> None:
    """The real loop and its stream; only the wait for each batch is timed besides."""

    def make_feed(normaliser: Normaliser | None) -> Feed:
        feed = open_feed(run, normaliser)
        made = feed.train.batches
        feed.train.batches = lambda *which: pace.watched(made(*which))
        return feed

    train(run, world, make_feed, Store.at(folder), callbacks=Callbacks(on_step=pace))


def _peer(pace: Pace, run: Run, manner: peer.Manner) -> None:
    feed = open_feed(run)
    with seeded(CPU, run.seed):
        ours = run.model.build(feed.sizes)
    theirs = peer.PeerModel(list(VOXELS.values()), DIM, TOKENS, WIDTH)
    with torch.no_grad():
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            other.copy_(mine)
    memory = _preloaded(run, feed, manner)
    peer.train(theirs, memory, manner, lambda step, loss: pace(step, {"loss": loss}))


def _preloaded(run: Run, feed: Feed, manner: peer.Manner) -> peer.Memory:
    """All rows in memory, and the draws of our loop: what is random must be equal, what is computed is the peer's."""
    dataset, trials = Dataset.open(run.view.dataset), list(feed.train.trials())
    tokens, text = (
        torch.from_numpy(dataset.gather_stimuli(name, np.arange(len(dataset.stimuli())))).float()
        for name in run.view.targets
    )
    shown = torch.cat([trial.stimulus_row for trial in trials])
    steps = list(_steps(run, feed, shown, manner))
    return peer.Memory(
        brains=[trial.brain[:, 0] for trial in trials],
        tokens=tokens,
        text=text,
        steps=steps,
        steps_an_epoch=feed.train.num_steps,
        mixco_epochs=int(run.losses[0].phase[1] * EPOCHS),
        epochs=EPOCHS,
    )


def _steps(run: Run, feed: Feed, shown: torch.Tensor, manner: peer.Manner) -> Iterator[peer.Rows]:
    examples = feed.train.examples
    first = [examples.numbers_of(subject).start for subject in examples.subjects]
    for epoch in range(EPOCHS):
        for number, reference in enumerate(feed.train.references(epoch)):
            mine = rank_slice(reference, manner.rank, manner.world_size)
            owner = examples.subject_index(mine)
            rows = [torch.from_numpy(mine[owner == i]) for i in range(len(first))]
            targets = shown[torch.cat(rows)]
            with seeded(CPU, run.seed, epoch, number, 0, manner.rank) as generator:
                drawn = _drawn(rows, targets, generator)
            own = [numbers - start for numbers, start in zip(rows, first, strict=True)]
            yield peer.Rows(own, targets, drawn.partner, drawn.kept)


def _drawn(rows: list[torch.Tensor], shown: torch.Tensor, generator: torch.Generator) -> MixedBatch:
    brain = {str(i): torch.zeros(len(numbers), 1, 1) for i, numbers in enumerate(rows)}
    return mix(Batch(brain, {}, torch.arange(len(shown)), shown, len(shown)), generator)


def _main(kind: str, rank: str, ranks: str, address: str, dataset: str, folder: str, settings: str) -> None:
    torch.set_num_threads(1)
    world, given = World(int(rank), int(ranks)), json.loads(settings)
    if str(given.get("strategy.name")).startswith("zero"):
        import deepspeed  # noqa: F401 (before memory is measured)
    if world.size > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=world.rank, world_size=world.size)
    pace = Pace(address, BATCH, base_bytes=reset_peak())
    if kind == "ours":
        _ours(pace, make_run(Path(dataset), **given, num_workers=world.size), folder, world)
    else:
        _peer(pace, make_run(Path(dataset)), peer.Manner(world_size=world.size, rank=world.rank, **given))


if __name__ == "__main__":
    _main(*sys.argv[1:])
