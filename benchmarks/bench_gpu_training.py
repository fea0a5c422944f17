"""The real training step (prior on the semantic reconstructor, losses, AdamW) on data that is already in memory."""

import statistics
import time
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from cineray.datasets.batch import Batch
from cineray.training.losses import BiMixCoConfig, MSEConfig, total_loss
from cineray.training.mixing import mix
from cineray.training.models.base import Sizes, subject_of
from cineray.training.models.prior import PriorConfig, PriorDecoder
from cineray.training.models.semantic import SemanticConfig
from cineray.training.optim import OptimConfig
from cineray.training.strategies import StrategyConfig, build_engine
from cineray.training.world import World

__all__ = ["MINDEYE2", "SMALL", "Shape", "Step", "measure", "tflop_a_row"]

PEAK_TFLOPS = 989.0
"""Dense bf16 products of an H200 (and H100 SXM), by its data sheet."""
WARM_UP, STEPS = 3, 10
TARGET, SUBJECT = "clip_tokens", "sub-01"


@dataclass(frozen=True)
class Shape:
    """One size of model and batch."""

    name: str
    tokens: int
    dim: int
    rows: int
    """Of one step."""
    width: int = 4096
    """Of the shared space."""
    voxels: int = 15_000
    heads: int = 32

    @property
    def sizes(self) -> Sizes:
        """What the data would decide."""
        return Sizes({SUBJECT: self.voxels}, 1, {TARGET: (self.tokens, self.dim)})

    def model(self) -> PriorDecoder:
        """Reconstructor and prior, trained together."""
        semantic = SemanticConfig(target=TARGET, dim=self.width)
        prior = PriorConfig(semantic=semantic, heads=self.heads, head_dim=self.dim // self.heads)
        return prior.build(self.sizes)

    def batch(self, device: torch.device) -> Batch:
        """Random rows of distinct stimuli."""
        numbers = torch.arange(self.rows, device=device)
        brain = {SUBJECT: torch.randn(self.rows, 1, self.voxels, device=device)}
        return Batch(
            brain, {TARGET: torch.randn(self.rows, self.tokens, self.dim, device=device)}, numbers, numbers, self.rows
        )


MINDEYE2 = Shape("256x1664 tokens, 128 rows", 256, 1664, 128)
SMALL = Shape("257x768 tokens, 256 rows", 257, 768, 256)


@dataclass(frozen=True)
class Step:
    """What a step costs."""

    seconds: float
    rows: int
    tflop_a_row: float
    peak_gb: float

    @property
    def rows_per_s(self) -> float:
        """Rows trained on in a second."""
        return self.rows / self.seconds

    @property
    def mfu(self) -> float:
        """Share of the GPU's products that the model's own FLOPs are."""
        return self.rows_per_s * self.tflop_a_row / PEAK_TFLOPS


def tflop_a_row(shape: Shape) -> float:
    """10^12 operations of one row, forward and backward, counted on the meta device; losses and AdamW are left out."""
    device = torch.device("meta")
    with device:
        model = shape.model()
    batch = shape.batch(device)
    with FlopCounterMode(display=False) as counter:
        outputs = model(batch.brain, batch.targets)
        (outputs[TARGET].sum() + outputs["retrieval"].sum()).backward()
    return counter.get_total_flops() / shape.rows / 1e12


def measure(shape: Shape, device: torch.device, *, precision: str = "bf16") -> Step:
    """Median over steps, targets precomputed, data on the device."""
    torch.manual_seed(0)
    with device:
        model = shape.model()
    strategy = StrategyConfig.parse({"precision": precision})
    engine = build_engine(strategy, model, OptimConfig(), world := World(device=device), subject_of=subject_of)
    losses = [MSEConfig(target=TARGET, weight=30.0), BiMixCoConfig(target=TARGET, output="retrieval")]
    batch, generator = shape.batch(device), torch.Generator().manual_seed(0)

    def step() -> None:
        mixed = mix(batch, generator)
        outputs = engine.forward(mixed.brain, mixed.targets)
        loss: Tensor = total_loss(losses, outputs, mixed, world)[0]
        engine.backward(loss)
        engine.step(1e-4, ())  # reads the gradient's norm, so the device is done when it returns

    seconds = []
    for _ in range(WARM_UP + STEPS):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0
    return Step(statistics.median(seconds[WARM_UP:]), shape.rows, tflop_a_row(shape), peak)
