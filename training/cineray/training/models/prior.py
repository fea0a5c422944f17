"""The diffusion prior: from tokens decoded from brains to tokens that an image could have.

A semantic reconstructor's tokens are blurred means; a generator wants tokens as its image encoder makes them. The prior
draws those, given the former (MindEye2, arXiv 2403.11207, section 2.3; specs/mindeye2.md, section 4).
"""

from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from cineray.core.config import Config
from cineray.core.errors import ConfigError
from cineray.training.models.base import Generative, Sizes, Trial
from cineray.training.models.prior_network import PriorNetwork
from cineray.training.models.prior_sampler import NUM_STEPS, Sampler, noised, sample
from cineray.training.models.published_config import PublishedConfig
from cineray.training.models.semantic import SemanticConfig, tokens_shape

__all__ = ["PriorConfig", "PriorDecoder"]


class PriorConfig(Config):
    """Settings of the diffusion prior; the defaults are the published ones."""

    name: Literal["prior"] = "prior"
    semantic: SemanticConfig = SemanticConfig()
    """The reconstructor below, whose target is the prior's; trained before (``start.part = semantic``) or along."""
    condition: Literal["projected", "backbone"] = "projected"
    """Which of the reconstructor's tokens are given: those behind the projector (NeuroClips) or before (MindEye2)."""
    width: int | None = Field(default=None, ge=2)
    """Of the network; None is the tokens' own. Narrow tokens want more: the network knows directions only, and few
    numbers have few of them."""
    depth: int = Field(default=6, ge=1)
    heads: int = Field(default=32, ge=1)
    head_dim: int = Field(default=52, ge=2, multiple_of=2)
    drop: float = Field(default=0.2, ge=0, lt=1)
    """How often learned null tokens take the place of the brain's, and, independently, of the noisy image's."""
    sampler: Sampler = "ddim"
    steps: int = Field(default=20, ge=2, le=NUM_STEPS)
    eta: float = Field(default=1.0, ge=0, le=1)
    """Noise drawn anew at each step; 0 leaves only that of the start."""
    guidance: float = 1.0
    """Away from the estimate without brain and image by this factor; other than 1 doubles the cost."""
    noise_seed: int = 0
    """Of the noise from which every row is drawn."""
    published: tuple[PublishedConfig, ...] = ()
    """Weights of others to begin with, the reconstructor's among them."""

    @model_validator(mode="after")
    def _loaded_here(self) -> "PriorConfig":
        if self.semantic.published:
            raise ConfigError(
                "found model.semantic.published, expected it as model.published: one place loads the whole"
            )
        if self.sampler == "ddim" and NUM_STEPS % self.steps:
            raise ConfigError(
                f"model.steps is {self.steps}, expected a divisor of {NUM_STEPS} (10, 20, 25, 50): the sampler goes in "
                "equal steps"
            )
        return self

    def build(self, sizes: Sizes) -> "PriorDecoder":
        """Make the network for these subjects and targets."""
        return PriorDecoder(self, sizes)


class PriorDecoder(Generative):
    """A semantic reconstructor and a prior on its tokens.

    Outputs are the reconstructor's, the tokens drawn by the prior (estimated from noised ones in training); the
    reconstructor's own are called ``retrieval``.
    """

    def __init__(self, config: PriorConfig, sizes: Sizes) -> None:
        super().__init__()
        self.config = config
        self.target = config.semantic.target
        self.shape = tokens, dim = tokens_shape(sizes, self.target)
        self.semantic = config.semantic.build(sizes)
        self.network = PriorNetwork(tokens, dim, config.depth, config.heads, config.head_dim, config.width)

    def forward(self, brain: Mapping[str, Tensor], targets: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """See `Generative`."""
        found = self.semantic.decode(brain)
        given = found.projected if self.config.condition == "projected" else found.backbone
        if targets is None:
            tokens = self._drawn(given)
        else:
            tokens = self._estimated(targets[self.target].float().reshape(given.shape), given)
        made = {self.target: tokens, "retrieval": found.projected}
        out = {name: values.reshape(len(values), *self.semantic.shape) for name, values in made.items()}
        return {**out, **self.semantic.beside(found)}

    def fit(self, trials: Iterable[Trial]) -> None:
        """See `ClosedForm`: not solved, but loaded."""
        for weights in self.config.published:
            weights.load(self)

    def train(self, mode: bool = True) -> "PriorDecoder":
        """A reconstructor that is not trained along conditions the prior as it will when it predicts: no dropout."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.semantic.parameters()):
            self.semantic.eval()
        return self

    def _estimated(self, clean: Tensor, given: Tensor) -> Tensor:
        """Clean tokens from ones noised to a random time."""
        rows, device = len(clean), clean.device
        noise = torch.randn_like(clean)
        times = torch.randint(NUM_STEPS, (rows,), device=device)
        drop = self.config.drop if self.training else 0.0
        keep_brain, keep_image = torch.rand(2, rows, device=device) >= drop
        return self.network(noised(clean, times, noise), times, given, keep_brain, keep_image).float()

    @torch.no_grad()
    def _drawn(self, given: Tensor) -> Tensor:
        """Tokens drawn from the same noise for every row."""
        config = self.config
        generator = torch.Generator().manual_seed(config.noise_seed)
        noise = torch.randn(1 + config.steps, 1, *self.shape, generator=generator).to(given.device)
        nobody = torch.zeros(len(given), dtype=torch.bool, device=given.device)

        def denoise(noisy: Tensor, times: Tensor) -> Tensor:
            clean = self.network(noisy, times, given).float()
            if config.guidance == 1:
                return clean
            without = self.network(noisy, times, given, nobody, nobody).float()
            return without + (clean - without) * config.guidance

        noise = noise.expand(-1, len(given), -1, -1)
        return sample(denoise, noise, sampler=config.sampler, eta=config.eta)
