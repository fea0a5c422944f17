"""perf.T1, T4-T11: training the semantic reconstructor, beside plain torch, in one run on one machine.

    make bench-training    or    python -m benchmarks.bench_training [--only T4,T5] [--out docs/results/training.md]

The page is written by a whole run only. The last line is JSON.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import torch
from benchmarks import bench_training_loss as loss
from benchmarks import bench_training_parts as parts
from benchmarks import bench_training_recompute as recompute
from benchmarks import bench_training_spread as spread
from benchmarks.bench_training_report import Line, write_report
from benchmarks.goals import figures

PARTS: dict[tuple[str, ...], Callable[[Path], Iterator[Line]]] = {
    ("T1", "T8", "T11"): parts.steps,
    ("T4",): parts.optimizer,
    ("T5", "T6"): loss.measure,
    ("T7",): recompute.measure,
    ("T9",): spread.on_ray,
    ("T10", "memory"): spread.memory,
}
"""What is measured together."""


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="goals, e.g. T4,T5; empty for all")
    parser.add_argument("--out", type=Path, default=Path("docs/results/training.md"))
    arguments = parser.parse_args()
    wanted = set(filter(None, arguments.only.split(",")))
    if strange := wanted - {goal for goals in PARTS for goal in goals}:
        parser.error(f"found {', '.join(sorted(strange))} in --only, expected {', '.join(sum(PARTS, ()))}")
    torch.set_num_threads(1)
    started, lines = time.perf_counter(), []
    with tempfile.TemporaryDirectory(prefix="bench-training-") as folder:
        for goals, measure in PARTS.items():
            if not wanted or wanted & set(goals):
                for line in measure(Path(folder)):
                    lines.append(line)
                    print(line.text(), flush=True)
    seconds = time.perf_counter() - started
    if not wanted:
        write_report(arguments.out, lines, seconds)
    found = [(line.key, line.rounded) for line in lines]
    print(json.dumps(figures([*found, ("other/seconds", round(seconds, 1))])), flush=True)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
