"""The registry of sources: one file a source, one line here; the parametrised tests cover every member."""

from typing import Annotated

from pydantic import Field

from cineray.datasets.sources.arrays import ArraysConfig
from cineray.datasets.sources.derivatives import DerivativesConfig
from cineray.datasets.sources.song import SongConfig
from cineray.datasets.sources.synthetic import SyntheticConfig

__all__ = ["SOURCES", "SourceConfig"]

SOURCES = (SyntheticConfig, SongConfig, ArraysConfig, DerivativesConfig)

SourceConfig = Annotated[SyntheticConfig | SongConfig | ArraysConfig | DerivativesConfig, Field(discriminator="name")]
