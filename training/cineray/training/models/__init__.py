"""The registry of models: one file a model, one line here; the parametrised tests cover every member."""

from typing import Annotated

from pydantic import Field

from cineray.training.models.chance import ChanceConfig
from cineray.training.models.matched_filter import MatchedFilterConfig
from cineray.training.models.mean_of_others import MeanOfOthersConfig
from cineray.training.models.perception import PerceptionConfig
from cineray.training.models.pooled_ridge import PooledRidgeConfig
from cineray.training.models.prior import PriorConfig
from cineray.training.models.ridge import RidgeConfig
from cineray.training.models.semantic import SemanticConfig
from cineray.training.models.shared import SharedConfig
from cineray.training.models.srm import SRMConfig
from cineray.training.models.video_diffusion import VideoDiffusionConfig

__all__ = ["MODELS", "ModelConfig"]

MODELS = (
    SharedConfig,
    PerceptionConfig,
    RidgeConfig,
    SRMConfig,
    MeanOfOthersConfig,
    PooledRidgeConfig,
    MatchedFilterConfig,
    ChanceConfig,
    SemanticConfig,
    PriorConfig,
    VideoDiffusionConfig,
)

ModelConfig = Annotated[
    SharedConfig
    | PerceptionConfig
    | RidgeConfig
    | SRMConfig
    | MeanOfOthersConfig
    | PooledRidgeConfig
    | MatchedFilterConfig
    | ChanceConfig
    | SemanticConfig
    | PriorConfig
    | VideoDiffusionConfig,
    Field(discriminator="name"),
]
