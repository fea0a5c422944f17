"""What the loop sees of every strategy."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from cineray.training.optim import OptimConfig, SubjectAdamW
from cineray.training.world import World

__all__ = ["Engine", "Setting", "blocks", "clip", "recompute_activations", "whole"]


@dataclass(frozen=True)
class Setting:
    """What a strategy is given: a model on its device, with its starting weights, and how to train it."""

    model: nn.Module
    optim: OptimConfig
    world: World
    bf16: bool
    subject_of: Callable[[str], str | None]

    def optimizer(self) -> SubjectAdamW:
        """The optimiser of the model as it is now (after sharding, where a strategy shards in place)."""
        return self.optim.build(self.model, self.subject_of)

    def autocast(self) -> AbstractContextManager:
        """Products in bf16 over fp32 weights, or nothing."""
        return torch.autocast(self.world.device.type, torch.bfloat16) if self.bf16 else nullcontext()


class Engine(ABC):
    """A spread model. Every method is collective: all ranks call it, in the same order.

    One step is ``forward`` and ``backward`` for each micro-batch, then ``step``. Gradients accumulate as the *sum* of
    the ranks' shares (`cineray.training.losses`), whatever the strategy does inside.
    """

    def __init__(self, setting: Setting, optimizer: SubjectAdamW) -> None:
        self.module = setting.model
        self.optimizer = optimizer
        self.setting = setting

    @abstractmethod
    def forward(self, *inputs: Mapping[str, Tensor], last: bool = True) -> dict[str, Tensor]:
        """Predictions of this rank's rows; ``last`` marks the step's last micro-batch, after which ranks meet.

        ``inputs`` are what the model is called with: the brain, and the targets of a model that learns from them.
        """

    @abstractmethod
    def backward(self, share: Tensor) -> None:
        """Add the gradient of this rank's share of the loss."""

    @abstractmethod
    def step(self, lr: float, absent: Collection[str]) -> float:
        """Clip, update everything but the ``absent`` subjects, clear the gradient; the norm before clipping."""

    @abstractmethod
    def full_state(self) -> Iterator[tuple[str, Tensor]]:
        """fp32 ``weights/NAME`` (parameters and buffers), ``exp_avg/NAME``, ``exp_avg_sq/NAME``, ``steps/NAME``.

        Whole tensors, one at a time, in the same order everywhere; they may be views of live memory.
        """

    @abstractmethod
    def load_moments(self, state: Mapping[str, Tensor]) -> None:
        """Put back the optimiser's part of `full_state`; the weights were in the model before it was spread."""

    def train(self, mode: bool = True) -> None:
        """Dropout on or off."""
        self.module.train(mode)


def blocks(model: nn.Module) -> list[nn.Module]:
    """The layers a model repeats: outermost entries of its lists and sequences that hold parameters.

    A sequence of single layers is one block: what lies between them is as large as what goes in.
    """
    found: list[nn.Module] = []
    for child in model.children():
        if isinstance(child, nn.Sequential) and not any(True for layer in child for _ in layer.children()):
            found += [child] if any(True for _ in child.parameters()) else []
        elif isinstance(child, nn.Sequential | nn.ModuleList):
            found += [block for block in child if any(True for _ in block.parameters())]
        else:
            found += blocks(child)
    return found


def recompute_activations(model: nn.Module) -> None:
    """Keep only the blocks' inputs and compute the rest again in the backward pass; parameter names stay."""
    for block in blocks(model):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def clip(parameters: Iterable[Tensor], most: float) -> float:
    """Scale the gradients down to a global norm of ``most``, or leave them alone; the norm they had.

    Torch's own function writes all of them again even where there is nothing to scale.
    """
    trained = list(parameters)
    norm = nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
    if (found := float(whole(norm))) > most:
        nn.utils.clip_grads_with_norm_(trained, most, norm)
    return found


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor of which this rank may hold a part; collective if so."""
    tensor = tensor.detach()
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


class Fixed(Engine):
    """A model that was solved, not descended: it predicts and is saved, the same on every rank, and never steps."""

    def __init__(self, setting: Setting) -> None:
        self.module = setting.model
        self.setting = setting

    def forward(self, *inputs: Mapping[str, Tensor], last: bool = True) -> dict[str, Tensor]:
        """See `Engine`."""
        return self.module(*inputs)

    def backward(self, share: Tensor) -> None:
        """Never called: there are no epochs."""
        raise AssertionError("a solved model takes no gradient")

    def step(self, lr: float, absent: Collection[str]) -> float:
        """Never called: there are no epochs."""
        raise AssertionError("a solved model takes no step")

    def full_state(self) -> Iterator[tuple[str, Tensor]]:
        """Weights only."""
        for name, tensor in self.module.state_dict().items():
            yield f"weights/{name}", tensor.detach()

    def load_moments(self, state: Mapping[str, Tensor]) -> None:
        """There are none."""
