"""The errors cineray raises for people. Each message says what was found, what was expected and what to do."""

__all__ = [
    "CinerayError",
    "ConfigError",
    "ConflictError",
    "DataError",
    "IntegrityError",
    "LeakError",
    "StorageError",
]


class CinerayError(Exception):
    """Base of every error meant for a person; the command line prints it as one sentence and exits with 2."""


class ConfigError(CinerayError, ValueError):
    """A setting is unknown, has the wrong type or contradicts another one."""


class DataError(CinerayError, ValueError):
    """Recordings, stimuli or events that cannot be used as they are."""


class LeakError(DataError):
    """A split that would let test information into training."""


class IntegrityError(CinerayError):
    """Bytes that do not match their checksum, length or manifest."""


class StorageError(CinerayError, OSError):
    """The store refused or failed, after the retries."""


class ConflictError(StorageError):
    """Somebody else wrote the same key first."""
