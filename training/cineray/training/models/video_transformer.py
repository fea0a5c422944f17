"""A small transformer over the latents of a clip: attention within every frame, then over the frames of every place.

A diffusion transformer (DiT, arXiv 2212.09748) factorised over space and time as Latte (arXiv 2401.03048); time and
condition modulate all blocks through one layer and a table per block (PixArt-α's adaLN-single, arXiv 2310.00426).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, scaled_dot_product_attention

__all__ = ["VideoTransformer"]

GATE = 0.5
"""Of every branch at the start."""
PLACE_SD = 0.5
"""Of the first embeddings of places and frames; with 0.02 moving bars are learned half as well in as many steps."""
SLOWEST = 1e4
"""Period of the slowest wave that tells the diffusion time, over 2π."""


class VideoTransformer(nn.Module):
    """Noisy and blurry latents, diffusion time and a condition to one number for each noisy one."""

    def __init__(
        self, shape: tuple[int, ...], condition: tuple[int, int] | None, *, dim: int, depth: int, heads: int, patch: int
    ) -> None:
        """``shape`` (frames, channels, height, width), sides multiples of ``patch``; ``condition`` (tokens, dim)."""
        super().__init__()
        frames, channels, height, width = shape
        self.patch, self.dim, self.num_tokens = patch, dim, condition[0] if condition else 1
        self.grid = (height // patch, width // patch)
        self.patch_in = nn.Linear(2 * channels * patch**2, dim)
        self.place = nn.Parameter(PLACE_SD * torch.randn(math.prod(self.grid), dim))
        self.frame = nn.Parameter(PLACE_SD * torch.randn(frames, 1, dim))
        self.time = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.condition = nn.Linear(condition[1], dim) if condition else None
        self.no_condition = nn.Parameter(0.02 * torch.randn(dim))
        self.no_blurry = nn.Parameter(0.02 * torch.randn(dim))
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 9 * dim))
        self.blocks = nn.ModuleList([Block(dim, heads) for _ in range(depth)])
        self.out = nn.Linear(dim, channels * patch**2)

    def forward(
        self, noisy: Tensor, blurry: Tensor, times: Tensor, condition: Tensor | None, keep: Tensor, sharp: Tensor
    ) -> Tensor:
        """(rows, frames, channels, height, width).

        Args:
            noisy: latents, that shape.
            blurry: latents, that shape.
            times: (rows,) diffusion steps.
            condition: (rows, tokens, dim), or None.
            keep: (rows,) whether the condition counts.
            sharp: (rows,) whether there is no blurry video; its latents are then taken for zeros.
        """
        blurry = torch.where(sharp[:, None, None, None, None], 0.0, blurry)
        x = self.patch_in(self._patches(torch.cat([noisy, blurry], 2))) + self.place + self.frame
        tokens = self.no_condition.expand(len(x), self.num_tokens, -1)
        if self.condition is not None and condition is not None:
            tokens = torch.where(keep[:, None, None], self.condition(condition), tokens)
        pooled = self.time(waves(times, self.dim)) + tokens.mean(1) + sharp[:, None] * self.no_blurry
        modulation = self.modulation(pooled).unflatten(1, (9, 1, 1, -1))
        for block in self.blocks:
            x = block(x, tokens, modulation)
        return self._pixels(self.out(normed(x)))

    def _patches(self, x: Tensor) -> Tensor:
        """(rows, frames, channels, height, width) to (rows, frames, places, values)."""
        cut = x.unflatten(4, (self.grid[1], self.patch)).unflatten(3, (self.grid[0], self.patch))
        return cut.permute(0, 1, 3, 5, 2, 4, 6).flatten(4).flatten(2, 3)

    def _pixels(self, x: Tensor) -> Tensor:
        """The inverse of `_patches`."""
        cut = x.unflatten(3, (-1, self.patch, self.patch)).unflatten(2, self.grid)
        return cut.permute(0, 1, 4, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4)


class Block(nn.Module):
    """Attention in space (and to the condition), attention in time, two layers for each token."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.table = nn.Parameter(0.02 * torch.randn(9, 1, 1, dim))
        with torch.no_grad():
            self.table[2::3] += GATE
        self.space = Attention(dim, heads, condition=True)
        self.over_time = Attention(dim, heads)
        self.body = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(approximate="tanh"), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor, tokens: Tensor, modulation: Tensor) -> Tensor:
        """(rows, frames, places, dim) to the same; ``tokens`` (rows, tokens, dim)."""
        m = (modulation + self.table).unbind(1)
        x = x + m[2] * self.space(normed(x) * (1 + m[0]) + m[1], tokens)
        by_place = (normed(x) * (1 + m[3]) + m[4]).transpose(1, 2)
        x = x + m[5] * self.over_time(by_place).transpose(1, 2)
        return x + m[8] * self.body(normed(x) * (1 + m[6]) + m[7])


class Attention(nn.Module):
    """Over the last axis but one; with a condition, the same queries also look at its tokens (arXiv 2308.06721)."""

    def __init__(self, dim: int, heads: int, *, condition: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.seen = nn.Linear(dim, 2 * dim, bias=False) if condition else None
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> Tensor:
        """(rows, a, b, dim) to the same."""
        q, k, v = self.qkv(x).flatten(0, 1).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        found = scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        if self.seen is not None and tokens is not None:
            k, v = self.seen(tokens).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
            q = q.unflatten(0, x.shape[:2]).transpose(1, 2).flatten(2, 3)
            found = found + scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        return self.out(found)


def normed(x: Tensor) -> Tensor:
    """Layer norm without gains: the modulation has them."""
    return layer_norm(x, x.shape[-1:])


def waves(times: Tensor, dim: int) -> Tensor:
    """(rows,) to (rows, dim) sines and cosines."""
    rates = torch.exp(-math.log(SLOWEST) * torch.arange(dim // 2, device=times.device) / (dim // 2))
    angles = times.float()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], 1)
