"""Parallelism applied from outside, by a function in a table; no model and no loop knows how it is spread."""

from collections.abc import Callable, Mapping
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from cineray.core.config import Config
from cineray.training.optim import OptimConfig
from cineray.training.strategies.base import Engine, Fixed, Setting, recompute_activations
from cineray.training.strategies.native import ddp, fsdp2, plain
from cineray.training.strategies.zero import zero0, zero1, zero2, zero3
from cineray.training.world import World

__all__ = ["STRATEGIES", "Engine", "StrategyConfig", "build_engine"]


class StrategyConfig(Config):
    """Which parallelism, at which precision."""

    name: Literal["plain", "ddp", "fsdp2", "zero0", "zero1", "zero2", "zero3"] = "plain"
    precision: Literal["fp32", "bf16"] = "fp32"
    activation_checkpointing: bool = False
    threads_per_worker: int = Field(default=1, ge=1)


STRATEGIES: dict[str, Callable[[Setting], Engine]] = {
    "plain": plain,
    "ddp": ddp,
    "fsdp2": fsdp2,
    "zero0": zero0,
    "zero1": zero1,
    "zero2": zero2,
    "zero3": zero3,
}


def build_engine(
    strategy: StrategyConfig,
    model: nn.Module,
    optim: OptimConfig,
    world: World,
    *,
    subject_of: Callable[[str], str | None],
    state: Mapping[str, Tensor] | None = None,
) -> Engine:
    """Spread a model written for one device; ``state`` is what `Engine.full_state` gave, under whatever strategy."""
    model.to(world.device)
    if state is not None:
        prefix = "weights/"
        model.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    if strategy.activation_checkpointing:
        recompute_activations(model)
    setting = Setting(model, optim, world, strategy.precision == "bf16", subject_of)
    engine = STRATEGIES[strategy.name](setting) if optim.epochs else Fixed(setting)
    if state is not None:
        engine.load_moments(state)
    return engine
