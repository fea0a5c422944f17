"""The one file that says what a data set holds; everything else is found through it.

Objects are written first, under names that carry their hash. The manifest is then created, or swapped for the one
read at the start, in one atomic step: a reader sees the old data set or the new one.
"""

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import Field

from cineray.core.config import Config
from cineray.core.errors import ConfigError, DataError, IntegrityError
from cineray.core.storage import Store
from cineray.datasets.schema import SCHEMA_VERSION, TensorSpec

__all__ = ["MANIFEST_KEY", "Manifest", "ObjectInfo", "RunInfo", "require_data"]

MANIFEST_KEY = "manifest.json"


class RunInfo(Config):
    """One run of one subject: a stretch of the global sample rows, ordered by scan."""

    subject: str
    run: str
    film: str
    """Film shown; several are joined by `` + ``, empty if the run is all rest."""
    repeat: int
    first_row: int
    num_rows: int

    @property
    def rows(self) -> range:
        """Its global sample rows."""
        return range(self.first_row, self.first_row + self.num_rows)


class ObjectInfo(Config):
    """One Parquet file: how long it is and what must be found in it."""

    key: str
    kind: Literal["samples", "stimuli"]
    subject: str = ""
    run: str = ""
    num_rows: int
    num_bytes: int
    sha256: str
    footer_bytes: int
    """Bytes of the Parquet footer with its length and magic, at the end of the file."""
    footer_sha256: str
    page_crc32: dict[str, str]
    """Column -> CRC-32 of its page in each row group, 8 hex digits each: ties every page to this manifest."""

    def crc32(self, column: str, group: int) -> int:
        """CRC-32 of one page."""
        return int(self.page_crc32[column][8 * group : 8 * group + 8], 16)


class Manifest(Config):
    """What is in a data set."""

    schema_version: str = SCHEMA_VERSION
    version: int
    """1 for the first publication, one more for each later one."""
    commit: str = Field(default_factory=lambda: uuid.uuid4().hex)
    """Differs between any two publications, so a writer recognises its own."""
    source: dict[str, Any]
    source_fingerprint: str
    signal: dict[str, Any]
    tr_s: float
    subjects: dict[str, int]
    """Subject -> number of voxels."""
    runs: tuple[RunInfo, ...]
    objects: tuple[ObjectInfo, ...]
    targets: dict[str, dict[str, Any]]
    """Target -> the fields of its `TensorSpec`."""
    notes: dict[str, Any]

    @property
    def target_specs(self) -> dict[str, TensorSpec]:
        """Target -> what its bytes mean."""
        return {
            name: TensorSpec(fields["dtype"], tuple(fields["shape"]), fields["axes"], fields["unit"])
            for name, fields in self.targets.items()
        }

    @property
    def data_fingerprint(self) -> str:
        """First 16 hex digits of a sha256 over the objects, in row order: equal for equal data, wherever it lies."""
        return _digest({"objects": [info.sha256 for info in self.objects]})[:16]

    def dumps(self) -> bytes:
        """JSON with a sha256 of itself as last entry."""
        values = self.model_dump(mode="json")
        return json.dumps(values | {"sha256": _digest(values)}, indent=1, ensure_ascii=False).encode()

    @classmethod
    def loads(cls, data: bytes, path: str) -> Self:
        """Check the hash and the schema version, then read."""
        try:
            values = json.loads(data)
            found = values.pop("sha256")
        except (ValueError, AttributeError, KeyError, TypeError):
            raise IntegrityError(
                f"{path} is not a manifest; it is damaged, restore it or remove it and ingest again"
            ) from None
        if found != _digest(values):
            raise IntegrityError(
                f"{path} does not match its own sha256; it is damaged, restore it or remove it and ingest again"
            )
        if values.get("schema_version") != SCHEMA_VERSION:
            raise DataError(
                f"{path} has schema version {values.get('schema_version')!r}, this cineray reads {SCHEMA_VERSION!r}; "
                "ingest into another folder or use the matching release"
            )
        try:
            return cls.parse(values)
        except ConfigError as error:
            raise IntegrityError(f"{path}: {error}; it is damaged, restore it or remove it and ingest again") from None

    @classmethod
    def read(cls, store: Store) -> Self:
        """The data set now visible in a store."""
        return cls.read_tagged(store)[0]

    @classmethod
    def read_tagged(cls, store: Store) -> tuple[Self, str]:
        """The visible data set and its tag for `publish`."""
        if not store.exists(MANIFEST_KEY):
            raise DataError(f"{store.url} holds no {MANIFEST_KEY}; ingest a data set there or check the path")
        data, tag = store.get_tagged(MANIFEST_KEY)
        return cls.loads(data, store.path(MANIFEST_KEY)), tag

    def publish(self, store: Store, tag: str | None) -> None:
        """Make this the visible data set, unless another writer was faster (`ConflictError`).

        ``tag`` is that of the manifest this one replaces, None for the first.
        """
        if tag is None:
            store.create(MANIFEST_KEY, self.dumps())
        else:
            store.swap(MANIFEST_KEY, self.dumps(), tag)

    def of_kind(self, kind: str) -> list[ObjectInfo]:
        """Samples or stimuli objects, in row order."""
        return [info for info in self.objects if info.kind == kind]

    def orphans(self, store: Store) -> list[str]:
        """Keys that no reader of this manifest needs: left by a crash, or by an earlier version.

        A writer still at work owns some of them, so delete them only after a grace period.
        """
        named = {info.key for info in self.objects} | {MANIFEST_KEY}
        return [key for key in store.list(unfinished=True) if key not in named]


def require_data(found: str, expected: str, *, url: str, user: str) -> None:
    """Refuse a data set that is not the one ``user`` was made from (`Manifest.data_fingerprint`)."""
    if found != expected:
        raise ConfigError(
            f"the data set at {url} has fingerprint {found}, {user} was made from {expected}; publish that one there "
            "again, or train a new run on this one"
        )


def joined_films(films: Sequence[str]) -> str:
    """The ``film`` of a run that showed these, in order of first appearance."""
    return " + ".join(dict.fromkeys(films))


def _digest(values: Mapping[str, Any]) -> str:
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
