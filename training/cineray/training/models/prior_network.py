"""The network of the diffusion prior: noisy image tokens and brain tokens in, clean image tokens out.

The design of DALL·E 2's prior (arXiv 2204.06125, section 2.2) as MindEye2 and NeuroClips use it: one sequence of brain
tokens, diffusion time and noisy image tokens, a transformer that is not causal, the clean tokens at the places of the
noisy ones (specs/mindeye2.md, section 4). The arithmetic is that of the published weights, quirks included.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, pad, scaled_dot_product_attention, silu

__all__ = ["PriorNetwork", "relative_buckets", "rotary_angles"]

LOGIT_SCALE = 16.0
"""Attention compares directions only; this is how sharply."""
ROTARY_DIMS = 32
"""The first so many numbers of a query or key turn with its place (Su et al., arXiv 2104.09864)."""
BUCKETS, MAX_DISTANCE = 32, 128
"""Of the relative bias (T5, arXiv 1910.10683)."""


class PriorNetwork(nn.Module):
    """Estimates clean tokens (batch, tokens, dim) from noisy ones, the time, and the brain's."""

    def __init__(self, tokens: int, dim: int, depth: int, heads: int, head_dim: int, width: int | None = None) -> None:
        """``width`` of the sequence; None is ``dim``, as published, without layers that lead there."""
        super().__init__()
        width, given = width or dim, width
        self.width, self.tokens = width, tokens
        self.turning = min(ROTARY_DIMS, head_dim)
        self.null_brain = nn.Parameter(torch.randn(tokens, dim))
        self.null_image = nn.Parameter(torch.randn(tokens, dim))
        self.brain_in = nn.Linear(dim, width) if given else nn.Identity()
        self.image_in = nn.Linear(dim, width) if given else nn.Identity()
        self.place = nn.Parameter(torch.randn(tokens, width) * width**-0.5)
        self.time = nn.Sequential(
            nn.Linear(width, 2 * width),
            nn.SiLU(),
            nn.Linear(2 * width, 2 * width),
            nn.SiLU(),
            nn.Linear(2 * width, width),
        )
        self.bias = nn.Embedding(BUCKETS, heads)
        self.layers = nn.ModuleList([Layer(width, heads, head_dim) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, bias=False)
        self.out = nn.Linear(width, dim, bias=False)

    def forward(
        self,
        noisy: Tensor,
        times: Tensor,
        brain: Tensor,
        keep_brain: Tensor | None = None,
        keep_image: Tensor | None = None,
    ) -> Tensor:
        """Clean tokens.

        Args:
            noisy: (batch, tokens, dim).
            times: (batch,) diffusion steps.
            brain: (batch, tokens, dim).
            keep_brain: (batch,) bool, False where learned null tokens take the brain's place; None keeps all.
            keep_image: the same for the noisy tokens.
        """
        brain = self.brain_in(_kept(brain, self.null_brain, keep_brain))
        image = self.image_in(_kept(noisy, self.null_image, keep_image).to(brain.dtype)) + self.place
        time = self.time(sinusoids(times, self.width).to(brain.dtype))
        x = torch.cat([brain, time[:, None], image.to(brain.dtype)], dim=1)
        num = x.shape[1]
        bias = self.bias(relative_buckets(num, num + 1).to(x.device)).permute(2, 0, 1)[None]
        angles = rotary_angles(num, self.turning).to(x.device)
        for layer in self.layers:
            x = layer(x, bias, angles)
        x = x[:, -self.tokens :]
        # Published: divided by the largest value first, against overflow in half precision.
        return self.out(self.norm(x / x.amax(-1, keepdim=True).detach()))


class Layer(nn.Module):
    """Attention with one key and one value for all heads, then a SwiGLU feed-forward; both residual."""

    def __init__(self, dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, head_dim
        self.attention_norm = nn.LayerNorm(dim, bias=False)
        self.query = nn.Linear(dim, heads * head_dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * head_dim, bias=False)
        self.null_key_value = nn.Parameter(torch.randn(2, head_dim))
        self.attention_out = nn.Linear(heads * head_dim, dim, bias=False)
        self.attention_out_norm = nn.LayerNorm(dim, bias=False)
        self.forward_norm = nn.LayerNorm(dim, bias=False)
        self.forward_in = nn.Linear(dim, 8 * dim, bias=False)
        self.forward_out = nn.Linear(4 * dim, dim, bias=False)

    def forward(self, x: Tensor, bias: Tensor, angles: Tensor) -> Tensor:
        """(batch, places, dim) to the same; ``bias`` (1, heads, places, 1 + places), ``angles`` (places, dims / 2)."""
        x = x + self._attend(self.attention_norm(x), bias, angles)
        values, gates = self.forward_in(self.forward_norm(x)).chunk(2, dim=-1)
        return x + self.forward_out(values * silu(gates))

    def _attend(self, x: Tensor, bias: Tensor, angles: Tensor) -> Tensor:
        query = self.query(x).unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)
        key, value = self.key_value(x).chunk(2, dim=-1)
        null_key, null_value = (null.expand(len(x), 1, -1) for null in self.null_key_value.to(x.dtype))
        key = torch.cat([null_key, rotated(key, angles)], dim=1)[:, None]
        value = torch.cat([null_value, value], dim=1)[:, None]
        query, key = normalize(rotated(query, angles), dim=-1), normalize(key, dim=-1)
        shape = (-1, self.heads, -1, -1)
        attended = scaled_dot_product_attention(
            query, key.expand(shape), value.expand(shape), attn_mask=bias.to(query.dtype), scale=LOGIT_SCALE
        )
        return self.attention_out_norm(self.attention_out(attended.transpose(1, 2).flatten(2)))


def sinusoids(times: Tensor, dim: int) -> Tensor:
    """(batch,) steps to (batch, dim): sines, then cosines, at wavelengths of 2π to 20000π."""
    half = dim // 2
    rates = torch.exp(torch.arange(half, device=times.device) * (-math.log(10000) / max(half - 1, 1)))
    turns = times.float()[:, None] * rates
    return pad(torch.cat([turns.sin(), turns.cos()], dim=1), (0, dim % 2))


def rotary_angles(places: int, dims: int) -> Tensor:
    """(places, dims / 2): by how much the pairs of neighbouring numbers turn."""
    rates = 10000.0 ** (-torch.arange(0, dims, 2).float() / dims)
    return torch.arange(places)[:, None] * rates


def rotated(x: Tensor, angles: Tensor) -> Tensor:
    """(..., places, dim) with the first 2 × angles of its last axis turned in pairs of neighbours."""
    turning, still = x.tensor_split([2 * angles.shape[-1]], dim=-1)
    a, b = turning.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = angles.cos(), angles.sin()
    turned = torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)
    return torch.cat([turned.to(x.dtype), still], dim=-1)


def relative_buckets(queries: int, keys: int) -> Tensor:
    """(queries, keys) int64: exact distances back to 15, then ever wider ranges; all keys ahead share bucket 0.

    Made for causal attention; published weights use it without. The null key is the first, so key j is place j - 1.
    """
    back = (torch.arange(queries)[:, None] - torch.arange(keys)).clamp(min=0)
    exact = BUCKETS // 2
    far = (back.clamp(min=1).float() / exact).log() / math.log(MAX_DISTANCE / exact) * (BUCKETS - exact)
    return torch.where(back < exact, back, (exact + far.long()).clamp(max=BUCKETS - 1))


def _kept(tokens: Tensor, null: Tensor, keep: Tensor | None) -> Tensor:
    return tokens if keep is None else torch.where(keep[:, None, None], tokens, null.to(tokens.dtype))
