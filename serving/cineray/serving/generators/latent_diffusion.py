"""A small video diffusion model that cineray has trained itself, on the training films: no weights from elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from cineray.core.config import Config
from cineray.core.errors import ConfigError, DataError
from cineray.core.storage import Store
from cineray.datasets.normaliser import Moments
from cineray.serving.generators.base import Condition
from cineray.serving.generators.codecs import Codec
from cineray.serving.generators.pictures import noise
from cineray.serving.library import Library
from cineray.training.models.video_diffusion import VideoDiffusion
from cineray.training.predict import restore

__all__ = ["LatentDiffusionConfig", "LatentDiffusionGenerator"]


class LatentDiffusionConfig(Config):
    """Settings of the generator over a run of model ``video_diffusion``."""

    name: Literal["latent_diffusion"] = "latent_diffusion"
    run_dir: str
    steps: int = Field(default=20, ge=1)
    guidance: float = Field(default=1.0, ge=0)
    """Towards the tokens, away from a sample without them; other than 1 doubles the cost."""
    strength: float = Field(default=0.5, ge=0, le=1)
    """How far a video may go from the blurry one: 0 leaves that as it is, 1 starts from noise. To be chosen on
    validation data."""

    def build(
        self, *, library: Library, codec: Codec, tokens: str, latents: str, device: str
    ) -> "LatentDiffusionGenerator":
        """Load the run, to sample from what is predicted of the targets ``tokens`` and ``latents``.

        Raises:
            ConfigError: it is a run of another model, data set or split, or on other targets.
        """
        store = Store.at(self.run_dir)
        restored = restore(store, device=device)
        if not isinstance(restored.model, VideoDiffusion):
            raise ConfigError(
                f"{store.url} is a run of model '{restored.run.model.name}', expected 'video_diffusion'; name another"
            )
        if restored.run.view.split != library.split:
            raise ConfigError(f"{store.url} was trained on another split than the reconstructors; train it again")
        if restored.data != library.dataset.fingerprint_of(restored.run.view.targets):
            raise ConfigError(f"{store.url} was trained on another data set than the reconstructors; train it again")
        known = restored.normaliser.targets if restored.normaliser else {}
        config = restored.model.config
        if (config.target, config.condition or tokens) != (latents, tokens):
            raise ConfigError(
                f"{store.url} makes '{config.target}' of '{config.condition}', the reconstructors predict '{latents}' "
                f"and '{tokens}'; train it on those (model.target, model.condition)"
            )
        return LatentDiffusionGenerator(
            self,
            restored.model,
            known.get(config.target),
            known.get(config.condition or ""),
            codec,
            library.fps * restored.model.shape[0] / library.shape[0],
            torch.device(device),
        )


@dataclass(frozen=True)
class LatentDiffusionGenerator:
    """`cineray.serving.generators.base.Generator` over a trained `VideoDiffusion`."""

    config: LatentDiffusionConfig
    model: VideoDiffusion
    latents: Moments | None
    """Of the latents, where training z-scored them."""
    condition: Moments | None
    """Of the target that tells what is seen, likewise."""
    codec: Codec
    fps: float
    device: torch.device

    def keyframes(self, conditions: Sequence[Condition]) -> NDArray[np.uint8]:
        """The middle frames of videos made of the tokens alone."""
        found = self._sample(conditions, None, strength=1.0)
        return np.stack([self.codec.decode(clip)[len(clip) // 2] for clip in found])

    def videos(self, conditions: Sequence[Condition], keyframes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """From the blurry latents and the tokens; the keyframes are of the same tokens and not looked at again."""
        if any(c.first_frame is not None for c in conditions):
            raise DataError("generator 'latent_diffusion' cannot go on from a frame; leave the link out (link=null)")
        given = [c.latents for c in conditions if c.latents is not None]
        blurry = torch.stack(given) if given else None
        strength = 1.0 if blurry is None else self.config.strength
        return np.stack([self.codec.decode(clip) for clip in self._sample(conditions, blurry, strength)])

    def _sample(self, conditions: Sequence[Condition], blurry: Tensor | None, strength: float) -> Tensor:
        """Latents (clips, frames, channels, height, width) in the units of the stored target."""
        generators = [torch.Generator().manual_seed(c.seed) for c in conditions]
        made = self.model.sample(
            noise(generators, self.model.shape, self.device),
            blurry=None if blurry is None else _scaled(blurry.to(self.device), self.latents),
            condition=self._tokens(conditions),
            steps=self.config.steps,
            guidance=self.config.guidance,
            strength=strength,
        )
        return (self.latents.restore(made) if self.latents else made).cpu()

    def _tokens(self, conditions: Sequence[Condition]) -> Tensor | None:
        if self.model.config.condition is None or conditions[0].tokens is None:
            return None
        tokens = torch.stack([c.tokens for c in conditions if c.tokens is not None]).to(self.device)
        if self.condition is None:
            return tokens
        return self.condition.scale(tokens.reshape(len(tokens), *self.condition.mean.shape)).reshape(tokens.shape)


def _scaled(x: Tensor, moments: Moments | None) -> Tensor:
    return moments.scale(x) if moments else x
