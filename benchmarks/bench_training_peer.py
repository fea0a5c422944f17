"""The peer: a training loop as MindEye2 and NeuroClips write it, in plain torch, and nothing of ours inside.

Brains and targets wait in memory as fp32, already scaled; subjects are looped over, which is cheaper than padding them;
similarities are whole N x N matrices; AdamW is torch's. It draws the same blends and takes the same rows as our loop,
so that its losses can be compared with ours.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import log_softmax, normalize
from torch.nn.parallel import DistributedDataParallel


class PeerModel(nn.Module):
    """One ridge a subject, a head for all tokens, the projector, a matrix to the caption's embedding."""

    def __init__(self, voxels: Sequence[int], dim: int, tokens: int, width: int) -> None:
        super().__init__()
        self.ridges = nn.ModuleList(nn.Linear(v, dim) for v in voxels)
        self.head = nn.Linear(dim, tokens * width)
        steps = [(nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width)) for _ in range(3)]
        self.projector = nn.Sequential(*[layer for step in steps for layer in step])
        self.text = nn.Linear(width, width, bias=False)
        self.shape = (tokens, width)

    def forward(self, brains: list[Tensor]) -> tuple[Tensor, Tensor]:
        shared = torch.cat([ridge(x) for ridge, x in zip(self.ridges, brains, strict=True)])
        tokens = self.projector(self.head(shared).reshape(-1, *self.shape))
        return tokens, self.text(tokens.mean(1))


@dataclass(frozen=True)
class Rows:
    """What a step of one rank is made of, drawn before the clock runs."""

    brains: list[Tensor]
    """Row numbers of each subject."""
    targets: Tensor
    """The same rows' numbers in the table of stimuli."""
    partner: Tensor
    kept: Tensor


@dataclass(frozen=True)
class Memory:
    """Everything preloaded, as public loops do it."""

    brains: list[Tensor]
    """(rows, voxels) of each subject."""
    tokens: Tensor
    """(stimuli, tokens, width)."""
    text: Tensor
    steps: list[Rows]
    steps_an_epoch: int
    mixco_epochs: int
    epochs: int


@dataclass(frozen=True)
class Manner:
    """How the peer does it."""

    bf16: bool = False
    fused: bool = False
    world_size: int = 1
    rank: int = 0
    lr: float = 3e-4
    warmup_fraction: float = 1 / 3


def train(model: PeerModel, memory: Memory, manner: Manner, on_step: Callable[[int, float], None]) -> None:
    """The loop; ``on_step`` hears steps taken and the loss, which is read every step as ours is."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 1e-2}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=manner.lr, fused=manner.fused, foreach=not manner.fused)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, manner.lr, total_steps=len(memory.steps), pct_start=manner.warmup_fraction,
        div_factor=25.0, final_div_factor=1000.0, cycle_momentum=False,
    )  # fmt: skip
    network = DistributedDataParallel(model, gradient_as_bucket_view=True) if manner.world_size > 1 else model
    for number, rows in enumerate(memory.steps):
        loss = _loss(network, memory, rows, number // memory.steps_an_epoch, manner)
        optimizer.zero_grad()
        (loss * manner.world_size).backward()
        optimizer.step()
        cycle.step()
        on_step(number + 1, loss.item())


def _loss(network: nn.Module, memory: Memory, rows: Rows, epoch: int, manner: Manner) -> Tensor:
    mixes = epoch < memory.mixco_epochs
    brains = [x[numbers] for x, numbers in zip(memory.brains, rows.brains, strict=True)]
    if mixes:
        brains = list(_blended(brains, rows))
    with torch.autocast("cpu", torch.bfloat16) if manner.bf16 else nullcontext():
        tokens, text = network(brains)
    p, t = _unit(tokens), _unit(memory.tokens[rows.targets])
    pt, tt = _unit(text), _unit(memory.text[rows.targets])
    kept, own, other = rows.kept, rows.targets, rows.targets[rows.partner]
    if manner.world_size > 1:
        p, t, pt, tt, kept, own, other = (_gathered(x, manner) for x in (p, t, pt, tt, kept, own, other))
    if mixes:
        share = kept[:, None] * _same(own, own) + (1 - kept[:, None]) * _same(other, own)
        main = _both_ways(p @ t.T / 0.006, share, share)
    else:
        tau = _tau(epoch, memory)
        soft = (t @ t.T / tau).softmax(1)
        main = _both_ways(p @ t.T / tau, soft, soft.T)
    same = _same(own, own)
    return main + 0.25 * _both_ways(pt @ tt.T / 0.1, same, same)


def _blended(brains: list[Tensor], rows: Rows) -> Iterator[Tensor]:
    at = 0
    for x in brains:
        kept = rows.kept[at : at + len(x), None]
        yield kept * x + (1 - kept) * x[rows.partner[at : at + len(x)] - at]
        at += len(x)


def _tau(epoch: int, memory: Memory) -> float:
    """MindEye2: a cosine from .004 to .0075 over the epochs with soft targets."""
    done = (epoch - memory.mixco_epochs) / max(memory.epochs - memory.mixco_epochs - 1, 1)
    return 0.0075 + (0.004 - 0.0075) * (1 + math.cos(math.pi * done)) / 2


def _unit(x: Tensor) -> Tensor:
    return normalize(x.flatten(1).float(), dim=1)


def _same(rows: Tensor, columns: Tensor) -> Tensor:
    """(rows, columns): each row's equal parts of the columns that show its stimulus."""
    hits = (rows[:, None] == columns[None]).float()
    return hits / hits.sum(1, keepdim=True)


def _both_ways(logits: Tensor, within_rows: Tensor, within_columns: Tensor) -> Tensor:
    """Mean over rows of the cross-entropies of both directions."""
    by_row = -(within_rows * log_softmax(logits, 1)).sum()
    by_column = -(within_columns * log_softmax(logits, 0)).sum()
    return (by_row + by_column) / 2 / len(logits)


def _gathered(x: Tensor, manner: Manner) -> Tensor:
    """All ranks' rows, with gradient through this rank's own: what open_clip gathers."""
    parts = [torch.empty_like(x) for _ in range(manner.world_size)]
    dist.all_gather(parts, x.detach().contiguous())
    parts[manner.rank] = x
    return torch.cat(parts)
