"""The training loop: epochs and steps, whatever the model, the strategy and the number of workers.

It knows no Ray: `cineray.training.launch` runs it on Ray Train, tests run it as it is.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cineray.core.errors import CinerayError
from cineray.core.storage import Store
from cineray.datasets.batch import Batch, Trial
from cineray.datasets.manifest import require_data
from cineray.datasets.normaliser import Normaliser
from cineray.training.adapt import freeze_start, load_start
from cineray.training.checkpoint import Manifest, Position, StoredSizes
from cineray.training.feed import Feed, MakeFeed
from cineray.training.keeper import Keeper
from cineray.training.ledger import Entry
from cineray.training.losses import Loss, active, total_loss
from cineray.training.mixing import mix
from cineray.training.models.base import ClosedForm, Generative, subject_of
from cineray.training.optim import learning_rate
from cineray.training.resume import identity, resume
from cineray.training.run import Run
from cineray.training.strategies import Engine, build_engine
from cineray.training.world import World

__all__ = ["Callbacks", "Trained", "seeded", "train"]

References = Callable[[int, int], Iterator[NDArray[np.int64]]]
"""(epoch, first step of it) to the example numbers of each global step, equal on all ranks."""


@dataclass(frozen=True)
class Callbacks:
    """What a launcher wants to hear; called on every rank, at the same step everywhere."""

    on_step: Callable[[int, dict[str, float]], None] = lambda step, metrics: None
    """Steps taken, and the step's metrics: ``loss``, one a loss label, ``lr``, ``norm``, ``epoch``; ``val/...``."""
    on_checkpoint: Callable[[Manifest], None] = lambda manifest: None
    """A checkpoint exists (some steps after it was taken: writing goes on beside training)."""


@dataclass(frozen=True)
class Trained:
    """How a run ended; its last checkpoint is written."""

    position: Position
    metrics: dict[str, float]


def train(
    run: Run,
    world: World,
    make_feed: MakeFeed,
    store: Store,
    *,
    references: References | None = None,
    callbacks: Callbacks | None = None,
) -> Trained:
    """Train a run to its end, from the newest checkpoint in the run folder where there is one.

    Args:
        run: everything that decides the result.
        world: this process's place; every rank calls this function.
        make_feed: opens the data (`cineray.training.feed.open_feed`).
        store: the run folder.
        references: the order of examples, when it comes from elsewhere (Ray Data); else the stream's own.
        callbacks: what a launcher wants to hear.
    """
    callbacks = callbacks or Callbacks()
    for epoch in range(run.optim.epochs):
        active(run.losses, epoch, run.optim.epochs)  # a gap between phases is an error now, not in the tenth hour
    manifest, state = resume(run, world, store)
    stored = _part(state or {}, "normaliser/")
    feed = make_feed(Normaliser.of_state(stored) if stored else None)
    # The data set may be published anew at any time, between two ranks' opening it too.
    expected, user = (manifest.data, store.url) if manifest else (world.first(feed.data), "what rank 0 reads")
    require_data(feed.data, expected, url=run.view.dataset, user=user)
    with seeded(torch.device("cpu"), run.seed):
        model = run.model.build(feed.sizes).to(world.device)
    if world.rank == 0:
        store.put("run.yaml", run.dump().encode())  # also of a run that goes on: what decides no weights may differ
    if manifest is None:
        _fit(model, feed.train.trials(), world)
        if run.start:  # last: what another run learned from published weights counts, not these again
            load_start(model, run.view, run.start)
    if run.start and run.start.freeze:
        freeze_start(model, run.start)
    engine = build_engine(run.strategy, model, run.optim, world, subject_of=subject_of, state=state)
    keeper = Keeper(store, world, run.fault.keep, manifest)
    references = references or feed.train.references
    learns_from_targets = isinstance(model, Generative)
    return _Training(
        run, world, feed, engine, learns_from_targets, keeper, references, callbacks, manifest
    ).run_to_end()


class _Training:
    """One attempt: from a position to the end."""

    def __init__(
        self,
        run: Run,
        world: World,
        feed: Feed,
        engine: Engine,
        learns_from_targets: bool,
        keeper: Keeper,
        references: References,
        callbacks: Callbacks,
        resumed: Manifest | None,
    ) -> None:
        self.run, self.world, self.feed, self.engine, self.keeper = run, world, feed, engine, keeper
        self.learns_from_targets = learns_from_targets
        self.references, self.callbacks = references, callbacks
        self.position = resumed.position if resumed else Position()
        self.metrics = dict(resumed.metrics) if resumed else {}

    def run_to_end(self) -> Trained:
        """All epochs that are left."""
        epochs = self.run.optim.epochs
        try:
            if epochs == 0 and self.keeper.saved_step is None:
                self._validate()
            while self.position.epoch < epochs:
                self._epoch()
            if self.keeper.saved_step != self.position.step:
                self._save()
            for manifest in self.keeper.finish():
                self.callbacks.on_checkpoint(manifest)
        finally:
            self.keeper.close()
        return Trained(self.position, self.metrics)

    def _epoch(self) -> None:
        epoch, num_steps = self.position.epoch, self.feed.train.num_steps
        losses = active(self.run.losses, epoch, self.run.optim.epochs)
        self.engine.train()
        for micro_batches in self._steps(epoch):
            self._step(micro_batches, losses)
            if self._due() and self.position.epoch_step < num_steps:
                self._save()
        assert self.position.epoch_step == num_steps, "the references ended before the epoch did"
        self.position = self.position.model_copy(update={"epoch": epoch + 1, "epoch_step": 0})
        if self._validate() or self._due():
            self._save()

    def _due(self) -> bool:
        return self.position.step % self.run.fault.checkpoint_every_steps == 0

    def _steps(self, epoch: int) -> Iterator[list[Batch]]:
        """The micro-batches of each step, made ahead by the stream; empty ones (a short last step) are left out."""
        counts: deque[int] = deque()

        def parts() -> Iterator[NDArray[np.int64]]:
            for reference in self.references(epoch, self.position.epoch_step):
                cut = [part for part in np.array_split(reference, self.run.optim.accumulate) if len(part)]
                counts.append(len(cut))
                yield from cut

        batches = iter(self.feed.train.batches(parts(), self.world.rank, self.world.size))
        for first in batches:
            yield [first, *islice(batches, counts.popleft() - 1)]

    def _step(self, micro_batches: list[Batch], losses: list[Loss]) -> None:
        """Gradients of all micro-batches, each weighted by its rows, then one update."""
        rows = sum(batch.global_rows for batch in micro_batches)
        sums: dict[str, Tensor] = {}
        for number, batch in enumerate(micro_batches):
            weight = batch.global_rows / rows
            outputs, batch = self._forward(batch, losses, number, last=number == len(micro_batches) - 1)
            total, parts = total_loss(losses, outputs, batch, self.world)
            self.engine.backward(total * weight)
            for name, value in {"loss": total.detach(), **parts}.items():
                sums[name] = sums.get(name, 0) + weight * value
        counts = torch.tensor([[len(x) for x in batch.brain.values()] for batch in micro_batches]).sum(0)
        values, counts = self._meet(torch.stack(list(sums.values())), counts)
        absent = [subject for subject, count in zip(self.feed.sizes.voxels, counts, strict=True) if count == 0]
        optim, step = self.run.optim, self.position.step
        lr = learning_rate(optim, step, optim.epochs * self.feed.train.num_steps)
        norm = self.engine.step(lr, absent)
        metrics = dict(zip(sums, values, strict=True)) | {"lr": lr, "norm": norm, "epoch": float(self.position.epoch)}
        self._advance(metrics, [row for batch in micro_batches for row in batch.example.tolist()])

    def _forward(self, batch: Batch, losses: list[Loss], number: int, *, last: bool) -> tuple[dict[str, Tensor], Batch]:
        """Predictions with dropout and mixing that (seed, epoch, step, micro-batch, rank) decide."""
        entropy = (self.run.seed, self.position.epoch, self.position.epoch_step, number, self.world.rank)
        with seeded(self.world.device, *entropy) as generator:
            if any(loss.mixes for loss in losses):
                batch = mix(batch, generator)
            return self.engine.forward(*self._inputs(batch), last=last), batch

    def _inputs(self, batch: Batch) -> tuple[Mapping[str, Tensor], ...]:
        return (batch.brain, batch.targets) if self.learns_from_targets else (batch.brain,)

    def _meet(self, values: Tensor, counts: Tensor) -> tuple[list[float], list[int]]:
        """Sums over ranks in one exchange; with them travels the news of a finished checkpoint."""
        mine = torch.cat([values.double(), counts.to(values.device, torch.float64)])
        found = self.world.sum(torch.cat([mine, mine.new_tensor([self.keeper.news()])])).tolist()
        for manifest in self.keeper.hear(int(found[-1])):
            self.callbacks.on_checkpoint(manifest)
        return found[: len(values)], [int(count) for count in found[len(values) : -1]]

    def _advance(self, metrics: dict[str, float], rows: list[int]) -> None:
        place = self.position
        if not all(map(math.isfinite, metrics.values())):
            bad = next(name for name, value in metrics.items() if not math.isfinite(value))
            raise CinerayError(
                f"'{bad}' of step {place.step} is {metrics[bad]}, expected a number; lower optim.lr, or verify the "
                f"data with `cineray check`; the run goes on from its last checkpoint"
            )
        self.keeper.record(Entry(place.epoch, place.step, rows))
        self.position = place.model_copy(update={"step": place.step + 1, "epoch_step": place.epoch_step + 1})
        self._tell(metrics)

    def _tell(self, metrics: dict[str, float]) -> None:
        self.metrics |= metrics
        self.keeper.log(self.position.step, metrics)
        self.callbacks.on_step(self.position.step, metrics)

    def _validate(self) -> bool:
        """Loss on the validation rows by the losses of the *last* epoch, so that epochs compare; True if the best.

        A model that learns from its targets is judged by what it learns, under the same noise every time: the error of
        samples would prefer one that draws nothing but means.
        """
        if self.feed.val is None:
            return False
        epochs = max(self.run.optim.epochs, 1)
        losses, stream = active(self.run.losses, epochs - 1, epochs), self.feed.val
        self.engine.train(False)
        sums: dict[str, Tensor] = {}
        with torch.no_grad():
            for number, batch in enumerate(stream.batches(stream.references(0, 0), self.world.rank, self.world.size)):
                with seeded(self.world.device, self.run.seed, number, self.world.rank):
                    outputs = self.engine.forward(*self._inputs(batch))
                total, parts = total_loss(losses, outputs, batch, self.world)
                for name, value in {"loss": total, **parts}.items():
                    sums[name] = sums.get(name, 0) + value.double() * batch.global_rows / len(stream.examples)
        values = self.world.sum(torch.stack(list(sums.values()))).tolist()
        metrics = {f"val/{name}": value for name, value in zip(sums, values, strict=True)}
        self._tell(metrics | {"epoch": float(self.position.epoch)})
        best = self.position.best_value
        if best is not None and not metrics["val/loss"] < best:
            return False
        self.position = self.position.model_copy(
            update={"best_step": self.position.step, "best_value": metrics["val/loss"]}
        )
        return True

    def _save(self) -> None:
        normaliser = self.feed.normaliser.state() if self.feed.normaliser else {}
        manifest = Manifest(
            position=self.position,
            world_size=self.world.size,
            strategy=self.run.strategy.name,
            identity=identity(self.run),
            data=self.feed.data,
            sizes=StoredSizes(**asdict(self.feed.sizes)),
            metrics=self.metrics,
            files={},
        )
        self.keeper.save(manifest, self.engine.full_state(), normaliser)


@contextmanager
def seeded(device: torch.device, *entropy: int) -> Iterator[torch.Generator]:
    """Torch's chance decided by ``entropy`` inside, untouched outside; also a generator of its own."""
    seeds = np.random.SeedSequence(entropy).generate_state(2, np.uint64)
    first, second = (int(seed) >> 1 for seed in seeds)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(first)
        yield torch.Generator().manual_seed(second)


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _fit(model: nn.Module, trials: Iterable[Trial], world: World) -> None:
    """Solve what is solved in closed form: on rank 0, then the same tensors everywhere."""
    if not isinstance(model, ClosedForm):
        return
    if world.rank == 0:
        model.fit(trials)
    for tensor in model.state_dict().values():
        world.share(tensor)
