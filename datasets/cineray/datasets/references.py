"""The control plane: Ray Data carries the ordered references, every Train worker sees all of them.

Only numbers travel (8 bytes an example); the rows are gathered in the worker (performance.md, finding 3). The order
is that of `Schedule`, so it is checked rather than trusted: a step out of turn or missing is an error, never a silent
change of the training data.
"""

from collections.abc import Generator, Iterator
from functools import partial
from itertools import islice

import numpy as np
import pyarrow as pa
import ray.data
from numpy.typing import NDArray
from ray.data import DataIterator, ExecutionOptions, TaskPoolStrategy
from ray.train import DataConfig

from cineray.core.errors import IntegrityError
from cineray.datasets.order import Schedule

__all__ = ["RayReferences", "data_config", "references_dataset"]

CHUNK_EXAMPLES = 131_072
"""Examples of a block: one megabyte in the object store, a hundredth of a second to compute."""

MAX_BLOCKS = 1024
"""Blocks of the input; each costs Ray a little, and only a few are in flight at a time."""


def references_dataset(schedule: Schedule, epoch: int, first_step: int, num_epochs: int) -> ray.data.Dataset:
    """Steps from (``epoch``, ``first_step``) to the end of the last epoch, one row a step, in order.

    Nothing here asks for a CPU: with the usual read tasks (``ray.data.range``) Ray Data waits for ever, and silently,
    once the Train workers have reserved all of them (ray.md, B.2).
    """
    chunk_steps = max(1, CHUNK_EXAMPLES // schedule.batch_size)
    chunks = [
        {"epoch": e, "first_step": step, "end_step": min(step + chunk_steps, schedule.num_steps)}
        for e in range(epoch, num_epochs)
        for step in range(first_step if e == epoch else 0, schedule.num_steps, chunk_steps)
    ]
    # A run that ended with this checkpoint has no step left, which is not an error.
    chunks = chunks or [{"epoch": epoch, "first_step": first_step, "end_step": first_step}]
    # Short epochs share a block, so that a task is worth starting.
    num_blocks = -(-(num_epochs - epoch) * schedule.num_examples // CHUNK_EXAMPLES)
    blocks = ray.data.from_items(chunks, override_num_blocks=min(max(num_blocks, 1), len(chunks), MAX_BLOCKS))
    dataset = blocks.map_batches(
        partial(_references, schedule=schedule),
        batch_size=None,
        batch_format="pyarrow",
        zero_copy_batch=True,
        num_cpus=0,
        # Tasks that ask for nothing would all start at once, each in a process of its own.
        compute=TaskPoolStrategy(size=1),
    )
    dataset.context.execution_options.preserve_order = True
    # One bar a worker and epoch, for numbers nobody waits for.
    dataset.context.enable_progress_bars = False
    dataset.context.print_on_execution_start = False
    return dataset


def data_config() -> DataConfig:
    """Every worker gets the whole reference stream, in order: nothing is split, nothing dropped to make it even."""
    return DataConfig(datasets_to_split=[], execution_options=ExecutionOptions(preserve_order=True))


class RayReferences:
    """Inside a worker: the reference stream of a run, an epoch at a time.

    Args:
        shard: ``ray.train.get_dataset_shard(name)`` of a `references_dataset`, or that dataset's ``iterator()``.
        schedule: the one the data set was made from.
    """

    def __init__(self, shard: DataIterator, schedule: Schedule) -> None:
        blocks = shard.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)  # type: ignore[arg-type]
        # The iterator knows of the execution behind it, but only its generator can end that.
        self._blocks: Generator[pa.Table] = iter(blocks)  # type: ignore[assignment]
        self._steps = self._walk()
        self._schedule = schedule

    def __call__(self, epoch: int, first_step: int = 0) -> Iterator[NDArray[np.int64]]:
        """Steps of ``epoch`` from ``first_step`` on; epochs must be asked for in the order they come."""
        for expected in range(first_step, self._schedule.num_steps):
            found_epoch, step, reference = next(self._steps, (None, None, None))
            if (found_epoch, step) != (epoch, expected) or reference is None:
                raise IntegrityError(
                    f"Ray Data delivered step {step} of epoch {found_epoch}, expected step {expected} of epoch "
                    f"{epoch}; start again from the last checkpoint"
                )
            yield reference

    def close(self) -> None:
        """Give the stream back before its end; Ray left with one half read may not shut down."""
        self._steps.close()
        self._blocks.close()

    def _walk(self) -> Generator[tuple[int, int, NDArray[np.int64]]]:
        for block in self._blocks:
            for part in block.to_batches():
                examples = part["examples"]
                values, offsets = examples.values.to_numpy(), examples.offsets.to_numpy()
                bounds = zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
                epochs, steps = part["epoch"].to_pylist(), part["step"].to_pylist()
                for epoch, step, (first, end) in zip(epochs, steps, bounds, strict=True):
                    yield epoch, step, values[first:end]


def _references(chunks: pa.Table, schedule: Schedule) -> pa.Table:
    """Rows of (epoch, first_step, end_step) to a row for each of their steps."""
    epochs, steps, parts = [], [], []
    for chunk in chunks.to_pylist():
        numbers = range(chunk["first_step"], chunk["end_step"])
        parts += islice(schedule.references(chunk["epoch"], numbers.start), len(numbers))
        epochs += [chunk["epoch"]] * len(numbers)
        steps += numbers
    offsets = np.cumsum([0, *map(len, parts)])
    values = np.concatenate([np.empty(0, np.int64), *parts])
    examples = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(values))
    return pa.table({"epoch": pa.array(epochs, pa.int64()), "step": pa.array(steps, pa.int64()), "examples": examples})
