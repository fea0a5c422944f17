"""The words of a command: what it is about, then ``key=value``."""

import re
from collections.abc import Mapping
from typing import Any

from cineray.core.config import parse_overrides
from cineray.core.errors import ConfigError

__all__ = ["changes_of", "first", "nested", "settings_of"]

DRY_RUN = "--dry-run"


def first(words: list[str], what: str, known: Mapping[str, object] | None = None) -> str:
    """The first word; ``what`` says what it should be, ``known`` which there are."""
    if not words or re.match(r"[\w.]+=", words[0]) or (known is not None and words[0] not in known):
        choices = f" ({', '.join(known)})" if known else ""
        raise ConfigError(f"found '{words[0] if words else 'nothing'}', expected {what}{choices}")
    return words[0]


def changes_of(words: list[str]) -> tuple[dict[str, Any], bool]:
    """Overrides after the first word, and whether only to show what would be done."""
    return parse_overrides([word for word in words[1:] if word != DRY_RUN]), DRY_RUN in words


def nested(changes: Mapping[str, Any]) -> dict[str, Any]:
    """``{"part.folder": x}`` to ``{"part": {"folder": x}}``."""
    found: dict[str, Any] = {}
    for key, value in changes.items():
        *path, last = key.split(".")
        inner = found
        for name in path:
            inner = inner.setdefault(name, {})
        inner[last] = value
    return found


def settings_of(words: list[str], **defaults: Any) -> dict[str, Any]:
    """The verb's own settings after the first word."""
    changes = parse_overrides(words[1:])
    if unknown := [key for key in changes if key not in defaults]:
        raise ConfigError(f"found setting '{unknown[0]}', expected one of {', '.join(defaults)}")
    return defaults | changes
