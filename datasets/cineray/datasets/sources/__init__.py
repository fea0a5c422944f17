"""The registry of sources: one file a source, one line here; the parametrised tests cover every member."""

from typing import Annotated

from pydantic import Field

from cineray.datasets.sources.arrays import ArraysConfig
from cineray.datasets.sources.bold_moments import BoldMomentsConfig
from cineray.datasets.sources.cc2017 import Cc2017Config
from cineray.datasets.sources.derivatives import DerivativesConfig
from cineray.datasets.sources.nsd import NsdConfig
from cineray.datasets.sources.song import SongConfig
from cineray.datasets.sources.synthetic import SyntheticConfig
from cineray.datasets.sources.watched import WatchedConfig

__all__ = ["SOURCES", "SourceConfig"]

SOURCES = (
    SyntheticConfig,
    WatchedConfig,
    SongConfig,
    ArraysConfig,
    DerivativesConfig,
    NsdConfig,
    BoldMomentsConfig,
    Cc2017Config,
)

SourceConfig = Annotated[
    SyntheticConfig
    | WatchedConfig
    | SongConfig
    | ArraysConfig
    | DerivativesConfig
    | NsdConfig
    | BoldMomentsConfig
    | Cc2017Config,
    Field(discriminator="name"),
]
