"""Known brains: the shared model beside its ceiling, with little data, and joined by somebody new.

    make results-synthetic        or        python -m benchmarks.results_synthetic [--seeds "0 1 2 3 4"] [--workers 2]

Everything is made the way users make it: a source is ingested, runs of the synthetic recipes are trained, the test
film is predicted and scored once. Finished runs in the output folder are not done again. The last line is JSON.
"""

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.results_synthetic_report import write_page
from benchmarks.results_synthetic_runs import Plan, Seed, finish
from benchmarks.results_synthetic_statistics import figures

from cineray.core.records import progress

__all__ = ["results"]

Job = Callable[[], Any]


def results(plan: Plan, *, workers: int = 1) -> dict[str, Any]:
    """Do what is left of the plan and compute its figures."""
    started = time.monotonic()
    seeds = [Seed(plan, seed) for seed in plan.seeds]
    _do("films and brains", [seed.make_data for seed in seeds], workers)
    first = [partial(finish, run, seed.folder(run)) for seed in seeds for run in seed.first_runs()]
    _do("ceilings and runs", [*(seed.ceiling for seed in seeds), *first], workers)
    _do("new subjects", [partial(finish, r, seed.folder(r)) for seed in seeds for r in seed.later_runs()], workers)
    return {**figures(plan), "seeds": list(plan.seeds), "seconds": round(time.monotonic() - started, 1)}


def _do(text: str, jobs: Sequence[Job], workers: int) -> None:
    """All jobs, in processes of their own where there are several workers; the first error ends it."""
    if workers == 1:
        for job in progress(jobs, text):
            job()
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(job) for job in jobs]
        try:
            for future in progress(as_completed(futures), text, total=len(jobs)):
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def main() -> None:
    """Run the plan, write the page, print the line."""
    parser = argparse.ArgumentParser(prog="results_synthetic")
    parser.add_argument("--seeds", default=os.environ.get("SEEDS", "0 1 2 3 4"), help="numbers between blanks")
    parser.add_argument("--out", default="runs/results-synthetic", help="folder of data and runs")
    parser.add_argument("--page", default="docs/results/synthetic.md", help="page to write")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes at a time")
    given = parser.parse_args()
    plan = Plan(out=given.out, seeds=tuple(int(seed) for seed in given.seeds.split()))
    found = results(plan, workers=given.workers)
    write_page(Path(given.page), plan, found)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
