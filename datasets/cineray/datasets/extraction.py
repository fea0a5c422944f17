"""Features computed part by part: what is left to do, one part done, all of them published.

A part is one row group of stimuli. Its object goes into the store first, then a small record that names it; a job that
died is run again and does the parts that have no record. Knows no Ray: who works on the parts is the caller's choice.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from cineray.core.errors import ConfigError, ConflictError, DataError
from cineray.datasets.dataset import Dataset
from cineray.datasets.encoders.base import FRAMES, EncoderSettings, identity
from cineray.datasets.manifest import FeatureInfo, Manifest, ObjectInfo
from cineray.datasets.prefetch import prefetched
from cineray.datasets.schema import TensorSpec, feature_schema
from cineray.datasets.shards import ShardWriter, group_rows

__all__ = ["Extractor", "Job", "Workers", "complete", "extract", "in_process", "publish"]

BATCH_ROWS = 32
"""Stimuli encoded together."""

NUM_AHEAD = 2
"""Batches gathered while one is encoded."""

NUM_ATTEMPTS = 100
"""Others may publish features of the same data set at the same time; each attempt adds ours to the newest version."""


@dataclass(frozen=True)
class Job:
    """One encoder over all stimuli of one data set."""

    dataset: Dataset
    encoder: EncoderSettings
    spec: TensorSpec
    identity: str
    part_rows: int
    """Stimuli of a part; the last one may have fewer."""
    replace: bool = False
    """Whether other values of the same name give way."""

    @classmethod
    def of(cls, dataset: Dataset, encoder: EncoderSettings, *, replace: bool = False) -> Self:
        """Look at data and encoder without computing anything.

        Raises:
            CinerayError: They do not suit each other, a pretrained part is missing, or the name is that of other values
                and ``replace`` is not set.
        """
        if encoder.target in dataset.manifest.targets:
            raise ConfigError(
                f"'{encoder.target}' was ingested into {dataset.store.url}, expected a name for a computed target; "
                "set target=…"
            )
        spec = encoder.spec(dataset)
        job = cls(dataset, encoder, spec, identity(encoder), group_rows(spec.num_bytes), replace)
        job.require_place(dataset.manifest)
        return job

    def published(self, manifest: Manifest) -> bool:
        """Whether a version of the data set holds the values already."""
        known = manifest.features.get(self.encoder.target)
        return known is not None and known.identity == self.identity

    def require_place(self, manifest: Manifest) -> None:
        """Refuse a version of the data set that holds other values under the same name, unless they are to give way."""
        target, known = self.encoder.target, manifest.features.get(self.encoder.target)
        if known is None or self.replace or self.published(manifest):
            return
        found, wanted = known.encoder, self.encoder.model_dump(mode="json")
        changed = [key for key in found | wanted if found.get(key) != wanted.get(key)]
        found, wanted = ({key: values.get(key) for key in changed} for values in (found, wanted))
        difference = f"with {found}, expected {wanted}" if changed else "from other weights or by another version of it"
        raise ConfigError(
            f"'{target}' of {self.dataset.store.url} was computed {difference}; choose another name (target=…), or "
            "replace it for everybody who reads it (replace=true)"
        )

    @property
    def num_parts(self) -> int:
        """Row groups in all."""
        return -(-self.dataset.num_stimuli // self.part_rows)

    def rows(self, part: int) -> range:
        """Stimulus rows of a part."""
        return range(part * self.part_rows, min((part + 1) * self.part_rows, self.dataset.num_stimuli))

    @property
    def folder(self) -> str:
        """Where the objects lie."""
        return f"features/{self.encoder.target}"

    @property
    def records(self) -> str:
        """Where the records lie: another place for other values."""
        return f"{self.folder}/{self.identity}-{self.dataset.manifest.stimuli_fingerprint}"

    def record_key(self, part: int) -> str:
        """Key of a part's record."""
        return f"{self.records}/{part:06d}.json"

    def done(self) -> dict[int, ObjectInfo]:
        """Part -> its object, for every part with a record whose object is there in full length."""
        store = self.dataset.store
        sizes = store.sizes(f"{self.folder}/")
        found = {}
        for part in range(self.num_parts):
            if (key := self.record_key(part)) in sizes:
                info = ObjectInfo.loads(store.get(key), origin=store.path(key))
                if (sizes.get(info.key), info.num_rows) == (info.num_bytes, len(self.rows(part))):
                    found[part] = info
        return found

    def pending(self) -> list[int]:
        """Parts still to do."""
        done = self.done()
        return [part for part in range(self.num_parts) if part not in done]


class Extractor:
    """An encoder at work on the parts of a job."""

    def __init__(self, job: Job, device: torch.device | str = "cpu") -> None:
        self._job = job
        self._encoder = job.encoder.build(device)

    @cached_property
    def _table(self) -> pa.Table:
        return self._job.dataset.stimuli(["stimulus_id", "caption"]).combine_chunks()

    def _column(self, name: str, rows: range) -> list[str]:
        return self._table[name][rows.start : rows.stop].to_pylist()

    def __call__(self, part: int) -> ObjectInfo:
        """Encode one part, put its object into the store, then its record."""
        job, rows = self._job, self._job.rows(part)
        values = np.empty((len(rows), *job.spec.shape), job.spec.dtype)
        done = 0
        for frames, captions in prefetched(self._batches(rows), NUM_AHEAD):
            found = self._encoder.encode(frames, captions)
            _check(found, len(captions), job)
            values[done : done + len(captions)] = found
            done += len(captions)
        info = self._put(
            {"stimulus_id": self._column("stimulus_id", rows), job.encoder.target: values}, f"{job.folder}/{part:06d}"
        )
        job.dataset.store.put(job.record_key(part), info.model_dump_json().encode())
        return info

    @cached_property
    def _staging(self) -> list[NDArray[np.uint8]]:
        """Frames of the batches alive at once: one encoded, `NUM_AHEAD` ready, one gathered.

        Allocated once: each part is gathered in a thread of its own, and glibc gives threads arenas that keep what was
        freed in them, so that batches allocated there would add up over the parts.
        """
        spec = self._job.dataset.target_specs[FRAMES]
        return [np.empty((BATCH_ROWS, *spec.shape), spec.dtype) for _ in range(NUM_AHEAD + 2)]

    def _batches(self, rows: range) -> Iterator[tuple[NDArray[np.uint8], list[str]]]:
        for number, first in enumerate(range(rows.start, rows.stop, BATCH_ROWS)):
            some = range(first, min(first + BATCH_ROWS, rows.stop))
            captions = self._column("caption", some)
            if self._job.encoder.reads_frames:
                out = self._staging[number % len(self._staging)][: len(some)]
                yield self._job.dataset.gather_stimuli(FRAMES, np.array(some), out), captions
            else:
                yield np.empty((len(some), 0, 0, 0, 3), np.uint8), captions

    def _put(self, columns: dict[str, Any], stem: str) -> ObjectInfo:
        store, target = self._job.dataset.store, self._job.encoder.target
        with store.scratch() as folder:
            path = Path(folder) / "object.parquet"
            shard = ShardWriter(path, feature_schema(target, self._job.spec))
            try:
                shard.write_columns(columns)
                info = shard.close(stem, kind="features", target=target)
            except BaseException:
                shard.abandon()
                raise
            store.put_file(info.key, path, consume=True)
        pa.default_memory_pool().release_unused()  # else Arrow's pool keeps some parts' pages and the peak grows
        return info


Workers = Callable[[Job, Sequence[int]], Iterable[int]]
"""Does the parts of a job in any order and yields each when its record is there."""


def in_process(job: Job, parts: Sequence[int]) -> Iterator[int]:
    """One after the other, here."""
    extractor = Extractor(job)
    for part in parts:
        extractor(part)
        yield part


def extract(url: str | Path, encoder: EncoderSettings, *, replace: bool = False, **how: Any) -> Manifest:
    """Compute a target of every stimulus and publish it as the data set's next version.

    Args:
        url: folder or ``s3://`` prefix of a published data set.
        encoder: computes the values.
        replace: whether other values of the same name give way.
        how: of `complete`.

    Raises:
        CinerayError: as `Job.of` and `complete`.
    """
    return complete(Job.of(Dataset.open(url), encoder, replace=replace), **how)


def complete(
    job: Job,
    *,
    workers: Workers = in_process,
    progress: Callable[[Iterable[Any], str, int], Iterable[Any]] = lambda items, text, total: items,
) -> Manifest:
    """Do what is left of a job and publish it.

    Args:
        job: what to compute.
        workers: do the parts; not asked where none is left.
        progress: shows how far an iteration of so many items is, e.g. `cineray.core.records.progress`.

    Raises:
        CinerayError: a part could not be done, or the stimuli were published anew meanwhile.
    """
    if job.published(job.dataset.manifest):
        return job.dataset.manifest
    parts = job.pending()
    for _ in progress(workers(job, parts) if parts else (), f"{job.encoder.target}, row groups", len(parts)):
        pass
    return publish(job)


def publish(job: Job) -> Manifest:
    """Make the values of a job whose parts are all done visible, and remove its records."""
    store, target = job.dataset.store, job.encoder.target
    done = job.done()
    if len(done) != job.num_parts:
        newest = Manifest.read(store)
        if job.published(newest):  # by somebody who did the same at the same time, and removed the records
            return newest
        raise DataError(f"found {len(done)} of {job.num_parts} parts of '{target}' done; run the same command again")
    spec = asdict(job.spec) | {"shape": list(job.spec.shape)}
    info = FeatureInfo(encoder=job.encoder.model_dump(mode="json"), identity=job.identity, spec=spec)
    manifest = _publish(job, info, [done[part] for part in range(job.num_parts)])
    for part in done:
        store.delete(job.record_key(part))
    return manifest


def _publish(job: Job, info: FeatureInfo, objects: Sequence[ObjectInfo]) -> Manifest:
    store, target = job.dataset.store, job.encoder.target
    for _ in range(NUM_ATTEMPTS):
        before, tag = Manifest.read_tagged(store)
        if before.stimuli_fingerprint != job.dataset.manifest.stimuli_fingerprint:
            raise DataError(f"the stimuli of {store.url} were published anew meanwhile; compute '{target}' again")
        job.require_place(before)  # others may have taken the name meanwhile
        manifest = before.with_features(target, info, objects)
        try:
            manifest.publish(store, tag)
        except ConflictError:
            continue
        return manifest
    raise ConflictError(f"{store.url} was published {NUM_ATTEMPTS} times by others; run the same command again")


def _check(found: NDArray[Any], num_rows: int, job: Job) -> None:
    """What an encoder gave is what its settings promise."""
    expected = (num_rows, *job.spec.shape)
    if found.shape != expected or found.dtype != np.dtype(job.spec.dtype):
        raise DataError(
            f"{job.encoder.name} gave {found.dtype} {found.shape}, expected {job.spec.dtype} {expected}; "
            "its spec does not describe what it computes"
        )
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        raise DataError(
            f"{job.encoder.name} gave values that are not finite in {found.dtype}; compute in float32 (precision) or "
            "check the weights"
        )
