"""References to batches: windows of scans, rows gathered into staging memory, scaled, grouped by subject."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cineray.core.errors import ConfigError
from cineray.datasets.batch import Batch, Trial
from cineray.datasets.dataset import Dataset
from cineray.datasets.examples import Examples
from cineray.datasets.normaliser import Moments, Normaliser
from cineray.datasets.order import Schedule
from cineray.datasets.plan import Plan, Planner
from cineray.datasets.prefetch import prefetched
from cineray.datasets.schema import TensorSpec
from cineray.datasets.staging import Staging
from cineray.datasets.view import ViewConfig

__all__ = ["Staged", "Stream", "Trials", "specs_of"]

CLOCK_S = 1e-6
"""Times closer than this are the same: they come from sums of floats."""

PREFETCH_STEPS = 2
"""Batches ready or in work besides the one in use: one hides the gather, the second evens out slow ones."""


@dataclass(frozen=True)
class Staged:
    """Raw bytes of one step on one rank, in staging memory: valid until the next are gathered."""

    brain: dict[str, NDArray[np.uint8]]
    """Subject with rows -> (rows x scans, bytes)."""
    targets: dict[str, NDArray[np.uint8]]
    """Target -> (batch, bytes)."""
    example: NDArray[np.int64]
    stimulus_row: NDArray[np.int64]
    global_rows: int

    def __len__(self) -> int:
        return len(self.example)


class Stream:
    """One split's examples in the order of (seed, epoch), for any number of ranks.

    Memory is the row ranges, the staging block and `PREFETCH_STEPS` batches, whatever the number of rows.
    """

    def __init__(
        self,
        dataset: Dataset,
        view: ViewConfig,
        examples: Examples,
        *,
        batch_size: int,
        seed: int,
        normaliser: Normaliser | None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.target_specs = specs_of(dataset, view)
        self.dataset, self.examples, self.view = dataset, examples, view
        self.schedule = Schedule(seed, len(examples), batch_size)
        self.device = torch.device(device)
        self.normaliser = normaliser.to(self.device) if normaliser is not None else None
        self.voxels = {subject: dataset.num_voxels[subject] for subject in examples.subjects}
        self._planner = Planner(dataset, examples, view.window, view.targets)

    @property
    def num_steps(self) -> int:
        """Steps in an epoch."""
        return self.schedule.num_steps

    def references(self, epoch: int, first_step: int = 0) -> Iterator[NDArray[np.int64]]:
        """Example numbers of each global step from ``first_step`` on."""
        return self.schedule.references(epoch, first_step)

    def batch(self, reference: NDArray[np.int64], rank: int = 0, size: int = 1) -> Batch:
        """This rank's rows of one step."""
        (plan,) = self.plans([reference], rank, size)
        return self._finish(self.stage(plan, Staging()))

    def batches(self, references: Iterable[NDArray[np.int64]], rank: int = 0, size: int = 1) -> Iterator[Batch]:
        """This rank's rows of every step, made ahead in a thread."""
        staging = Staging()
        made = (self._finish(self.stage(plan, staging)) for plan in self.plans(references, rank, size))
        return prefetched(made, PREFETCH_STEPS)

    def in_order(self, subject: str) -> Iterator[Batch]:
        """All examples of one subject, in row order: what prediction reads."""
        numbers, size = self.examples.numbers_of(subject), self.schedule.batch_size
        starts = range(numbers.start, numbers.stop, size)
        return self.batches(np.arange(first, min(first + size, numbers.stop)) for first in starts)

    def trials(self) -> "Trials":
        """One `Trial` for each subject that has examples; can be walked over more than once."""
        return Trials(self)

    def plans(self, references: Iterable[NDArray[np.int64]], rank: int = 0, size: int = 1) -> Iterator[Plan]:
        """What to read for this rank's rows of every step."""
        return self._planner.plans(references, rank, size)

    def stage(self, plan: Plan, staging: Staging) -> Staged:
        """Gather one step's rows into ``staging``, as they are stored."""
        of_brain = [(self._planner.brain[name], name, places) for name, places in plan.brain.items()]
        of_targets = [(self._planner.targets[name], name, places) for name, places in plan.targets.items()]
        num_bytes = sum(reader.width * len(places) for reader, _, places in of_brain + of_targets)
        staging.reset(num_bytes, len(of_brain) + len(of_targets))
        brain: dict[str, NDArray[np.uint8]] = {}
        targets: dict[str, NDArray[np.uint8]] = {}
        for kind, columns in ((brain, of_brain), (targets, of_targets)):
            for reader, name, places in columns:
                kind[name] = staging.take(len(places), reader.width)
                reader.copy(places, kind[name])
        return Staged(brain, targets, plan.example, plan.stimulus_row, plan.global_rows)

    def _finish(self, staged: Staged) -> Batch:
        """To the device, then to float32: half the bytes travel. Returns when ``staged`` may be overwritten."""
        known, scans = self.normaliser, self.view.window.scans
        brain, targets = {}, {}
        for name, voxels in self.voxels.items():
            if name in staged.brain:
                raw = staged.brain[name]
                x = self._sent(raw, "float16", (len(raw) // scans, scans, voxels))
                brain[name] = _scaled(x, known.brain[name] if known else None)
            else:
                brain[name] = torch.empty(0, scans, voxels, device=self.device)
        for name, spec in self.target_specs.items():
            x = self._sent(staged.targets[name], spec.dtype, (len(staged), *spec.shape))
            targets[name] = _scaled(x, known.targets.get(name) if known else None)
        example, stimulus_row = (torch.from_numpy(x).to(self.device) for x in (staged.example, staged.stimulus_row))
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()
        return Batch(brain, targets, example, stimulus_row, staged.global_rows)

    def _sent(self, raw: NDArray[np.uint8], dtype: str, shape: tuple[int, ...]) -> Tensor:
        """Raw rows as a tensor on the device; on the CPU it still is the staging memory."""
        return torch.from_numpy(raw.view(dtype).reshape(shape)).to(self.device, non_blocking=True)


@dataclass(frozen=True)
class Trials:
    """The trials of a stream, one subject in memory at a time."""

    stream: Stream

    def __iter__(self) -> Iterator[Trial]:
        dataset = self.stream.dataset
        offset_s = dataset.samples(["offset_s"])["offset_s"].to_numpy()
        for subject in self.stream.examples.subjects:
            if len(numbers := self.stream.examples.numbers_of(subject)):
                rows = self.stream.examples.rows(np.arange(numbers.start, numbers.stop))
                scan = np.floor((offset_s[rows] + CLOCK_S) / dataset.tr_s).astype(np.int64)
                yield self._trial(subject, torch.from_numpy(scan).to(self.stream.device))

    def _trial(self, subject: str, scan: Tensor) -> Trial:
        stream, num = self.stream, len(self.stream.examples.numbers_of(subject))
        window = stream.view.window.scans
        brain = torch.empty(num, window, stream.voxels[subject], device=stream.device)
        targets = {k: torch.empty(num, *s.shape, device=stream.device) for k, s in stream.target_specs.items()}
        stimulus_row = torch.empty(num, dtype=torch.int64, device=stream.device)
        at = 0
        for batch in stream.in_order(subject):
            part = slice(at, at + len(batch))
            brain[part] = batch.brain[subject]
            for name, target in targets.items():
                target[part] = batch.targets[name]
            stimulus_row[part] = batch.stimulus_row
            at += len(batch)
        return Trial(subject, brain, targets, stimulus_row, scan)


def specs_of(dataset: Dataset, view: ViewConfig) -> dict[str, TensorSpec]:
    """What the view's targets are; a `ConfigError` names those there are if one is missing."""
    specs = dataset.target_specs
    if missing := [name for name in view.targets if name not in specs]:
        raise ConfigError(f"the view asks for target '{missing[0]}', the data set has {', '.join(specs)}")
    return {name: specs[name] for name in view.targets}


def _scaled(x: Tensor, moments: Moments | None) -> Tensor:
    """Float32 in memory of its own: staging is used again."""
    return moments.scale(x) if moments else x.to(torch.float32, copy=True)
