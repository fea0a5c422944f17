"""T9 and T10, and the memory of a rank: several workers, and Ray Train around the loop."""

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from benchmarks import bench_training_data as data
from benchmarks.bench_stream_ray import cluster
from benchmarks.bench_training_parts import FAST, dataset, race, runner
from benchmarks.bench_training_race import Pace, Runner
from benchmarks.bench_training_report import Line

from cineray.training.launch import launch
from cineray.training.loop import Callbacks

SHARDED = ("fsdp2", "zero0", "zero1", "zero2", "zero3")
RACED = ("zero1", "zero2")


def memory(folder: Path) -> Iterator[Line]:
    """Memory and parity of every strategy on two workers, and T10."""
    ddp = runner(folder, "ours", "ddp", 2, **{"strategy.name": "ddp"})
    raced = []
    for name in SHARDED:
        found = runner(folder, "ours", name, 2, **{"strategy.name": name})
        apart = max(abs(a / b - 1) for a, b in zip(found.losses, ddp.losses[: len(found.losses)], strict=True))
        note = (
            f"{found.rest_bytes / 1e6:.0f} against {ddp.rest_bytes / 1e6:.0f} MB between steps, "
            f"{found.peak_bytes / 1e6:.0f} against {ddp.peak_bytes / 1e6:.0f} MB at the peak"
        )
        what = f"{name} / DDP, 2 workers, fp32: resident memory of a rank above its imports, between steps"
        yield Line(f"memory.{name}", what, found.rest_bytes / ddp.rest_bytes, note)
        yield Line(
            f"parity.{name}", "largest relative difference of a step's loss", apart, f"{len(found.losses)} steps"
        )
        raced.append(found) if name in RACED else found.stop()
    between = race(ddp, *raced)
    for found in raced:
        key = "perf.T10" if found.name == RACED[0] else f"T10_{found.name}"
        line = Line.of_ratio(
            key, f"{found.name} / our DDP, 2 workers, fp32, samples/s", between(found, ddp), rows=data.BATCH
        )
        yield line


class RayRun:
    """Our loop as `cineray train` starts it, in a thread of the measuring process."""

    def __init__(self, folder: Path, address: str, ranks: int) -> None:
        changes = FAST | {
            "strategy.name": "ddp" if ranks > 1 else "plain",
            "num_workers": ranks,
            "fault.max_failures": 0,
        }
        run, out = data.make_run(dataset(folder), **changes), str(folder / f"out{ranks}")
        pace = Callbacks(on_step=Pace(address, data.BATCH))
        self._thread = threading.Thread(target=lambda: launch(run, out, callbacks=pace), daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until the run has ended."""
        self._thread.join()


def on_ray(folder: Path) -> Iterator[Line]:
    """T9 on one worker and on two."""
    cases = ((1, "perf.T9", "one worker"), (2, "perf.T9_ddp", "DDP on two workers"))
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as scratch, cluster(Path(scratch)):
        for ranks, key, who in cases:
            own = folder / f"ray{ranks}"
            own.mkdir()
            ours = Runner(f"ray{ranks}", own, lambda address, n=ranks: RayRun(folder, address, n), ranks)
            theirs = runner(folder, "peer", f"bare{ranks}", ranks, bf16=True, fused=True)
            what = f"Ray Train and our loop / bare torch loop (both bf16, fused AdamW), {who}, samples/s"
            yield Line.of_ratio(key, what, race(ours, theirs)(ours, theirs), rows=data.BATCH)
