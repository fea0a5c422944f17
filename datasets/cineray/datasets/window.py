"""Scans around the one that carries a stimulus's response."""

from pydantic import model_validator

from cineray.core.config import Config
from cineray.core.errors import ConfigError

__all__ = ["Window"]


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
