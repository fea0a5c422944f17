"""The settings of motion in `benchmarks.results_video`, compared on the validation film of a seed that it leaves alone.

    python -m benchmarks.results_video_choice [--data FOLDER]

End-point errors of the whole pipeline, and of the same pictures standing still. The last line is JSON.
"""

import argparse
import json
import os

from benchmarks.results_video_runs import Plan, Seed, reconstruct

from cineray.core.records import progress
from cineray.training.evaluate_video import EvaluateVideoConfig, evaluate_video

__all__ = ["choose"]

SEED = 100
PENALTIES = (40.0, 400.0, 4000.0)
FAINT = (0.0, 0.00065, 0.0026)
"""Frame widths per frame step: 0, 0.5 and 2 pixels a second at 256."""


def choose(plan: Plan) -> list[dict[str, float]]:
    """The end-point error for every pair of settings, the smallest first."""
    judge, found = EvaluateVideoConfig(metrics=("epe",), num_null=1), []
    for penalty in progress(PENALTIES, "penalties"):
        seed = Seed(plan, SEED, penalty)
        seed.make_data()
        seed.fit()
        for faint in FAINT:
            folder = f"{seed.folder('full')}-{faint}"
            reconstruct(seed.pipeline("full").override({"generator.faint": faint}), folder, "val")
            line = evaluate_video(folder, "val", judge)["metrics"]["epe"]
            found.append(
                {"penalty": penalty, "faint": faint, "epe": line["value"], "still": line["baselines"]["zero_flow"]}
            )
    return sorted(found, key=lambda line: line["epe"])


def main() -> None:
    """Compare, print the table and the line."""
    parser = argparse.ArgumentParser(prog="results_video_choice")
    parser.add_argument("--data", default=os.environ.get("CINERAY_DATA"), help="folder of clips and weights")
    parser.add_argument("--out", default="runs/results-video", help="folder of data and runs")
    given = parser.parse_args()
    if not given.data:
        raise SystemExit("found no folder of real clips, expected --data or CINERAY_DATA; set one of them")
    found = choose(Plan(data=given.data, out=given.out))
    for line in found:
        print("  ".join(f"{name} {value:g}" for name, value in line.items()))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
