"""What stands between the subjects' shared space and the tokens."""

from typing import Literal

from torch import Tensor, nn

from cineray.training.models.read_in import Residual

__all__ = ["Mixer", "ReleasedMixer", "make_mixer"]

Mixer = Literal["none", "residual-mlp", "released"]
"""``none``; ``residual-mlp``, the residual blocks that the MindEye2 paper describes; ``released``, the blocks of its
code, which do nothing (`ReleasedMixer`) and are there to load public weights."""


def make_mixer(name: Mixer, dim: int, depth: int, dropout: float) -> nn.Module:
    """A module (batch, dim) to the same."""
    if name == "none":
        return nn.Identity()
    if name == "residual-mlp":
        return nn.Sequential(*[Residual(dim, 1, dropout) for _ in range(depth)])
    return ReleasedMixer(dim, depth, dropout)


class ReleasedMixer(nn.Module):
    """The mixer of MindEye2 and NeuroClips as released, for a sequence of one token.

    Two chains of residuals, across the units of the token and across the tokens. The second normalises an axis of
    length one, so whatever reaches it becomes a learned constant, and it is added to the *input*, not to the first
    chain's result: the output is the input plus one number a block (specs/neuroclips.md, section 2.2).
    """

    def __init__(self, dim: int, depth: int, dropout: float, *, linears: int = 2) -> None:
        """``linears``: layers of each block and chain; NeuroClips' frame expansion has one."""
        super().__init__()
        self.units = nn.ModuleList(_mlp(dim, dropout, linears) for _ in range(depth))
        self.tokens = nn.ModuleList(_mlp(1, dropout, linears) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, dim) to the same."""
        x = before = x[:, None]
        across_tokens = x.mT
        for units, tokens in zip(self.units, self.tokens, strict=True):
            before = units(x) + before
            across_tokens = tokens(before.mT) + across_tokens
            x = across_tokens.mT
        return x[:, 0]

    def without_gradient(self) -> set[str]:
        """Names of the parameters that never get gradient: the first chain, and the second's gains."""
        return {name for name, _ in self.named_parameters() if name.startswith("units.") or name.endswith(".0.weight")}


def _mlp(dim: int, dropout: float, linears: int) -> nn.Sequential:
    layers = [nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(dim, dim)]
    return nn.Sequential(*layers[: 3 + linears])
