"""The settings that name published weights; what is in them, `cineray.training.published` knows."""

from pathlib import Path
from typing import Literal

from pydantic import field_validator
from torch import nn

from cineray.core.config import Config

__all__ = ["PublishedConfig"]


class PublishedConfig(Config):
    """Weights that a run begins with."""

    file: str
    """Where they lie (`cineray.training.published.read_published`); made absolute, for Ray's processes work in folders
    of their own."""
    parts: tuple[Literal["ridge", "backbone", "text", "prior"], ...]
    subjects: tuple[str, ...] = ()
    """Whose the ridges of the file are, in order."""
    selected_on_test: bool = True
    """Whether its publishers chose it by scores on the test split, as those of NeuroClips' first stages are; stands
    beside every score that comes of it. False only where they did not, as with MindEye2's ``last.pth``."""

    @field_validator("file")
    @classmethod
    def _absolute(cls, file: str) -> str:
        return str(Path(file).expanduser().absolute())

    def load(self, model: nn.Module) -> None:
        """See `cineray.training.published.load_published`."""
        from cineray.training.published import load_published, read_published  # it knows the models that have this

        load_published(model, read_published(Path(self.file)), self.parts, self.subjects)
