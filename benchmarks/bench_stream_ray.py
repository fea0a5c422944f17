"""Ray Data as the byte pump (the peer) and as the control plane (ours), on one local cluster."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pyarrow as pa
import ray
import ray.data
import torch
from benchmarks.bench_stream_measure import BATCH, WIDTHS, Buffers, Cost, Reader, Rows, tree_cpu
from benchmarks.bench_stream_readers import as_rows, flat_bytes, new_blocks, our_stream, staged
from ray._private.internal_api import get_memory_info_reply, get_state_from_address
from ray.data.collate_fn import ArrowBatchCollateFn

from cineray.datasets.dataset import Dataset
from cineray.datasets.references import RayReferences, references_dataset
from cineray.datasets.stream import Staged

OBJECT_STORE_BYTES = 2 << 30
WATCH_S = 0.02
LONG = 6
"""Times the files that the steady state is measured on: enough rows that what was read ahead matters little."""


@contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """Two CPUs, no dashboard, never anybody else's cluster."""
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=OBJECT_STORE_BYTES,
        _temp_dir=str(folder),
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(["", str(Path(__file__).parent.parent)])}},
    )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    try:
        yield
    finally:
        ray.shutdown()


class IntoStaging(ArrowBatchCollateFn):
    """The cheapest way out of ``iter_torch_batches``: Arrow buffers copied once, into staging memory."""

    def __init__(self) -> None:
        self._buffers = Buffers()

    def __call__(self, batch: pa.Table) -> dict[str, torch.Tensor]:
        out = self._buffers.take(len(batch))
        for name, width in WIDTHS.items():
            out[name][:] = flat_bytes(batch[name], width)
        return {name: torch.from_numpy(array) for name, array in out.items()}


def read_parquet_batches(paths: list[str]) -> Iterator[Rows]:
    """One epoch of ``read_parquet().iter_torch_batches``; without a shuffle, which would only slow it."""
    data = ray.data.read_parquet(paths)
    # Nothing is prefetched beyond one batch, so that three staging buffers are enough.
    for batch in data.iter_torch_batches(batch_size=BATCH, collate_fn=IntoStaging(), prefetch_batches=1):
        yield {name: tensor.numpy() for name, tensor in batch.items()}


def read_parquet(paths: list[str]) -> Reader:
    """Whole epochs, their start included."""
    return Reader("Ray Data read_parquet", lambda epoch: read_parquet_batches(paths), cpu=tree_cpu)


class Controlled:
    """Our reader with its references from Ray Data: one stream of references for many epochs, as in a run."""

    def __init__(self, dataset: Dataset, num_epochs: int) -> None:
        self._stream, self._blocks = our_stream(dataset), new_blocks()
        shard = references_dataset(self._stream.schedule, 0, 0, num_epochs).iterator()
        self._references = RayReferences(shard, self._stream.schedule)

    def batches(self, epoch: int) -> Iterator[Staged]:
        """The next epoch; they come in order."""
        return staged(self._stream, self._blocks, self._references(epoch))

    def reader(self) -> Reader:
        return Reader("cineray through Ray Data", self.batches, cpu=tree_cpu, rows_of=as_rows)

    def close(self) -> None:
        self._references.close()


def first_batch_ours(dataset: Dataset) -> float:
    """Seconds from nothing to the first staged batch, references from Ray Data."""
    started = time.perf_counter()
    with closing(Controlled(dataset, 1)) as controlled:
        next(controlled.batches(0))
        return time.perf_counter() - started


def first_batch_theirs(paths: list[str]) -> float:
    """The same for ``read_parquet``."""
    started = time.perf_counter()
    batches = read_parquet_batches(paths)
    next(batches)
    seconds = time.perf_counter() - started
    batches.close()
    return seconds


def steady_cost(paths: list[str], rows_before: int) -> Cost:
    """Cost of a long epoch after its first ``rows_before`` rows, when the start is over and the queues are full."""
    rows, cpu_s, wall_s = -rows_before, 0.0, 0.0
    for batch in read_parquet_batches(paths):
        if rows < 0:
            cpu_s, wall_s = tree_cpu(), time.perf_counter()
        rows += len(batch["fmri"])
    return Cost(rows, time.perf_counter() - wall_s, tree_cpu() - cpu_s)


def more_files(paths: list[str]) -> list[str]:
    """The same files under `LONG` times as many names: Ray Data loses rows of repeated paths (performance.md 7)."""
    found = []
    for number in range(LONG):
        for path in paths:
            name = Path(path).with_suffix(f".{number}.parquet")
            os.link(path, name)
            found.append(str(name))
    return found


def peak_object_store_bytes(dataset: Dataset, num_epochs: int) -> int:
    """Most bytes that Ray's object store held beyond what lay there, while we streamed."""
    state = get_state_from_address(ray.get_runtime_context().gcs_address)

    def used() -> int:
        return get_memory_info_reply(state).store_stats.object_store_bytes_used

    before, peak, done = used(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, used() - before)
            done.wait(WATCH_S)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with closing(Controlled(dataset, num_epochs)) as controlled:
        for epoch in range(num_epochs):
            for _ in controlled.batches(epoch):
                pass
    done.set()
    watcher.join()
    return peak
