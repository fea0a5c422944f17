"""How a run looks at a data set: which dataset, which subjects, which window of scans, which targets, which split."""

from pydantic import Field, model_validator

from cineray.core.config import Config
from cineray.core.errors import ConfigError
from cineray.datasets.split import SplitConfig
from cineray.datasets.window import Window

__all__ = ["ViewConfig", "Window"]


class ViewConfig(Config):
    """One run's view of one data set."""

    dataset: str
    """Folder or ``s3://bucket/prefix`` of a published data set."""
    subjects: tuple[str, ...] = ()
    """Subjects to use; empty means all of them."""
    window: Window = Window()
    targets: tuple[str, ...] = ("features",)
    raw_targets: tuple[str, ...] = ()
    """Targets used as they are stored: features whose angles and scale mean something, as CLIP tokens and latents."""
    split: SplitConfig
    normalise: bool = Field(default=True)
    """Z-score voxels and targets with statistics of the *training* rows of each subject (kept in the checkpoint)."""

    @property
    def scaled_targets(self) -> tuple[str, ...]:
        """Targets that are z-scored."""
        return tuple(name for name in self.targets if name not in self.raw_targets) if self.normalise else ()

    @model_validator(mode="after")
    def _known(self) -> "ViewConfig":
        if strange := set(self.raw_targets) - set(self.targets):
            raise ConfigError(
                f"view.raw_targets names '{min(strange)}', which is not among view.targets "
                f"({', '.join(self.targets)}); add it there or leave it out"
            )
        return self
