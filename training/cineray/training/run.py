"""A whole run in one frozen value: what a recipe returns, what `run.yaml` holds, what Tune searches over."""

from pydantic import Field, model_validator

from cineray.core.config import Config
from cineray.core.errors import ConfigError
from cineray.core.storage import Store
from cineray.datasets.view import ViewConfig
from cineray.training.losses import LossConfig, MSEConfig
from cineray.training.models import ModelConfig
from cineray.training.models.shared import SharedConfig
from cineray.training.optim import OptimConfig
from cineray.training.strategies import StrategyConfig

__all__ = ["EvaluationConfig", "FaultConfig", "Run", "StartConfig"]


class FaultConfig(Config):
    """What happens when a worker dies."""

    max_failures: int = 3
    checkpoint_every_steps: int = Field(default=100, ge=1)
    keep: int = Field(default=2, ge=1)


class StartConfig(Config):
    """Begin with the shared layers of another run instead of random ones (`cineray.training.adapt`)."""

    run_dir: str
    """Folder of a trained run; its best checkpoint on validation data counts."""
    freeze: bool = True
    """Whether what was loaded stays as it is: only the subjects' own layers learn, or all but the part."""
    part: str = ""
    """Part of the model that is the other run's whole model, its subjects' layers included; empty: the shared layers
    of a model of the same kind."""


class EvaluationConfig(Config):
    """How predictions are scored (cineray.training.evaluate)."""

    clip_s: float = Field(default=20.0, gt=0)
    """Length of the clips that retrieval tells apart."""
    num_bootstrap: int = Field(default=2000, ge=1)
    num_null: int = Field(default=7, ge=1)
    """Shuffles per run for the null."""


class Run(Config):
    """Everything that decides a result."""

    name: str
    seed: int = 0
    view: ViewConfig
    model: ModelConfig = SharedConfig()
    losses: tuple[LossConfig, ...] = (MSEConfig(),)
    optim: OptimConfig = OptimConfig()
    strategy: StrategyConfig = StrategyConfig()
    num_workers: int = Field(default=1, ge=1)
    fault: FaultConfig = FaultConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    start: StartConfig | None = None

    def located(self) -> "Run":
        """The same run with absolute folders: Ray's processes work in folders of their own."""
        view = self.view.model_copy(update={"dataset": Store.at(self.view.dataset).url})
        start = self.start and self.start.model_copy(update={"run_dir": Store.at(self.start.run_dir).url})
        return self.model_copy(update={"view": view, "start": start})

    @model_validator(mode="after")
    def _spread(self) -> "Run":
        if self.num_workers > 1 and self.strategy.name == "plain":
            raise ConfigError(
                f"found {self.num_workers} workers under strategy plain, which is one process; "
                f"set strategy.name to ddp, fsdp2 or zero0 to zero3"
            )
        return self

    @model_validator(mode="after")
    def _aimed(self) -> "Run":
        for number, loss in enumerate(self.losses):
            if loss.target not in self.view.targets:
                raise ConfigError(
                    f"loss '{loss.name}' is on target '{loss.target}', the view has {', '.join(self.view.targets)}; "
                    f"set losses.{number}.target or view.targets"
                )
        return self
