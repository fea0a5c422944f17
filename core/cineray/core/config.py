"""Settings: frozen, strict, overridable by dotted key, with a fingerprint.

Every component's settings derive from `Config` and stand above what they build.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticSerializationError

from cineray.core.config_errors import models_at, sentence
from cineray.core.content import BY_CONTENT
from cineray.core.errors import ConfigError

__all__ = ["Config", "parse_overrides", "recorded_fingerprint"]


class Config(BaseModel):
    """Frozen settings; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
    example: ClassVar[str] = ""
    """Words that give these settings, ``{key}`` for where they stand; errors show them."""

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Validate plain values; the error names the key, what was found and what was expected."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(sentence(cls, values, error)) from None

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a YAML file written by `dump` (or by hand)."""
        return cls.loads(Path(path).read_bytes(), origin=str(path))

    @classmethod
    def loads(cls, text: str | bytes, *, origin: str = "text") -> Self:
        """Read YAML text; ``origin`` names it in errors."""
        try:
            values = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"{origin} is not valid YAML ({_problem(error)}); repair it or write a new one") from None
        if not isinstance(values, dict):
            raise ConfigError(f"{origin} holds {type(values).__name__}, expected a mapping of settings")
        values.pop("fingerprint", None)
        return cls.parse(values)

    def dump(self, fingerprint: str | None = None) -> str:
        """YAML with every default resolved, and as last line a fingerprint: by default that of the settings alone."""
        values = self.model_dump(mode="json") | {"fingerprint": fingerprint or self.fingerprint()}
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)

    def override(self, changes: Mapping[str, Any]) -> Self:
        """A copy with dotted keys replaced, e.g. ``{"model.depth": 3, "model": {"name": "ridge"}}``.

        A changed ``name`` below the top chooses another member of a union, so the old member's settings are dropped.
        """
        values = self.model_dump(mode="json")
        # Names first: they decide which other keys exist.
        for key in sorted(changes, key=lambda k: (not k.endswith("name"), k.count("."))):
            _set(type(self), values, key.split("."), changes[key], key)
        return self.parse(values)

    def fingerprint(self) -> str:
        """First 16 hex digits of the sha256 of the canonical JSON of `by_content`."""
        canonical = json.dumps(self.by_content(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def by_content(self, exclude: Any = None) -> dict[str, Any]:
        """Plain values of all settings but those of ``exclude`` (as of `model_dump`), a `Local` by its content.

        Raises:
            StorageError: what lies there cannot be read.
        """
        try:
            return self.model_dump(mode="json", context=BY_CONTENT, exclude=exclude)
        except PydanticSerializationError as error:  # pydantic wraps what a serialiser raises
            raise (error.__cause__ or error) from None


def recorded_fingerprint(text: str | bytes) -> str | None:
    """The fingerprint in YAML that `Config.dump` wrote."""
    return yaml.safe_load(text).get("fingerprint")


def parse_overrides(words: list[str]) -> dict[str, Any]:
    """``["optim.lr=1e-3", "subjects=[a, b]"]`` to a dict; values are YAML (and ``1e-3`` is a number)."""
    changes: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"found argument '{word}', expected key=value, for example optim.lr=0.001")
        try:
            changes[key] = _scalar(text)
        except yaml.YAMLError as error:
            raise ConfigError(
                f"found argument '{word}', expected a value in YAML ({_problem(error)}); quote it"
            ) from None
    return changes


def _scalar(text: str) -> Any:
    value = yaml.safe_load(text) if text else ""
    if isinstance(value, str):  # YAML 1.1 reads 1e-3 as a string
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _problem(error: yaml.YAMLError) -> str:
    """On one line; YAML's own text draws a picture."""
    mark = getattr(error, "problem_mark", None)
    words = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read"
    return f"{words}, line {mark.line + 1}" if mark else words


def _set(owner: type[Config], values: Any, path: list[str], new: Any, key: str) -> None:
    for depth, name in enumerate(path[:-1]):
        values = _child(owner, values, name, path[: depth + 1])
    last = path[-1]
    if isinstance(values, list):
        if not last.isdigit() or int(last) >= len(values):
            raise ConfigError(f"found '{key}', expected an index below {len(values)}")
        values[int(last)] = _merged(values[int(last)], new)
        return
    old = values.get(last)
    if last == "name" and len(path) > 1 and old is not None and old != new:
        values.clear()
    values[last] = _merged(old, new)


def _child(owner: type[Config], values: Any, name: str, path: list[str]) -> Any:
    so_far = ".".join(path)
    if isinstance(values, list) and name.isdigit() and int(name) < len(values):
        return values[int(name)]
    if isinstance(values, dict) and values.get(name) is None and models_at(owner, path):
        values[name] = {}  # an optional component that is to be there, or what a member just chosen must be given
    if isinstance(values, dict) and name in values:
        if isinstance(values[name], dict | list):
            return values[name]
        raise ConfigError(f"setting '{so_far}' is {values[name]!r:.80}, it has no settings of its own; set it whole")
    known = sorted(values) if isinstance(values, dict) else list(range(len(values)))
    raise ConfigError(f"there is no setting '{so_far}'; known here: {', '.join(map(str, known))}")


def _merged(old: Any, new: Any) -> Any:
    """A mapping is merged into a mapping of the same name; anything else replaces."""
    if isinstance(old, dict) and isinstance(new, dict):
        same = "name" not in new or new["name"] == old.get("name")
        return (old if same else {}) | new
    return new
