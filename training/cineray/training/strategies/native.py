"""Strategies of PyTorch itself: one process, DDP and FSDP2."""

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from cineray.core.errors import ConfigError
from cineray.training.optim import MOMENTS
from cineray.training.strategies.base import Engine, Setting, blocks, clip, whole

__all__ = ["ddp", "fsdp2", "plain"]


def plain(setting: Setting) -> Engine:
    """One process, nothing around the model."""
    if setting.world.size > 1:
        raise ConfigError(f"strategy 'plain' is for one worker, found {setting.world.size}; set strategy.name=ddp")
    return NativeEngine(setting)


def ddp(setting: Setting) -> Engine:
    """A replica per rank, gradients averaged (Li et al., arXiv 2006.15704)."""
    return DDPEngine(setting)


def fsdp2(setting: Setting) -> Engine:
    """Weights, gradients and moments sharded by row (torch ``fully_shard``)."""
    world = setting.world
    world.ensure_group()
    # It warns, on every model that reshapes its output, of in-place changes that no loss makes.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(world.device.type, (world.size,))
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if setting.bf16 else MixedPrecisionPolicy()
    for module in [*blocks(setting.model), setting.model]:
        fully_shard(module, mesh=mesh, mp_policy=policy)
    return FSDPEngine(setting)


class NativeEngine(Engine):
    """The model as it is."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting, setting.optimizer())
        self.call: Callable[..., dict[str, Tensor]] = setting.model
        # Once: while FSDP has its weights gathered (after validation) the model would show other tensors.
        self.trained = {name: p for name, p in self.module.named_parameters() if p.requires_grad}
        for parameter in self.trained.values():
            self.optimizer.start(parameter)

    def forward(self, *inputs: Mapping[str, Tensor], last: bool = True) -> dict[str, Tensor]:
        """See `Engine`."""
        with self.setting.autocast():
            return self.call(*inputs)

    def backward(self, share: Tensor) -> None:
        """See `Engine`."""
        share.backward()

    def step(self, lr: float, absent: Collection[str]) -> float:
        """See `Engine`."""
        norm = clip(self.trained.values(), self.setting.optim.clip_norm)
        self.optimizer.prepare(lr, absent)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return norm

    def full_state(self) -> Iterator[tuple[str, Tensor]]:
        """See `Engine`."""
        for name, tensor in self.module.state_dict().items():
            yield f"weights/{name}", whole(tensor)
        for name, parameter in self.trained.items():
            state = self.optimizer.state[parameter]
            for key in MOMENTS:
                yield f"{key}/{name}", whole(state[key])
            yield f"steps/{name}", whole(state["step"])

    def load_moments(self, state: Mapping[str, Tensor]) -> None:
        """See `Engine`."""
        for name, parameter in self.trained.items():
            own = self.optimizer.state[parameter]
            own["step"].copy_(state[f"steps/{name}"])
            for key in MOMENTS:
                own[key].copy_(_like(state[f"{key}/{name}"], own[key]))


class DDPEngine(NativeEngine):
    """A replica per rank."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        setting.world.ensure_group()
        # Buffers are set before training and equal everywhere; sending them every step would buy nothing.
        self.ddp = DistributedDataParallel(setting.model, forward_sync_buffers=False, gradient_as_bucket_view=True)
        self.call = self.ddp
        self._settled = False

    def forward(self, *inputs: Mapping[str, Tensor], last: bool = True) -> dict[str, Tensor]:
        """See `Engine`."""
        if torch.is_grad_enabled() and not self._settled:
            self._settle(*inputs)
        self.ddp.require_backward_grad_sync = last  # what DDP.no_sync() sets, but for forward and backward alike
        return super().forward(*inputs)

    def _settle(self, *inputs: Mapping[str, Tensor]) -> None:
        """One pass for nothing: DDP lays its buckets out anew after the first.

        With three ranks or more the layout decides the order of sums, so a resumed run would differ in the last bit.
        """
        self._settled = True
        device = self.setting.world.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            sum(x.sum() * 0.0 for x in super().forward(*inputs).values()).backward()
        self.optimizer.zero_grad()

    def backward(self, share: Tensor) -> None:
        """DDP averages, shares add up."""
        super().backward(share * self.setting.world.size)


class FSDPEngine(NativeEngine):
    """Shards of everything; the mixed precision is FSDP's own."""

    def forward(self, *inputs: Mapping[str, Tensor], last: bool = True) -> dict[str, Tensor]:
        """See `Engine`."""
        assert isinstance(self.module, FSDPModule)
        self.module.set_requires_gradient_sync(last)
        return self.call(*inputs)

    def backward(self, share: Tensor) -> None:
        """FSDP averages, shares add up."""
        super().backward(share * self.setting.world.size)


def _like(value: Tensor, pattern: Tensor) -> Tensor:
    """``value``, sharded as ``pattern`` is; every rank holds the whole, so nothing is sent."""
    value = value.to(pattern.device)
    if isinstance(pattern, DTensor):
        return distribute_tensor(value, pattern.device_mesh, pattern.placements, src_data_rank=None)
    return value
