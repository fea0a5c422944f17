"""How a run looks at a data set: which dataset, which subjects, which window of scans, which targets, which split."""

from pydantic import Field, model_validator

from cineray.core.config import Config
from cineray.core.errors import ConfigError
from cineray.datasets.split import SplitConfig

__all__ = ["ViewConfig", "Window"]


class Window(Config):
    """Scans around the one that carries a stimulus's response; both ends included. Edges repeat the outermost scan."""

    first: int = 0
    last: int = 0

    @model_validator(mode="after")
    def _ordered(self) -> "Window":
        if self.last < self.first:
            raise ConfigError(f"window ends at {self.last}, before its first scan {self.first}; swap them")
        return self

    @property
    def scans(self) -> int:
        """Scans in the window."""
        return self.last - self.first + 1


class ViewConfig(Config):
    """One run's view of one data set."""

    dataset: str
    """Folder or ``s3://bucket/prefix`` of a published data set."""
    subjects: tuple[str, ...] = ()
    """Subjects to use; empty means all of them."""
    window: Window = Window()
    targets: tuple[str, ...] = ("features",)
    split: SplitConfig
    normalise: bool = Field(default=True)
    """Z-score voxels and targets with statistics of the *training* rows of each subject (kept in the checkpoint)."""
