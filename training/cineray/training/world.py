"""Who else is training: rank, size and device, handed in rather than looked up."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["World"]


@dataclass(frozen=True)
class World:
    """This process's place among the workers; with ``size == 1`` no process group is needed.

    The methods are collective: every rank calls them, in the same order. With one process they cost nothing.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009 (immutable)

    def sum(self, values: Tensor) -> Tensor:
        """Sum over ranks of a tensor of the same shape everywhere; the argument is left alone."""
        total = values.clone()
        if self.size > 1:
            dist.all_reduce(total)
        return total

    def gather(self, value: Any) -> list[Any]:
        """Every rank's (picklable) value, in the order of ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def lengths(self, length: int) -> list[int]:
        """Every rank's count, in the order of ranks; quicker than `gather`."""
        if self.size == 1:
            return [length]
        found = torch.zeros(self.size, dtype=torch.int64, device=self.device)
        found[self.rank] = length
        dist.all_reduce(found)
        return found.tolist()

    def first(self, value: Any) -> Any:
        """Rank 0's (picklable) value, on every rank."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def share(self, tensor: Tensor) -> Tensor:
        """Rank 0's tensor, written into ``tensor`` on every other rank."""
        if self.size > 1:
            dist.broadcast(tensor, src=0)
        return tensor

    def ensure_group(self) -> None:
        """Make a process group of one where a strategy needs a group and nobody has made any."""
        if not dist.is_initialized():
            assert self.size == 1, "the launcher makes the process group of a run with several workers"
            backend = "nccl" if self.device.type == "cuda" else "gloo"
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
