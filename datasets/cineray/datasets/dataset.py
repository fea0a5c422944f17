"""A published data set, opened: small tables in memory, tensors gathered where they lie."""

import bisect
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cineray.core.errors import DataError, IntegrityError
from cineray.core.storage import Store
from cineray.datasets.cache import Cache, open_object
from cineray.datasets.index import Access, ColumnReader, PageIndex
from cineray.datasets.manifest import Manifest, ObjectInfo, RunInfo
from cineray.datasets.schema import BRAIN, TensorSpec, tensor_specs

__all__ = ["Dataset"]


class Dataset:
    """One manifest and the rows behind it.

    Sample rows are numbered globally, run after run in the order of ``runs``; stimulus rows likewise. Memory is
    O(row groups). Safe for threads; pickles as its location and manifest, so every worker sees the same snapshot.
    """

    def __init__(
        self, store: Store, manifest: Manifest, cache: Cache | None = None, *, access: Access = "mmap"
    ) -> None:
        self.store = store
        self.manifest = manifest
        self.runs: list[RunInfo] = list(manifest.runs)
        self.num_voxels: dict[str, int] = dict(manifest.subjects)
        self.target_specs: dict[str, TensorSpec] = manifest.target_specs
        self._cache = cache
        self._access: Access = access
        self._indexes: dict[str, PageIndex] = {}
        self._readers: dict[tuple[str, str], ColumnReader] = {}
        self._brain_specs: dict[str, TensorSpec] = {}

    @classmethod
    def open(
        cls,
        url: str | Path,
        cache_dir: str | Path | None = None,
        *,
        cache_bytes: int | None = None,
        access: Access = "mmap",
    ) -> Self:
        """Pin the manifest now visible at ``url`` and check that every object is there with its right length.

        Args:
            url: folder or ``s3://bucket/prefix``.
            cache_dir: where a remote store's pages are kept; ``~/.cache/cineray`` (or below XDG_CACHE_HOME) if None.
            cache_bytes: limit of that folder; None is no limit.
            access: rows by memory map or by ``pread``.
        """
        store = Store.at(url)
        manifest = Manifest.read(store)
        _check_objects(store, manifest)
        return cls(store, manifest, Cache(cache_dir or default_cache(), cache_bytes), access=access)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.store, self.manifest, self._cache, self._access)

    def __len__(self) -> int:
        """Number of samples."""
        return sum(run.num_rows for run in self.runs)

    @property
    def subjects(self) -> list[str]:
        """Subjects, in manifest order."""
        return list(self.num_voxels)

    @property
    def fingerprint(self) -> str:
        """Of its samples and stimuli (`Manifest.data_fingerprint`)."""
        return self.manifest.data_fingerprint

    def fingerprint_of(self, targets: Iterable[str]) -> str:
        """What ties a run that reads these targets to its data (`Manifest.fingerprint_of`)."""
        return self.manifest.fingerprint_of(targets)

    @property
    def tr_s(self) -> float:
        """Seconds from one scan to the next."""
        return self.manifest.tr_s

    @property
    def num_stimuli(self) -> int:
        """Rows of the stimulus table."""
        return sum(info.num_rows for info in self.manifest.of_kind("stimuli"))

    def samples(self, columns: Sequence[str] | None = None) -> pa.Table:
        """(samples,) metadata of every sample, in row order; by default every column that is not a tensor."""
        return self._table("samples", columns)

    def stimuli(self, columns: Sequence[str] | None = None) -> pa.Table:
        """(stimuli,) metadata of every stimulus, in row order; by default every column that is not a tensor."""
        return self._table("stimuli", columns)

    def gather_samples(self, rows: NDArray[np.int64], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """(n,) sample rows of **one** subject, in any order, to (n, voxels) in the stored dtype (float16)."""
        rows = np.asarray(rows, np.int64)
        subject = self.subject_of(rows[0]) if len(rows) else self.subjects[0]
        reader, spec = self._sample_reader(subject, BRAIN), self._brain_spec(subject)
        return _gather(reader, spec, rows, out)

    def gather_stimulus_rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) sample rows of any subjects to the stimulus row shown at each, -1 at rest."""
        rows = np.asarray(rows, np.int64)
        return self._sample_reader("", "stimulus_row").gather(rows).view("<i8")[:, 0]

    def gather_stimuli(self, target: str, rows: NDArray[np.int64], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """(n,) stimulus rows to (n, ...) of a target in its stored shape and dtype."""
        if target not in self.target_specs:
            known = ", ".join(self.target_specs) or "none"
            raise DataError(f"{self.store.url} has no target '{target}'; it has {known}")
        return _gather(self._stimulus_reader(target), self.target_specs[target], np.asarray(rows, np.int64), out)

    def brain_reader(self, subject: str) -> ColumnReader:
        """The voxel column of one subject, for a caller that locates many rows before it copies them."""
        return self._sample_reader(subject, BRAIN)

    def target_reader(self, target: str) -> ColumnReader:
        """The column of one target, likewise."""
        return self._stimulus_reader(target)

    def subject_of(self, row: int) -> str:
        """Whose sample row this is."""
        number = bisect.bisect_right(self.runs, row, key=lambda run: run.first_row) - 1
        if number < 0 or row not in self.runs[number].rows:
            raise DataError(f"sample row {row} does not exist; {self.store.url} has rows 0 to {len(self) - 1}")
        return self.runs[number].subject

    def index(self, info: ObjectInfo) -> PageIndex:
        """The page index of one object, opened on first use."""
        if info.key not in self._indexes:
            self._indexes[info.key] = PageIndex(open_object(self.store, info, self._cache))
        return self._indexes[info.key]

    def _table(self, kind: str, columns: Sequence[str] | None) -> pa.Table:
        tables = []
        for info in self.manifest.of_kind(kind):
            schema = self.index(info).schema
            tensors = tensor_specs(schema)
            wanted = [name for name in schema.names if name not in tensors] if columns is None else list(columns)
            if mixed := sorted(set(wanted) & set(tensors)):
                raise DataError(f"column '{mixed[0]}' holds tensors; read it with gather_{kind}")
            table = self.index(info).table(wanted)
            tables.append(table.replace_schema_metadata(None))
        return pa.concat_tables(tables)

    def _sample_reader(self, subject: str, column: str) -> ColumnReader:
        """Column of one subject, or of all of them if ``subject`` is empty."""
        if (subject, column) not in self._readers:
            pairs = zip(self.manifest.of_kind("samples"), self.runs, strict=True)
            mine = [(self.index(info), run.first_row) for info, run in pairs if subject in ("", run.subject)]
            self._readers[subject, column] = ColumnReader(
                [index for index, _ in mine], [first for _, first in mine], column, self._access
            )
        return self._readers[subject, column]

    def _stimulus_reader(self, target: str) -> ColumnReader:
        if ("", target) not in self._readers:
            objects = self.manifest.features_of(target) or self.manifest.of_kind("stimuli")
            indexes = [self.index(info) for info in objects]
            first_rows = np.cumsum([0, *(index.info.num_rows for index in indexes[:-1])]).tolist()
            self._readers["", target] = ColumnReader(indexes, first_rows, target, self._access)
        return self._readers["", target]

    def _brain_spec(self, subject: str) -> TensorSpec:
        if subject not in self._brain_specs:
            info = next(info for info in self.manifest.of_kind("samples") if info.subject == subject)
            self._brain_specs[subject] = tensor_specs(self.index(info).schema)[BRAIN]
        return self._brain_specs[subject]


def default_cache() -> Path:
    """Where remote pages are kept if nobody says otherwise."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cineray"


def _reopened(store: Store, manifest: Manifest, cache: Cache | None, access: Access) -> Dataset:
    return Dataset(store, manifest, cache, access=access)


def _check_objects(store: Store, manifest: Manifest) -> None:
    found = store.sizes()
    for info in manifest.objects:
        if info.key not in found:
            raise IntegrityError(
                f"{store.path(info.key)} is named by the manifest but missing; restore or ingest again"
            )
        if found[info.key] != info.num_bytes:
            raise IntegrityError(
                f"{store.path(info.key)} has {found[info.key]} bytes, the manifest says {info.num_bytes}; "
                "restore it or ingest again"
            )


def _gather(reader: ColumnReader, spec: TensorSpec, rows: NDArray[np.int64], out: NDArray[Any] | None) -> NDArray[Any]:
    shape = (len(rows), *spec.shape)
    if out is None:
        out = np.empty(shape, spec.dtype)
    if out.shape != shape or out.dtype != np.dtype(spec.dtype) or not out.flags.c_contiguous:
        raise DataError(
            f"the buffer for '{reader.name}' is {out.dtype} {out.shape}, expected contiguous {spec.dtype} {shape}"
        )
    reader.gather(rows, out.view(np.uint8).reshape(len(rows), reader.width) if out.size else None)
    return out
