"""DeepSpeed ZeRO 0 to 3 (Rajbhandari et al., arXiv 1910.02054) with our own optimiser inside."""

import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cineray.training.optim import MOMENTS, SubjectAdamW
from cineray.training.strategies.base import Engine, Setting, clip

__all__ = ["zero0", "zero1", "zero2", "zero3"]


def zero(setting: Setting, *, stage: int) -> Engine:
    """Shard moments (stage 1), gradients too (2), weights too (3); stage 0 is DeepSpeed's own data parallelism."""
    return ReplicatedEngine(setting) if stage == 0 else ShardedEngine(setting, stage)


zero0: Callable[[Setting], Engine] = partial(zero, stage=0)
zero1: Callable[[Setting], Engine] = partial(zero, stage=1)
zero2: Callable[[Setting], Engine] = partial(zero, stage=2)
zero3: Callable[[Setting], Engine] = partial(zero, stage=3)


class ZeroEngine(Engine):
    """What the stages have in common: DeepSpeed's forward, backward and step."""

    def __init__(self, setting: Setting, **config: Any) -> None:
        super().__init__(setting, setting.optimizer())
        self.trained = {name: p for name, p in setting.model.named_parameters() if p.requires_grad}
        self.deepspeed = _start(setting, self.optimizer, config)

    def backward(self, share: Tensor) -> None:
        """DeepSpeed averages over ranks, shares add up; the loop has already weighted the micro-batches."""
        self.deepspeed.backward(share * self.setting.world.size, scale_wrt_gas=False)


class ReplicatedEngine(ZeroEngine):
    """Stage 0: whole weights and moments on every rank, in fp32; bf16 means autocast, as for DDP."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting, zero_optimization={"stage": 0}, gradient_clipping=0.0)  # unset, it clips to 1
        for parameter in self.trained.values():
            self.optimizer.start(parameter)

    def forward(self, *inputs: Mapping[str, Tensor], last: bool = True) -> dict[str, Tensor]:
        """See `Engine`."""
        self.deepspeed.set_gradient_accumulation_boundary(last)
        with self.setting.autocast():
            return self.deepspeed(*inputs)

    def step(self, lr: float, absent: Collection[str]) -> float:
        """Clipped here, for DeepSpeed's stage 0 does not tell the norm."""
        norm = clip(self.trained.values(), self.setting.optim.clip_norm)
        self.optimizer.prepare(lr, absent)
        self.deepspeed.step()
        return norm

    def full_state(self) -> Iterator[tuple[str, Tensor]]:
        """See `Engine`."""
        for name, tensor in self.module.state_dict().items():
            yield f"weights/{name}", tensor.detach()
        for name, parameter in self.trained.items():
            own = self.optimizer.state[parameter]
            for key in MOMENTS:
                yield f"{key}/{name}", own[key]
            yield f"steps/{name}", own["step"]

    def load_moments(self, state: Mapping[str, Tensor]) -> None:
        """See `Engine`."""
        for name, parameter in self.trained.items():
            own = self.optimizer.state[parameter]
            own["step"].copy_(state[f"steps/{name}"])
            for key in MOMENTS:
                own[key].copy_(state[f"{key}/{name}"])


class ShardedEngine(ZeroEngine):
    """Stages 1 to 3: flat fp32 partitions of weights and moments; bf16 means bf16 weights beside them."""

    def __init__(self, setting: Setting, stage: int) -> None:
        # DeepSpeed casts the whole model to bf16 before it takes its fp32 copy of what is trained, and stage 3 hides
        # what is not: keep the exact start, to put the one back and to save the other (buffers do not change).
        trained = {name for name, p in setting.model.named_parameters() if p.requires_grad}
        start = setting.model.state_dict().items()
        exact = {name: x.detach().clone() for name, x in start if setting.bf16 or name not in trained}
        self.fixed = {name: tensor for name, tensor in exact.items() if name not in trained}
        super().__init__(
            setting,
            zero_optimization={"stage": stage},
            gradient_clipping=setting.optim.clip_norm,
            bf16={"enabled": setting.bf16},
        )
        self.stage = stage
        for flat in self._partitions():
            self.optimizer.start(flat)
        if stage < 3:
            # The views of the moments that the safe_* functions read; DeepSpeed makes them after its first step.
            self.deepspeed.optimizer._lazy_init_hp_params_optimizer_state()
        if setting.bf16:
            for name, parameter in self.trained.items():
                self._put(parameter, exact[name], None)

    def forward(self, *inputs: Mapping[str, Tensor], last: bool = True) -> dict[str, Tensor]:
        """See `Engine`."""
        self.deepspeed.set_gradient_accumulation_boundary(last)
        dtype = torch.bfloat16 if self.setting.bf16 else torch.float32
        return self.deepspeed(*({name: rows.to(dtype) for name, rows in given.items()} for given in inputs))

    def step(self, lr: float, absent: Collection[str]) -> float:
        """See `Engine`."""
        self.optimizer.prepare(lr, absent)
        self.deepspeed.step()
        return float(self.deepspeed.get_global_grad_norm())

    def full_state(self) -> Iterator[tuple[str, Tensor]]:
        """See `Engine`."""
        from deepspeed import utils

        for name, tensor in self.fixed.items():
            yield f"weights/{name}", tensor
        for name, parameter in self.trained.items():
            weight = utils.safe_get_full_fp32_param(parameter)
            assert weight is not None, f"DeepSpeed lost {name}"
            yield f"weights/{name}", weight
            for key in MOMENTS:
                moment = utils.safe_get_full_optimizer_state(parameter, key)
                assert moment is not None, f"DeepSpeed lost {key} of {name}"
                yield f"{key}/{name}", moment
            yield f"steps/{name}", self._steps(parameter)

    def load_moments(self, state: Mapping[str, Tensor]) -> None:
        """See `Engine`."""
        for name, parameter in self.trained.items():
            for key in MOMENTS:
                self._put(parameter, state[f"{key}/{name}"], key)
            self._steps(parameter).copy_(state[f"steps/{name}"])

    def _partitions(self) -> list[Tensor]:
        """This rank's flat fp32 weights, one or more a parameter group."""
        inner = self.deepspeed.optimizer
        return inner.fp32_partitioned_groups_flat if self.stage == 3 else inner.single_partition_of_fp32_groups

    def _steps(self, parameter: Tensor) -> Tensor:
        """Updates so far of the partition that holds ``parameter`` (a group moves as one)."""
        inner = self.deepspeed.optimizer
        if self.stage == 3:
            flat = inner.fp32_partitioned_groups_flat[inner.grad_position[inner.get_param_id(parameter)][0]]
        else:
            group = next(i for i, members in enumerate(inner.bit16_groups) if any(p is parameter for p in members))
            flat = inner.single_partition_of_fp32_groups[group]
        return self.optimizer.state[flat]["step"]

    def _put(self, parameter: Tensor, value: Tensor, key: str | None) -> None:
        """Write a whole fp32 weight (``key`` None) or moment into the partitions."""
        from deepspeed import utils

        value = value.to(self.setting.world.device, torch.float32)
        if self.stage == 3:
            # The full setters of stage 3 run past the end where a weight does not divide by the ranks: pad, cut, set.
            size = parameter.ds_tensor.numel()
            padded = nn.functional.pad(value.flatten(), (0, size * self.setting.world.size - value.numel()))
            part = padded.narrow(0, size * self.setting.world.rank, size)
            setter = utils.safe_set_local_fp32_param if key is None else utils.safe_set_local_optimizer_state
            setter(parameter, part, *([] if key is None else [key]))
        elif key is None:
            utils.safe_set_full_fp32_param(parameter, value)
        else:
            utils.safe_set_full_optimizer_state(parameter, value, key)


def _start(setting: Setting, optimizer: SubjectAdamW, config: dict[str, Any]) -> Any:
    """DeepSpeed's engine around the model, in the process group that exists."""
    # DeepSpeed reads these and can be told in no other way; a launcher has set them already.
    os.environ.setdefault("LOCAL_RANK", str(setting.world.device.index or 0))
    if setting.world.device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed
    import deepspeed.ops
    from deepspeed.utils import logger

    # An operator that only speeds up inference, compiled at every start on a CPU (35 s, needs g++ and ninja).
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    logger.setLevel(logging.ERROR)  # it warns of every optimiser that is not its own
    setting.world.ensure_group()
    common = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": setting.optim.accumulate,
        "zero_allow_untested_optimizer": True,
    }
    engine, *_ = deepspeed.initialize(
        model=setting.model, optimizer=optimizer, config=common | config, dist_init_required=False
    )
    return engine
