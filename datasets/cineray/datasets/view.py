"""How a run looks at a data set: which dataset, which subjects, which window of scans, which targets, which split."""

from pydantic import Field

from cineray.core.config import Config
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
    split: SplitConfig
    normalise: bool = Field(default=True)
    """Z-score voxels and targets with statistics of the *training* rows of each subject (kept in the checkpoint)."""
