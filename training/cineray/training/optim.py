"""Optimiser and schedule: fused AdamW, one cycle or constant, no decay for biases and norms."""

import math
from collections.abc import Callable, Collection
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from cineray.core.config import Config

__all__ = ["MOMENTS", "OptimConfig", "SubjectAdamW", "learning_rate"]

MOMENTS = ("exp_avg", "exp_avg_sq")
"""AdamW's state of a parameter besides its number of steps."""


class OptimConfig(Config):
    """AdamW and its schedule. The defaults of the cycle are MindEye2's (specs/mindeye2.md, section 6)."""

    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-2, ge=0)
    read_in_weight_decay: float | None = Field(default=None, ge=0)
    """The ridge of the subject layers; None takes ``weight_decay``."""
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float = Field(default=1.0, gt=0)
    """Largest global norm of the gradient."""
    epochs: int = Field(default=10, ge=0)
    """Zero leaves a closed-form fit as it is."""
    batch_size: int = Field(default=128, ge=1)
    """Rows of one step over **all** ranks."""
    accumulate: int = Field(default=1, ge=1)
    """Micro-batches per step; the global batch stays ``batch_size``."""
    schedule: Literal["constant", "one-cycle"] = "one-cycle"
    warmup_fraction: float = Field(default=0.1, ge=0, le=1)
    initial_divisor: float = Field(default=25.0, ge=1)
    """The cycle starts at ``lr / initial_divisor`` ..."""
    final_divisor: float = Field(default=1000.0, ge=1)
    """... and ends that start divided by this."""

    def build(self, model: nn.Module, subject_of: Callable[[str], str | None]) -> "SubjectAdamW":
        """Make the optimiser; ``subject_of`` tells whose a parameter name is, None for shared ones."""
        groups: dict[tuple[str | None, bool], list[Tensor]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                groups.setdefault((subject_of(name), parameter.ndim > 1), []).append(parameter)
        return SubjectAdamW(
            [
                {"params": params, "subject": subject, "absent": False, "weight_decay": self._decay(subject, decays)}
                for (subject, decays), params in groups.items()
            ],
            lr=self.lr,
            betas=self.betas,
            fused=True,
        )

    def _decay(self, subject: str | None, decays: bool) -> float:
        if not decays:
            return 0.0
        if subject is not None and self.read_in_weight_decay is not None:
            return self.read_in_weight_decay
        return self.weight_decay


class SubjectAdamW(torch.optim.AdamW):
    """AdamW that leaves out the subjects who are in nobody's rows this step.

    Their gradient is zero, but an ordinary step would still decay their weights and their moments. The mark sits on
    the parameter groups, which every strategy keeps (DeepSpeed replaces only the tensors in them).
    """

    def prepare(self, lr: float, absent: Collection[str]) -> None:
        """Set the learning rate of the next step and who sits it out."""
        for group in self.param_groups:
            group["lr"] = lr
            group["absent"] = group["subject"] in absent

    def step(self, closure: Any = None) -> Any:
        """One step of the groups that take part."""
        for group in self.param_groups:
            if group["absent"]:
                for parameter in group["params"]:
                    parameter.grad = None
        return super().step(closure)

    def start(self, parameter: Tensor) -> None:
        """Give a parameter the state that AdamW begins with, so that it can be read and set before the first step."""
        self.state[parameter] = {
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            **{key: torch.zeros_like(parameter, requires_grad=False) for key in MOMENTS},
        }


def learning_rate(config: OptimConfig, step: int, num_steps: int) -> float:
    """Learning rate of step ``step`` of ``num_steps`` (cosine one-cycle: Smith and Topin, arXiv 1708.07120)."""
    if config.schedule == "constant":
        return config.lr
    first = config.lr / config.initial_divisor
    last = first / config.final_divisor
    peak_step = config.warmup_fraction * num_steps - 1
    if step <= peak_step:
        return _cosine(first, config.lr, step / peak_step if peak_step > 0 else 1.0)
    rest = num_steps - 1 - peak_step
    return _cosine(config.lr, last, (step - peak_step) / rest if rest > 0 else 1.0)


def _cosine(start: float, end: float, fraction: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * fraction)) / 2
