"""perf.G1-G3, G10-G12 on the GPU of this machine, with random weights of the published shapes.

    make bench-gpu        or        python -m benchmarks.bench_gpu [--out docs/results/gpu.md]

Speed does not depend on the weights' values, so nothing is downloaded. Without a GPU it says so and measures nothing.
The last line is JSON.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from benchmarks.goals import figures, verdict

GOALS: dict[str, tuple[str, float, float]] = {
    "perf.G1": (">=", 0.30, 0.40),
    "perf.G2": (">=", 0.22, 0.32),
    "perf.G3/256x1664": (">=", 380, 510),
    "perf.G3/257x768": (">=", 1200, 1750),
    "perf.G10": ("<=", 14, 9),
    "perf.G11": ("<=", 2.5, 1.5),
    "perf.G12": ("<=", 1.0, 0.5),
}
"""Sense, floor and target for one H200 (performance goals, section 5i)."""


@dataclass(frozen=True)
class Line:
    """One figure."""

    key: str
    what: str
    value: float

    @property
    def verdict(self) -> str:
        """Against floor and target."""
        return verdict(self.value, *GOALS[self.key])


def measure(device: torch.device) -> Iterator[Line]:
    """Every figure, as it is found."""
    from benchmarks import bench_gpu_training as training  # here, so that it is quick to say that there is no GPU
    from benchmarks import bench_gpu_video as video

    for keys, shape in (
        (("perf.G1", "perf.G3/256x1664"), training.MINDEYE2),
        (("perf.G2", "perf.G3/257x768"), training.SMALL),
    ):
        step = training.measure(shape, device)
        yield Line(keys[0], f"model FLOPs used, {shape.name}, {step.tflop_a_row:.3f} TFLOP a row", step.mfu)
        yield Line(keys[1], f"samples/s, {shape.name}, peak {step.peak_gb:.0f} GB", step.rows_per_s)
    for key, case in video.CASES.items():
        yield Line(key, f"s for a video of 6 s, {case.what}", video.measure(case, device))


def page(gpu: str, lines: list[Line]) -> str:
    """Markdown."""
    rows = ""
    for x in lines:
        sense, floor, target = GOALS[x.key]
        rows += f"| {x.key} | {x.what} | {x.value:.3g} | {sense} {floor:g} | {target:g} | {x.verdict} |\n"
    return (
        f"# Speed on one GPU\n\n`make bench-gpu` on {gpu}, torch {torch.__version__}, random weights of the published "
        f"shapes.\n\n| goal | what | value | floor | target | reached |\n|---|---|---|---|---|---|\n{rows}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/results/gpu.md"))
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("there is no CUDA GPU on this machine, so nothing was measured; run `make bench-gpu` where there is one")
        print(json.dumps(figures((key, None) for key in (*GOALS, "other/gpu"))))
        return
    gpu = torch.cuda.get_device_name()
    lines = []
    for line in measure(torch.device("cuda")):
        print(f"{line.key:16} {line.value:10.3g}  {line.verdict:7} {line.what}", flush=True)
        lines.append(line)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(page(gpu, lines), encoding="utf-8")
    print(json.dumps(figures([*((line.key, line.value) for line in lines), ("other/gpu", gpu)])))


if __name__ == "__main__":
    main()
