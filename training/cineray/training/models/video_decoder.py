"""Feature maps of the frames of a clip to its latents: the decoder of NeuroClips' perception reconstructor.

A convolutional decoder as in latent diffusion (arXiv 2112.10752) with attention over time in the middle and after every
residual block on the way up (NeuroClips, arXiv 2410.19452).
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, scaled_dot_product_attention, silu

__all__ = ["Grouping", "VideoDecoder"]

Grouping = Literal["clip", "released-batch"]
"""Which frames attend to each other: those of one clip, or all of the batch, as in the released code, where a clip's
prediction depends on the clips that happen to stand beside it."""


@dataclass(frozen=True)
class Style:
    """What all blocks of one decoder have in common."""

    grouping: Grouping
    released: bool
    """Published numbers throughout: 32 groups in every norm, a bias on the keys, attention over time shut at the start.

    The first two make tensors that no gradient ever reaches: a norm of one channel a group takes away the bias before
    it, and the softmax over keys that of all keys.
    """

    def norm(self, channels: int) -> nn.GroupNorm:
        """At least two channels a group."""
        groups = 32 if self.released else math.gcd(8, max(channels // 2, 1))
        return nn.GroupNorm(groups, channels, eps=1e-6)


class VideoDecoder(nn.Module):
    """(clips · frames, channels, h, w) to (clips · frames, ``out_channels``, h · 2^(n-1), w · 2^(n-1)) for n widths."""

    def __init__(
        self,
        channels: int,
        widths: tuple[int, ...],
        out_channels: int,
        *,
        grouping: Grouping = "clip",
        released: bool = False,
    ) -> None:
        """``widths`` are named as they are in an encoder: the last comes first here."""
        super().__init__()
        style = Style(grouping, released)
        self.conv_in = nn.Conv2d(channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1], style)
        falling = [widths[-1], *reversed(widths)]
        self.ups = nn.ModuleList(
            [
                Up(before, after, style, upsample=number < len(widths) - 1)
                for number, (before, after) in enumerate(pairwise(falling))
            ]
        )
        self.norm_out = style.norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], out_channels, 3, padding=1)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """``frames`` of a clip, which stand one after the other."""
        x = self.mid(self.conv_in(x), frames)
        for up in self.ups:
            x = up(x, frames)
        return self.conv_out(silu(self.norm_out(x)))


class Middle(nn.Module):
    """Residual block, attention in space, attention in time, residual block."""

    def __init__(self, channels: int, style: Style) -> None:
        super().__init__()
        self.first = Block(channels, channels, style)
        self.space = SpaceAttention(channels, style)
        self.time = TimeAttention(channels, style)
        self.last = Block(channels, channels, style)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """Same shape."""
        return self.last(self.time(self.space(self.first(x)), frames))


class Up(nn.Module):
    """Twice: residual block, attention in space, attention in time; then twice the height and width."""

    def __init__(self, before: int, after: int, style: Style, *, upsample: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(before, after, style), Block(after, after, style)])
        self.space = nn.ModuleList([SpaceAttention(after, style) for _ in range(2)])
        self.time = nn.ModuleList([TimeAttention(after, style) for _ in range(2)])
        self.conv = nn.Conv2d(after, after, 3, padding=1) if upsample else None

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(rows, before, h, w) to (rows, after, 2h, 2w), or h and w where nothing is upsampled."""
        for block, space, time in zip(self.blocks, self.space, self.time, strict=True):
            x = time(space(block(x)), frames)
        return x if self.conv is None else self.conv(interpolate(x, scale_factor=2.0, mode="nearest"))


class Block(nn.Module):
    """x + conv(conv(x)), normed before each."""

    def __init__(self, before: int, after: int, style: Style) -> None:
        super().__init__()
        self.norm1, self.norm2 = style.norm(before), style.norm(after)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.skip = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(rows, before, h, w) to (rows, after, h, w)."""
        return self.skip(x) + self.conv2(silu(self.norm2(self.conv1(silu(self.norm1(x))))))


class Attention(nn.Module):
    """Self-attention with one head, normed before; without the residual."""

    def __init__(self, channels: int, style: Style) -> None:
        super().__init__()
        self.norm = style.norm(channels)
        self.query, self.value, self.out = (nn.Linear(channels, channels) for _ in range(3))
        self.key = nn.Linear(channels, channels, bias=style.released)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, positions, channels) to the same."""
        x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        q, k, v = (layer(x)[:, None] for layer in (self.query, self.key, self.value))
        return self.out(scaled_dot_product_attention(q, k, v)[:, 0])


class SpaceAttention(nn.Module):
    """x + attention over the pixels of a frame."""

    def __init__(self, channels: int, style: Style) -> None:
        super().__init__()
        self.attention = Attention(channels, style)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, channels, h, w) to the same."""
        return x + self.attention(x.flatten(2).transpose(1, 2)).transpose(1, 2).view_as(x)


class TimeAttention(nn.Module):
    """w x + (1 - w) (x + attention over the frames of one place), w learned.

    The published w begins at 1, where the attention's own tensors have no gradient before w has moved. Here it begins a
    little below: nearly the identity, and everything learns from the first step.
    """

    def __init__(self, channels: int, style: Style) -> None:
        super().__init__()
        self.attention = Attention(channels, style)
        self.w = nn.Parameter(torch.tensor([1.0 if style.released else 0.9]))
        self.by_clip = style.grouping == "clip"

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """(clips · frames, channels, h, w) to the same."""
        span = frames if self.by_clip else max(len(x), 1)
        by_place = x.unflatten(0, (len(x) // span, span)).permute(0, 3, 4, 1, 2)
        rows = by_place.flatten(0, 2)
        rows = self.w * rows + (1 - self.w) * (rows + self.attention(rows))
        return rows.view(by_place.shape).permute(0, 3, 4, 1, 2).flatten(0, 1)
