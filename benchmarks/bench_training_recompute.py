"""T7: activations computed again in the backward pass, beside activations kept.

python -m benchmarks.bench_training_recompute usual|thrifty      one pass there and back: prints peak extra bytes
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from benchmarks import bench_training_data as data
from benchmarks.bench_training_memory import peak_extra_bytes
from benchmarks.bench_training_parts import alternate
from benchmarks.bench_training_report import Line
from torch import Tensor

from cineray.training.models.base import Sizes, subject_of
from cineray.training.models.semantic import SemanticConfig
from cineray.training.optim import OptimConfig
from cineray.training.strategies import StrategyConfig, build_engine
from cineray.training.world import World

ROWS = 256
"""As many as NeuroClips': at few rows weights, not activations, fill the memory."""


def make_pass(thrifty: bool) -> tuple[Callable[[], int], Callable[[], None]]:
    """Bytes that a forward pass keeps, and a pass there and back; with MindEye2's four residual blocks, in fp32."""
    sizes = Sizes({"sub-01": data.VOXELS["sub-01"]}, 1, {"clip_tokens": (data.TOKENS, data.WIDTH)})
    torch.manual_seed(0)
    model = SemanticConfig(dim=data.DIM, mixer="residual-mlp", depth=4).build(sizes)
    strategy = StrategyConfig(activation_checkpointing=thrifty)
    engine = build_engine(strategy, model, OptimConfig(), World(), subject_of=subject_of)
    brain = {"sub-01": torch.randn(ROWS, 1, data.VOXELS["sub-01"])}

    def forward() -> Tensor:
        return engine.forward(brain)["clip_tokens"]

    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    return lambda: kept_bytes(forward, weights), lambda: engine.backward(forward().square().mean())


def kept_bytes(forward: Callable[[], Tensor], weights: set[int]) -> int:
    """Of what autograd keeps for the backward pass besides weights, each memory once."""
    kept: dict[int, int] = {}

    def note(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        output = forward()
    del output
    return sum(kept.values())


def measure(folder: Path) -> Iterator[Line]:
    """T7."""
    del folder
    passes = {thrifty: make_pass(thrifty) for thrifty in (True, False)}
    kept = [passes[thrifty][0]() for thrifty in (True, False)]
    what = "activation checkpointing of the reconstructor, on / off"
    note = f"{kept[0] / 1e6:.0f} against {kept[1] / 1e6:.0f} MB kept for the backward pass, {ROWS} rows, fp32"
    yield Line("perf.T7/activations", f"{what}: activations kept", kept[0] / kept[1], note)
    found = alternate(passes[True][1], passes[False][1])
    yield Line.of_ratio("perf.T7/time", "the same: time of forward and backward", found, unit="pass", time=True)
    peaks = [_peak(kind) for kind in ("thrifty", "usual")]
    note = f"{peaks[0] / 1e6:.0f} against {peaks[1] / 1e6:.0f} MB; the projector is one block, recomputed as a whole"
    yield Line("perf.T7/peak", "the same: peak extra memory of forward and backward", peaks[0] / peaks[1], note)


def _peak(kind: str) -> int:
    command = [sys.executable, "-m", "benchmarks.bench_training_recompute", kind]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent)
    return int(done.stdout.split()[-1])


if __name__ == "__main__":
    torch.set_num_threads(1)
    _, _back = make_pass(sys.argv[1] == "thrifty")
    _back()  # gradients are there; only activations come and go
    print(peak_extra_bytes(_back))
