"""The registry of encoders: one file a family, one line here; the parametrised tests cover every member."""

from typing import Annotated

from pydantic import Field

from cineray.datasets.encoders.flow import FlowConfig
from cineray.datasets.encoders.pool import PoolConfig

__all__ = ["ENCODERS", "EncoderConfig"]

ENCODERS = (PoolConfig, FlowConfig)

EncoderConfig = Annotated[PoolConfig | FlowConfig, Field(discriminator="name")]
"""Settings of any encoder."""
