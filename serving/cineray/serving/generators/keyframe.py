"""Keyframes from predicted image tokens, by the engines that `KeyframeConfig` lists."""

from collections.abc import Sequence
from typing import Annotated, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cineray.serving.generators.accepts import Accepts
from cineray.serving.generators.base import Condition
from cineray.serving.generators.ip_adapter import IPAdapterConfig
from cineray.serving.generators.unclip import UnclipConfig

__all__ = ["IPAdapterConfig", "KeyframeConfig", "Keyframer", "UnclipConfig"]


class Keyframer(Protocol):
    """Conditions to one picture each."""

    @property
    def accepts(self) -> Accepts:
        """The image tokens that it was trained on."""
        ...

    def __call__(self, conditions: Sequence[Condition]) -> NDArray[np.uint8]:
        """Pictures, sRGB (clips, height, width, 3)."""
        ...


KeyframeConfig = Annotated[UnclipConfig | IPAdapterConfig, Field(discriminator="name")]
