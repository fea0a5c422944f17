"""T5 and T6: the contrastive loss over tiles, beside whole N x N matrices.

python -m benchmarks.bench_training_loss KIND N      one evaluation with its backward pass: prints peak extra bytes

All begin with unit predictions that want a gradient and constant unit targets, (N, 768) each, and end with the gradient
of the predictions, which counts. ``step`` is ``tiles`` with the scaling to unit length, as a training step has it.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from benchmarks.bench_training_memory import peak_extra_bytes
from benchmarks.bench_training_parts import alternate
from benchmarks.bench_training_report import Line
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from cineray.datasets.batch import Batch
from cineray.training.losses import InfoNCEConfig
from cineray.training.losses.tiles import StimulusTargets, contrastive
from cineray.training.world import World

ROWS, DIM = 8192, 768
SIZES = (2048, 4096, 8192, 16384)
TEMPERATURE = 0.05


def tiles(predicted: Tensor, targets: Tensor) -> Tensor:
    """Ours; no two rows saw the same stimulus."""
    numbers = torch.arange(len(predicted))
    wanted = StimulusTargets(numbers, numbers, torch.ones(len(numbers)), World())
    return contrastive(predicted, targets, wanted, TEMPERATURE, World()) / len(numbers)


def step(predicted: Tensor, targets: Tensor) -> Tensor:
    """Ours, as the loop calls it."""
    numbers = torch.arange(len(predicted))
    batch = Batch({"one": targets[:, None, :0]}, {"clip": targets}, numbers, numbers, len(numbers))
    return InfoNCEConfig(target="clip", temperature=TEMPERATURE).share({"clip": predicted}, batch, World())


def full(predicted: Tensor, targets: Tensor) -> Tensor:
    """CLIP's: all similarities at once."""
    logits = predicted @ targets.T / TEMPERATURE
    own = torch.arange(len(logits))
    return (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2


KINDS = {"tiles": tiles, "step": step, "full": full}


def evaluation(loss: Callable[[Tensor, Tensor], Tensor], rows: int) -> Callable[[], tuple[float, Tensor]]:
    """Forward and backward over the same random rows."""
    chance = torch.Generator().manual_seed(0)
    predicted, targets = (normalize(torch.randn(rows, DIM, generator=chance), dim=1) for _ in range(2))
    predicted.requires_grad_()

    def run() -> tuple[float, Tensor]:
        predicted.grad = None
        value = loss(predicted, targets)
        value.backward()
        assert predicted.grad is not None
        return value.item(), predicted.grad

    return run


def measure(folder: Path) -> Iterator[Line]:
    """T5 and T6."""
    del folder
    ours, theirs = evaluation(tiles, ROWS), evaluation(full, ROWS)
    (value, grad), (other_value, other_grad) = ours(), theirs()
    torch.testing.assert_close((value, grad), (other_value, other_grad), rtol=1e-4, atol=1e-7)
    mine, other = peak("tiles", ROWS), peak("full", ROWS)
    note = f"{mine / 1e6:.0f} against {other / 1e6:.0f} MB above what was there before, gradient included"
    what = f"contrastive loss, N = {ROWS}, D = {DIM}: peak extra memory, tiles / whole matrix"
    yield Line("perf.T5/memory", what, mine / other, note)
    whole = peak("step", ROWS)
    note = f"{whole / 1e6:.0f} MB, most of them in the backward pass of torch's normalize"
    yield Line(
        "perf.T5/memory_of_step", "the same, ours with the scaling to unit length that a step has", whole / other, note
    )
    found = alternate(ours, theirs)
    yield Line.of_ratio("perf.T5/time", "the same: time", found, unit="loss", time=True)
    peaks = [mine if rows == ROWS else peak("tiles", rows) for rows in SIZES]
    exponent = float(np.polyfit(np.log(SIZES), np.log(peaks), 1)[0])
    note = ", ".join(f"N = {rows}: {peak / 1e6:.0f} MB" for rows, peak in zip(SIZES, peaks, strict=True))
    yield Line("perf.T6", "exponent of the tiles' peak extra memory in N", exponent, note)


def peak(kind: str, rows: int) -> int:
    """Of one evaluation in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bench_training_loss", kind, str(rows)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent)
    return int(done.stdout.split()[-1])


def _main(kind: str, rows: str) -> None:
    torch.set_num_threads(1)
    evaluation(KINDS[kind], 256)()  # code and libraries are in memory
    print(peak_extra_bytes(evaluation(KINDS[kind], int(rows))))


if __name__ == "__main__":
    _main(*sys.argv[1:])
