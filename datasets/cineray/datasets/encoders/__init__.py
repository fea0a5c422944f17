"""The registry of encoders: one file a family, one line here; the parametrised tests cover every member."""

from typing import Annotated

from pydantic import Field

from cineray.datasets.encoders.captions import BlipConfig
from cineray.datasets.encoders.clip import HFClipConfig, OpenClipConfig
from cineray.datasets.encoders.flow import FlowConfig
from cineray.datasets.encoders.gradients import GradientsConfig
from cineray.datasets.encoders.motion import MotionConfig
from cineray.datasets.encoders.pool import PoolConfig
from cineray.datasets.encoders.taef2 import Taef2Config
from cineray.datasets.encoders.text import HFClipTextConfig, OpenClipTextConfig
from cineray.datasets.encoders.tflite import TFLiteConfig
from cineray.datasets.encoders.vae import VaeConfig
from cineray.datasets.encoders.words import WordsConfig

__all__ = ["ENCODERS", "EncoderConfig"]

ENCODERS = (
    PoolConfig,
    FlowConfig,
    MotionConfig,
    GradientsConfig,
    WordsConfig,
    OpenClipConfig,
    HFClipConfig,
    OpenClipTextConfig,
    HFClipTextConfig,
    VaeConfig,
    Taef2Config,
    BlipConfig,
    TFLiteConfig,
)

EncoderConfig = Annotated[
    PoolConfig
    | FlowConfig
    | MotionConfig
    | GradientsConfig
    | WordsConfig
    | OpenClipConfig
    | HFClipConfig
    | OpenClipTextConfig
    | HFClipTextConfig
    | VaeConfig
    | Taef2Config
    | BlipConfig
    | TFLiteConfig,
    Field(discriminator="name"),
]
"""Settings of any encoder."""
