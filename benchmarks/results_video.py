"""Videos out of synthetic brains that watched real clips: the whole pipeline beside what knows less.

    make results-video        or        python -m benchmarks.results_video [--data FOLDER]

Everything is made the way users make it: films and brains are ingested, features computed, two reconstructors trained
(checkpoints chosen on the validation film), the test film is reconstructed and scored once. Then all of it again with
other brains and every file from its end, whose test film had no part in any choice. The last line is JSON.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.results_video_report import write_page
from benchmarks.results_video_runs import ALL, KINDS, Plan, Seed
from numpy.typing import NDArray

from cineray.core.records import progress
from cineray.core.storage import Store
from cineray.training.backbones.tflite import TFLiteConfig
from cineray.training.evaluate_video import EvaluateVideoConfig, compare_videos, evaluate_video, read_evaluation
from cineray.training.video_report import video_report

__all__ = ["results"]

METRICS = ("nway_frame@2", "nway_frame@10", "clip_sim", "retrieve_image", "retrieve_image@10", "ssim", "psnr", "epe",
           "flow_cos")  # fmt: skip
PAIRS = (("full", "shuffled"), ("full", "mean_frame"), ("full", "no_keyframe"), ("full", "no_blurry"))
WHOLE_PAIRS = (("full" + ALL, "mean_frame" + ALL), ("full" + ALL, "no_blurry" + ALL))
WHOLE_KINDS = sorted({kind for pair in WHOLE_PAIRS for kind in pair})


def results(plan: Plan) -> dict[str, Any]:
    """Do what is left of the plan and compute its figures."""
    began = time.monotonic()
    judge, seeds = _judge(plan), [Seed(plan, seed) for seed in plan.seeds]
    tables: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for seed in progress(seeds, "seeds"):
        if not Store.at(seed.folder(KINDS[-1])).exists("reconstructions/test/index.json"):
            seed.make_data()
            seed.fit()
            seed.make_videos()
        for kind in (*KINDS, *WHOLE_KINDS):
            found = _scores(seed.folder(kind), judge)
            if kind in tables:
                tables[kind].append(found)
    folders = {kind: [seed.folder(kind) for seed in seeds] for kind in (*KINDS, *WHOLE_KINDS)}
    print(f"gallery of the first seed: {video_report(folders['full'][0], 'test')}")
    return {
        "values": {kind: {m: [t[m]["value"] for t in found] for m in found[0]} for kind, found in tables.items()},
        "null": {m: [t[m]["null"] for t in tables["full"]] for m in tables["full"][0]},
        "chance": {m: line["chance"] for m, line in tables["full"][0].items()},
        "baselines": {m: line["baselines"] for m, line in tables["full"][0].items()},
        "higher_is_better": {m: line["higher_is_better"] for m, line in tables["full"][0].items()},
        "num_clips": tables["full"][0]["ssim"]["num_clips"],
        "num_subjects": plan.num_subjects,
        "differences": _differences(folders, PAIRS),
        "differences_of_all_clips": _differences(folders, WHOLE_PAIRS),
        "motion": _by_film(folders["full"], folders["mean_frame"]),
        "seeds": list(plan.seeds),
        "seconds": round(time.monotonic() - began, 1),
    }


def _differences(
    folders: dict[str, list[str]], pairs: tuple[tuple[str, str], ...]
) -> dict[str, dict[str, list[float]]]:
    """Pair -> metric -> difference and its interval."""
    return {
        f"{a} - {b}": {
            name: [d.value, d.low, d.high] for name, d in compare_videos(folders[a], folders[b], "test").items()
        }
        for a, b in pairs
    }


def _by_film(full: list[str], still: list[str]) -> dict[str, dict[str, float]]:
    """Kind of film -> number of its test clips, end-point error of the pipeline and of a still picture."""
    kinds = [_kinds(folder) for folder in full]
    values = {name: [_values(folder, "epe") for folder in where] for name, where in (("full", full), ("still", still))}
    found = {}
    for kind in sorted(set(kinds[0])):
        means = {
            name: float(np.mean([v[:, np.array(k) == kind] for v, k in zip(of_seeds, kinds, strict=True)]))
            for name, of_seeds in values.items()
        }
        found[kind] = {"clips": float(kinds[0].count(kind)), **means}
    return found


def _kinds(folder: str) -> list[str]:
    """Of every test clip: the folder its file lies in, or the file."""
    return [name.rpartition("-")[0].partition("/")[0] for name in read_evaluation(Store.at(folder), "test")["stimuli"]]


def _values(folder: str, metric: str) -> NDArray[np.float64]:
    """(subjects, clips)."""
    return np.array(read_evaluation(Store.at(folder), "test")["values"][metric])


def _scores(folder: str, judge: EvaluateVideoConfig) -> dict[str, Any]:
    """Metric -> its line; what is scored already is read."""
    store = Store.at(folder)
    if store.exists("evaluation/test-video.json"):
        found = read_evaluation(store, "test")
        if found["config_fingerprint"] == judge.fingerprint():
            return found["metrics"]
    return evaluate_video(folder, "test", judge)["metrics"]


def _judge(plan: Plan) -> EvaluateVideoConfig:
    """Two small networks that know nothing of these films."""
    weights = f"{plan.data}/weights_mobilenet_tflite"
    embedding = TFLiteConfig(
        file=f"{weights}/mobilenet_v1_1.0_224_quant_embedding_extractor.tflite", output="embedding"
    )
    classifier = TFLiteConfig(file=f"{weights}/mobilenet_v2_1.0_224_quant.tflite")
    return EvaluateVideoConfig(
        metrics=METRICS, networks={"frame_classifier": classifier, "clip": embedding}, num_null=1
    )


def main() -> None:
    """Run the plan, write the page, print the line."""
    parser = argparse.ArgumentParser(prog="results_video")
    parser.add_argument("--seeds", default="0 1 2", help="numbers between blanks")
    parser.add_argument("--mirrored-seeds", default="3 4 5", help="of the part with every file from its end")
    parser.add_argument("--data", default=os.environ.get("CINERAY_DATA"), help="folder of clips and weights")
    parser.add_argument("--out", default="runs/results-video", help="folder of data and runs")
    parser.add_argument("--page", default="docs/results/video.md", help="page to write")
    given = parser.parse_args()
    if not given.data or not Path(given.data, "videos_intel_ccby4").is_dir():
        raise SystemExit(
            f"found no videos_intel_ccby4 in '{given.data}', expected the folder of real clips; set CINERAY_DATA"
        )
    plan = Plan(data=given.data, out=given.out, seeds=_numbers(given.seeds))
    plans = {"forwards": plan, "mirrored": plan.override({"seeds": _numbers(given.mirrored_seeds), "mirrored": True})}
    found = {name: results(part) for name, part in plans.items()}
    write_page(Path(given.page), plans, found)
    print(json.dumps(found))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split())


if __name__ == "__main__":
    main()
