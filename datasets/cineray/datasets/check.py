"""Every byte and every row of a data set against its manifest: what `cineray check` runs."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cineray.core.errors import CinerayError, IntegrityError
from cineray.core.storage import Store
from cineray.datasets.cache import ObjectBytes, open_object
from cineray.datasets.index import ColumnReader, PageIndex
from cineray.datasets.ingest import BRAIN_DTYPE, Progress
from cineray.datasets.manifest import Manifest, ObjectInfo
from cineray.datasets.schema import feature_schema, sample_schema, stimulus_schema, tensor_specs

__all__ = ["Report", "check", "show"]

BLOCK_BYTES = 1 << 24


@dataclass(frozen=True)
class Report:
    """What was looked at, and every sentence there is to say against it."""

    url: str
    version: int
    num_objects: int
    num_samples: int
    num_stimuli: int
    num_bytes: int
    problems: tuple[str, ...]
    orphans: tuple[str, ...]
    """Keys that this version does not name; not a problem."""

    @property
    def good(self) -> bool:
        """Nothing to say against it."""
        return not self.problems


def check(url: str | Path, *, progress: Progress = lambda items, _: items) -> Report:
    """Verify every object: length, sha256, page CRCs, schema, row count, and that they fit together.

    A damaged object is reported and the others are looked at all the same; a manifest that cannot be read raises.
    """
    store = Store.at(url)
    manifest = Manifest.read(store)
    stimuli = manifest.of_kind("stimuli")
    problems = list(_manifest_problems(manifest))
    ids: list[str] | None = []
    first_rows = _first_rows(manifest)
    with tempfile.TemporaryDirectory() as folder:
        others = (*manifest.of_kind("samples"), *manifest.of_kind("features"))
        for info in progress([*stimuli, *others], "objects"):
            try:
                table = _checked_object(store, manifest, info, Path(folder))
                if info.kind == "samples":
                    _check_samples(table, info, ids)
                elif info.kind == "features":
                    _check_features(table, info, first_rows[info.key], ids)
                elif ids is not None:
                    ids += table["stimulus_id"].to_pylist()
            except CinerayError as error:
                problems.append(str(error))
                ids = None if info.kind == "stimuli" else ids  # what samples should point at is not known then
    return Report(
        url=store.url,
        version=manifest.version,
        num_objects=len(manifest.objects),
        num_samples=sum(run.num_rows for run in manifest.runs),
        num_stimuli=sum(info.num_rows for info in stimuli),
        num_bytes=sum(info.num_bytes for info in manifest.objects),
        problems=tuple(problems),
        orphans=tuple(manifest.orphans(store)),
    )


def show(report: Report) -> None:
    """The report on the terminal."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("version", "objects", "samples", "stimuli", "MB", "unused keys", title=report.url)
    counts = (report.version, report.num_objects, report.num_samples, report.num_stimuli)
    table.add_row(*map(str, counts), f"{report.num_bytes / 1e6:.1f}", str(len(report.orphans)))
    console.print(table)
    for problem in report.problems:
        console.print(problem, style="red", markup=False)
    console.print("[green]good" if report.good else f"[red]{len(report.problems)} with problems")


def _manifest_problems(manifest: Manifest) -> Iterator[str]:
    """Runs and sample objects must pair off, with global rows that follow on."""
    objects = [(info.subject, info.run, info.num_rows) for info in manifest.of_kind("samples")]
    runs = [(run.subject, run.run, run.num_rows) for run in manifest.runs]
    if objects != runs:
        yield "the manifest's runs and sample objects differ; ingest again"
    starts = np.cumsum([0, *(run.num_rows for run in manifest.runs)])[:-1].tolist()
    if [run.first_row for run in manifest.runs] != starts:
        yield "the manifest's runs do not follow on from one another; ingest again"
    num_stimuli = sum(info.num_rows for info in manifest.of_kind("stimuli"))
    for target in manifest.features:
        num_rows = sum(info.num_rows for info in manifest.features_of(target))
        if num_rows != num_stimuli:
            yield f"'{target}' has {num_rows} rows, expected one for each of {num_stimuli} stimuli; compute it again"


def _first_rows(manifest: Manifest) -> dict[str, int]:
    """Key of each features object -> row of the stimulus table that its first row belongs to."""
    return {
        info.key: first
        for target in manifest.features
        for objects in [manifest.features_of(target)]
        for info, first in zip(objects, accumulate((o.num_rows for o in objects), initial=0), strict=False)
    }


def _checked_object(store: Store, manifest: Manifest, info: ObjectInfo, scratch: Path) -> pa.Table:
    """The metadata columns of an object whose bytes, pages and schema are as they should be."""
    copy = scratch / "object.parquet"
    try:
        if store.local(info.key) is None:
            _download(store, info, copy)
            source = ObjectBytes(info, copy, None)
        else:
            source = open_object(store, info, None)
        _check_hash(source)
        index = PageIndex(source)
        expected = _schema(manifest, info)
        if not index.schema.equals(expected, check_metadata=True):
            raise IntegrityError(f"{info.key} does not have the columns of its kind; ingest again")
        _check_tensors(index)
        return index.table([name for name in expected.names if name not in tensor_specs(expected)])
    finally:
        copy.unlink(missing_ok=True)


def _schema(manifest: Manifest, info: ObjectInfo) -> pa.Schema:
    match info.kind:
        case "stimuli":
            return stimulus_schema(manifest.stimulus_specs)
        case "features":
            return feature_schema(info.target, manifest.target_specs[info.target])
        case "samples":
            return sample_schema(manifest.subjects[info.subject], BRAIN_DTYPE)


def _download(store: Store, info: ObjectInfo, path: Path) -> None:
    with open(path, "wb") as file:
        for start in range(0, info.num_bytes, BLOCK_BYTES):
            file.write(store.get_range(info.key, start, min(BLOCK_BYTES, info.num_bytes - start)))


def _check_hash(source: ObjectBytes) -> None:
    digest = hashlib.sha256()
    for start in range(0, source.info.num_bytes, BLOCK_BYTES):
        digest.update(os.pread(source.handle, BLOCK_BYTES, start))
    if digest.hexdigest() != source.info.sha256:
        raise IntegrityError(f"{source.info.key} does not match its sha256; restore it or ingest again")


def _check_tensors(index: PageIndex) -> None:
    """Every page of every tensor column; numbers must be finite."""
    for name, spec in tensor_specs(index.schema).items():
        reader = ColumnReader([index], [0], name)
        first = 0
        for num_rows in index.group_rows:
            values = reader.gather(np.arange(first, first + num_rows)).view(spec.dtype)
            first += num_rows
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise IntegrityError(f"column '{name}' of {index.info.key} has values that are not finite")


def _check_samples(table: pa.Table, info: ObjectInfo, ids: list[str] | None) -> None:
    """One subject, one run, scans in order, and stimulus rows that name the right stimuli (where those are whole)."""
    for column, value in (("subject", info.subject), ("run", info.run)):
        if pc.unique(table[column]).to_pylist() != [value]:
            raise IntegrityError(f"{info.key} has another {column} than '{value}'; ingest again")
    if table["scan"].to_pylist() != list(range(info.num_rows)):
        raise IntegrityError(f"{info.key} is not ordered by scan; ingest again")
    if ids is None:
        return
    for row, name in zip(table["stimulus_row"].to_pylist(), table["stimulus_id"].to_pylist(), strict=True):
        shown = ids[row] if 0 <= row < len(ids) else None
        if shown != name or (name is None and row != -1):
            raise IntegrityError(f"{info.key} pairs stimulus '{name}' with row {row}, which is another; ingest again")


def _check_features(table: pa.Table, info: ObjectInfo, first_row: int, ids: list[str] | None) -> None:
    """Rows in the order of the stimulus table (where that is whole)."""
    names = table["stimulus_id"].to_pylist()
    if ids is not None and names != ids[first_row : first_row + len(names)]:
        raise IntegrityError(f"{info.key} is not in the order of the stimulus table; compute '{info.target}' again")
