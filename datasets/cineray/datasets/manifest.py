"""The one file that says what a data set holds; everything else is found through it.

Objects are written first, under names that carry their hash. The manifest is then created, or swapped for the one
read at the start, in one atomic step: a reader sees the old data set or the new one.
"""

import hashlib
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from cineray.core.config import Config
from cineray.core.errors import ConfigError, DataError, IntegrityError
from cineray.core.storage import Store
from cineray.datasets.schema import SCHEMA_VERSION, TensorSpec

__all__ = ["MANIFEST_KEY", "FeatureInfo", "Manifest", "ObjectInfo", "RunInfo", "require_data"]

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
    kind: Literal["samples", "stimuli", "features"]
    subject: str = ""
    run: str = ""
    target: str = ""
    """Of a features object: the target it holds."""
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


class FeatureInfo(Config):
    """A target that an encoder computed from the stimuli."""

    encoder: dict[str, Any]
    """Its settings."""
    identity: str
    """Fingerprint of the settings and the pretrained files: where it is equal, so are the values."""
    spec: dict[str, Any]
    """The fields of the target's `TensorSpec`."""


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
    """Target of the stimulus table -> the fields of its `TensorSpec`."""
    features: dict[str, FeatureInfo] = Field(default={})
    """Computed target -> where it comes from."""
    notes: dict[str, Any]

    @model_validator(mode="after")
    def _features_have_objects(self) -> Self:
        stored = {info.target for info in self.of_kind("features")}
        if stored != set(self.features):
            raise ValueError(f"found objects of features {sorted(stored)}, expected {sorted(self.features)}")
        return self

    @property
    def stimulus_specs(self) -> dict[str, TensorSpec]:
        """Target of the stimulus table -> what its bytes mean."""
        return {name: _spec(fields) for name, fields in self.targets.items()}

    @property
    def target_specs(self) -> dict[str, TensorSpec]:
        """Every target, ingested or computed -> what its bytes mean."""
        return self.stimulus_specs | {name: _spec(info.spec) for name, info in self.features.items()}

    @property
    def data_fingerprint(self) -> str:
        """`fingerprint_of` samples and stimuli alone."""
        return self.fingerprint_of(())

    @property
    def stimuli_fingerprint(self) -> str:
        """Likewise, of the stimulus table: what features are computed from."""
        return _digest({"objects": [info.sha256 for info in self.of_kind("stimuli")]})[:16]

    def fingerprint_of(self, targets: Iterable[str]) -> str:
        """First 16 hex digits of a sha256 over what somebody who reads these targets depends on.

        That is every object of samples and stimuli, in row order, and those of the computed ones among ``targets``:
        equal for equal data, wherever it lies, and blind to features that are not read.
        """
        used = [info for info in self.objects if info.kind != "features"]
        for target in sorted(set(targets)):
            used += self.features_of(target)
        return _digest({"objects": [info.sha256 for info in used]})[:16]

    def with_features_of(self, other: Self) -> Self:
        """This version with all features of another one, whose stimuli are the same."""
        objects = (*self.objects, *other.of_kind("features"))
        return self.model_copy(update={"objects": objects, "features": other.features})

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

    def features_of(self, target: str) -> list[ObjectInfo]:
        """Objects of a computed target, in row order; none for another target."""
        return [info for info in self.of_kind("features") if info.target == target]

    def with_features(self, target: str, info: FeatureInfo, objects: Sequence[ObjectInfo]) -> Self:
        """The next version: this one with a computed target added, or put in the place of the one of that name."""
        kept = tuple(old for old in self.objects if old.target != target)
        changes = {"objects": kept + tuple(objects), "features": self.features | {target: info}}
        return self.model_copy(update=changes | {"version": self.version + 1, "commit": uuid.uuid4().hex})

    def orphans(self, store: Store) -> list[str]:
        """Keys that no reader of this manifest needs: left by a crash, or by an earlier version.

        A writer still at work owns some of them, so delete them only after a grace period.
        """
        named = {info.key for info in self.objects} | {MANIFEST_KEY}
        return [key for key in store.list(unfinished=True) if key not in named]


def require_data(found: str, expected: str, *, url: str, user: str) -> None:
    """Refuse a data set that is not the one ``user`` was made from (`Manifest.fingerprint_of` what that reads)."""
    if found != expected:
        raise ConfigError(
            f"the data set at {url} has fingerprint {found}, {user} was made from {expected}; publish that one there "
            "again, or train a new run on this one"
        )


def joined_films(films: Sequence[str]) -> str:
    """The ``film`` of a run that showed these, in order of first appearance."""
    return " + ".join(dict.fromkeys(films))


def _spec(fields: Mapping[str, Any]) -> TensorSpec:
    return TensorSpec(fields["dtype"], tuple(fields["shape"]), fields["axes"], fields["unit"])


def _digest(values: Mapping[str, Any]) -> str:
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
