"""T9 and T10, and the memory of a rank: several workers, and Ray Train around the loop."""

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from benchmarks import bench_training_data as data
from benchmarks.bench_stream_ray import cluster
from benchmarks.bench_training_parts import FAST, dataset, race, runner, strategy
from benchmarks.bench_training_race import Pace, Runner
from benchmarks.bench_training_report import Line

from cineray.training.launch import launch
from cineray.training.loop import Callbacks

SHARDED = ("fsdp2", "zero0", "zero1", "zero2", "zero3")
RACED = "zero1"


def memory(folder: Path) -> Iterator[Line]:
    """Memory and parity of every strategy on two workers, and T10."""
    ddp, raced = _spread(folder, "ddp"), None
    for name in SHARDED:
        found = _spread(folder, name)
        yield from _against(found, ddp)
        if name == RACED:
            raced = found
        else:
            found.stop()
    assert raced is not None
    what = f"{RACED} / our DDP, 2 workers, fp32, samples/s"
    yield Line.of_ratio("perf.T10", what, race(raced, ddp)(raced, ddp), rows=data.BATCH)


def _spread(folder: Path, name: str) -> Runner:
    return runner(folder, "ours", name, 2, **{"strategy.name": name})


def _against(found: Runner, ddp: Runner) -> Iterator[Line]:
    """What a rank holds, and how far the losses are apart."""
    sizes = {what: [each.megabytes(what) for each in (found, ddp)] for what in ("moment", "rest", "peak")}
    told = {what: f"{ours:.0f} against {theirs:.0f} MB" for what, (ours, theirs) in sizes.items()}
    note = f"{told['rest']} resident above the imports between steps, {told['peak']} at the peak"
    ours, theirs = sizes["moment"]
    yield Line(
        f"other/{found.name}/moments",
        f"{found.name} / DDP, a rank of 2, fp32: AdamW's moments",
        ours / theirs,
        told["moment"],
    )
    ours, theirs = sizes["rest"]
    yield Line(f"other/{found.name}/memory", "the same: all that is resident", ours / theirs, note)
    apart = max(abs(a / b - 1) for a, b in zip(found.losses, ddp.losses[: len(found.losses)], strict=True))
    what = "the same: largest relative difference of a step's loss"
    yield Line(f"other/{found.name}/parity", what, apart, f"{len(found.losses)} steps")


class RayRun:
    """Our loop as `cineray train` starts it, in a thread of the measuring process."""

    def __init__(self, folder: Path, address: str, ranks: int) -> None:
        changes = FAST | strategy(ranks) | {"num_workers": ranks, "fault.max_failures": 0}
        run, out = data.make_run(dataset(folder), **changes), str(folder / f"out{ranks}")
        pace = Callbacks(on_step=Pace(address, data.BATCH))
        self._thread = threading.Thread(target=lambda: launch(run, out, callbacks=pace), daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until the run has ended."""
        self._thread.join()


def on_ray(folder: Path) -> Iterator[Line]:
    """T9 on one worker and on two, and beside our own loop without Ray."""
    cases = ((1, "plain", "one worker"), (2, "ddp", "DDP on two workers"))
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as scratch, cluster(Path(scratch)):
        for ranks, key, who in cases:
            own = folder / f"ray{ranks}"
            own.mkdir()
            ours = Runner(f"ray{ranks}", own, lambda address, n=ranks: RayRun(folder, address, n), ranks)
            bare = runner(folder, "peer", f"bare{ranks}", ranks, bf16=True, fused=True)
            alone = runner(folder, "ours", f"alone{ranks}", ranks, **FAST, **strategy(ranks))
            between = race(ours, bare, alone)
            what = f"Ray Train and our loop / bare torch loop (both bf16, fused AdamW), {who}, samples/s"
            yield Line.of_ratio(f"perf.T9/{key}", what, between(ours, bare), rows=data.BATCH)
            what = "the same / our loop without Ray"
            yield Line.of_ratio(f"perf.T9/{key}_over_ours_without_ray", what, between(ours, alone), rows=data.BATCH)
