"""The API key: where it comes from, and the constant-time check. Only its digest travels through the cluster."""

import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from cineray.core.errors import ConfigError

__all__ = ["KEY_VARIABLE", "digest_of", "find_key", "generate_key", "is_allowed"]

KEY_VARIABLE = "CINERAY_API_KEY"

MIN_KEY_CHARACTERS = 16


def find_key(key_file: str | Path | None, environment: Mapping[str, str] = os.environ) -> str:
    """The key from a file, else from the environment; there is no default.

    Raises:
        ConfigError: no key, an unreadable file, or one that could be guessed.
    """
    if key_file is None and KEY_VARIABLE not in environment:
        raise ConfigError(f"found no API key; set {KEY_VARIABLE}, name a key file, or ask for a generated one")
    try:
        key = environment[KEY_VARIABLE] if key_file is None else Path(key_file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read the key file {key_file} ({type(error).__name__}); give a readable one"
        ) from None
    key = key.strip()
    if len(key) < MIN_KEY_CHARACTERS or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(
            f"the API key has {len(key)} characters, expected at least {MIN_KEY_CHARACTERS} printable ASCII ones "
            "without spaces; make one with `openssl rand -hex 24`"
        )
    return key


def generate_key() -> str:
    """A new random key of 192 bits."""
    return secrets.token_urlsafe(24)


def digest_of(key: str) -> str:
    """What the server keeps instead of the key."""
    return hashlib.sha256(key.encode()).hexdigest()


def is_allowed(headers: Mapping[str, str], digest: str) -> bool:
    """Whether ``Authorization: Bearer`` or ``X-API-Key`` (lower-case names) carries the key, in constant time."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    offered = token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
    return hmac.compare_digest(digest_of(offered), digest)
