"""Generators: conditions to keyframes and videos. `GeneratorConfig` is the registry.

Diffusers and transformers are imported where they are used: they take seconds, which the light generator, every actor
of a reconstruction included, does not wait for.
"""

from typing import Annotated

from pydantic import Field

from cineray.serving.generators.animatediff import AnimateDiffConfig
from cineray.serving.generators.latent_diffusion import LatentDiffusionConfig
from cineray.serving.generators.nearest import NearestConfig
from cineray.serving.generators.video_dit import VideoDitConfig

__all__ = ["GeneratorConfig"]

GeneratorConfig = Annotated[
    NearestConfig | LatentDiffusionConfig | AnimateDiffConfig | VideoDitConfig, Field(discriminator="name")
]
