"""From one vector a row to the tokens of an image: where nearly all parameters of a semantic reconstructor are."""

from typing import Literal

from torch import nn

__all__ = ["TokenHead", "make_projector", "make_token_head"]

TokenHead = Literal["full", "low_rank", "tokenwise"]
"""``full``, one linear layer as published; ``low_rank``, the same through a bottleneck of ``rank`` numbers a row;
``tokenwise``, ``rank`` numbers for every token, which one layer for all tokens then widens."""


def make_token_head(name: TokenHead, dim: int, tokens: int, width: int, rank: int) -> nn.Module:
    """A module (batch, dim) to (batch, tokens, width).

    Parameters: ``full`` (dim + 1) tokens width; ``low_rank`` dim rank + (rank + 1) tokens width; ``tokenwise``
    (dim + 1) tokens rank + (rank + 1) width.
    """
    shaped = nn.Unflatten(1, (tokens, -1))
    if name == "full":
        return nn.Sequential(nn.Linear(dim, tokens * width), shaped)
    if name == "low_rank":
        return nn.Sequential(nn.Linear(dim, rank, bias=False), nn.Linear(rank, tokens * width), shaped)
    return nn.Sequential(nn.Linear(dim, tokens * rank), shaped, nn.Linear(rank, width))


def make_projector(width: int) -> nn.Module:
    """(batch, tokens, width) to the same, token by token: three times LayerNorm, GELU, Linear (MindEye2)."""
    steps = [[nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width)] for _ in range(3)]
    return nn.Sequential(*[layer for step in steps for layer in step])
