"""A source into a published data set: checked, prepared, written run by run, made visible in one step.

One recording is in memory at a time. Objects are named by their content, so a repeated ingest of the same source
writes nothing new, and one that died is simply run again.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cineray.core.config import Config
from cineray.core.errors import DataError
from cineray.core.storage import Store
from cineray.datasets.manifest import MANIFEST_KEY, Manifest, ObjectInfo, RunInfo, joined_films
from cineray.datasets.schema import BRAIN, TensorSpec, sample_schema, stimulus_schema
from cineray.datasets.shards import ShardWriter
from cineray.datasets.signal import SignalConfig, prepared
from cineray.datasets.sources.base import Recording, Source, Stimulus
from cineray.datasets.validate import check_recording, check_stimulus, stored

__all__ = ["Progress", "ingest"]

Progress = Callable[[Iterable[Any], str], Iterable[Any]]
"""Shows how far an iteration is, e.g. `cineray.core.records.progress`."""

BRAIN_DTYPE = "float16"

STIMULUS_COLUMNS = ("stimulus_id", "film", "onset_s", "length_s", "group", "caption")

STIMULI_OBJECT_BYTES = 1 << 30
"""Stimuli go on in another object from here: a size that is quick to move and cheap to list."""


def ingest(
    source: Source,
    out_url: str | Path,
    *,
    signal: SignalConfig | None = None,
    progress: Progress = lambda items, _: items,
) -> Manifest:
    """Write a source's stimuli and recordings to ``out_url`` and publish them as its next version.

    Nothing becomes visible before the last step; `ConflictError` if another writer published meanwhile, `DataError`
    with one sentence if the source cannot be used as it is. Without ``signal``, what suits the source is done. Features
    computed from the last version stay where its stimuli are the same to the byte, and go where they are not.
    """
    assert isinstance(source, Config), "a source is a Config: its settings go into the manifest"
    signal = signal or SignalConfig.suiting(source.name)
    store = Store.at(out_url)
    before, tag = Manifest.read_tagged(store) if store.exists(MANIFEST_KEY) else (None, None)
    specs = source.targets()
    with store.scratch() as folder:
        writer = _Writer(store, Path(folder))
        writer.add_stimuli(progress(source.stimuli(), "stimuli"), specs)
        recordings = prepared(
            lambda: writer.checked(progress(source.recordings(), "recordings")), signal, writer.length_s
        )
        for recording in recordings:
            writer.add_recording(recording)
    if not writer.runs:
        raise DataError(f"the source '{source.name}' has no recordings; check its folder and its selection")
    manifest = Manifest(
        version=before.version + 1 if before else 1,
        source=source.model_dump(mode="json"),
        source_fingerprint=source.fingerprint(),
        signal=signal.model_dump(mode="json") | signal.notes(),
        tr_s=writer.tr_s,
        subjects=writer.num_voxels,
        runs=tuple(writer.runs),
        objects=tuple(writer.objects),
        targets={name: asdict(spec) | {"shape": list(spec.shape)} for name, spec in specs.items()},
        notes=source.notes(),
    )
    if before and before.stimuli_fingerprint == manifest.stimuli_fingerprint:
        manifest = manifest.with_features_of(before)
    manifest.publish(store, tag)
    return manifest


class _Writer:
    """Objects already in the store, and what later rows must agree with."""

    def __init__(self, store: Store, scratch: Path) -> None:
        self._store = store
        self._path = scratch / "object.parquet"
        self.objects: list[ObjectInfo] = []
        self.runs: list[RunInfo] = []
        self.tr_s = 0.0
        self.num_voxels: dict[str, int] = {}
        self.length_s: dict[str, float] = {}
        """Of every stimulus, in row order."""
        self._film: dict[str, str] = {}
        self._row: dict[str, int] = {}
        self._measured_voxels: dict[str, int] = {}
        self._written: set[tuple[str, str]] = set()

    def add_stimuli(self, stimuli: Iterable[Stimulus], specs: dict[str, TensorSpec]) -> None:
        """Write the stimulus table, in objects of limited size."""
        rest = iter(stimuli)
        while (first := next(rest, None)) is not None:
            with self._object(stimulus_schema(specs), "stimuli/stimuli", kind="stimuli") as shard:
                for stimulus in chain([first], rest):
                    check_stimulus(stimulus, specs)
                    self._remember(stimulus)
                    shard.write({name: getattr(stimulus, name) for name in STIMULUS_COLUMNS} | dict(stimulus.targets))
                    if shard.num_bytes >= STIMULI_OBJECT_BYTES:
                        break
        if not self.length_s:
            raise DataError("the source has no stimuli; check its folder and its selection")

    def checked(self, recordings: Iterable[Recording]) -> Iterator[Recording]:
        """The recordings as measured, each found in order."""
        for recording in recordings:
            self.tr_s = self.tr_s or recording.tr_s
            voxels = self._measured_voxels.setdefault(recording.subject, recording.brain.shape[-1])
            check_recording(recording, voxels, self.tr_s)
            for name in recording.stimulus_id:
                if name is not None and name not in self._row:
                    raise DataError(
                        f"{recording.subject}, run '{recording.run}' shows stimulus '{name}', which the source "
                        "does not describe; add it to the stimuli or mark these scans as rest"
                    )
            yield recording

    def add_recording(self, recording: Recording) -> None:
        """Write one run, already prepared, as one object."""
        subject, run = recording.subject, recording.run
        if (subject, run) in self._written:
            raise DataError(f"{subject} has two runs called '{run}'; give every run of a subject its own name")
        brain = stored(recording, BRAIN_DTYPE)
        self._written.add((subject, run))
        num_rows, num_voxels = brain.shape
        self.num_voxels.setdefault(subject, num_voxels)
        stem = f"samples/{_plain(subject)}/{_plain(run)}"
        with self._object(
            sample_schema(num_voxels, BRAIN_DTYPE), stem, kind="samples", subject=subject, run=run
        ) as shard:
            shard.write_columns(self._columns(recording, brain))
        shown = [self._film[name] for name in recording.stimulus_id if name is not None]
        self.runs.append(
            RunInfo(
                subject=subject,
                run=run,
                film=joined_films(shown),
                repeat=recording.repeat,
                first_row=self.runs[-1].rows.stop if self.runs else 0,
                num_rows=num_rows,
            )
        )

    def _columns(self, recording: Recording, brain: NDArray[np.floating]) -> dict[str, Any]:
        num_rows = len(brain)
        resting = np.array([name is None for name in recording.stimulus_id])
        return {
            "subject": [recording.subject] * num_rows,
            "run": [recording.run] * num_rows,
            "repeat": np.full(num_rows, recording.repeat, np.int32),
            "scan": np.arange(num_rows, dtype=np.int32),
            "onset_s": np.asarray(recording.onset_s, np.float64),
            "stimulus_id": recording.stimulus_id,
            "offset_s": pa.array(recording.offset_s, pa.float64(), mask=resting),
            "stimulus_row": np.array([self._row.get(name or "", -1) for name in recording.stimulus_id], np.int64),
            BRAIN: brain,
        }

    def _remember(self, stimulus: Stimulus) -> None:
        name = stimulus.stimulus_id
        if not name or name in self._row:
            raise DataError(f"found stimulus id '{name}' twice or empty, expected each once; rename one of them")
        self._row[name] = len(self._row)
        self._film[name] = stimulus.film
        self.length_s[name] = stimulus.length_s

    @contextmanager
    def _object(self, schema: pa.Schema, stem: str, **about: Any) -> Iterator[ShardWriter]:
        """A file to fill, put into the store when the block ends well."""
        shard = ShardWriter(self._path, schema)
        try:
            yield shard
            info = shard.close(stem, **about)
        except BaseException:
            shard.abandon()
            self._path.unlink()
            raise
        self._put(info)
        self.objects.append(info)

    def _put(self, info: ObjectInfo) -> None:
        remote = self._store.local(info.key) is None
        if remote and self._store.exists(info.key) and self._store.size(info.key) == info.num_bytes:
            self._path.unlink()  # an earlier attempt uploaded it; the key holds its hash
        else:
            self._store.put_file(info.key, self._path, consume=True)


def _plain(name: str) -> str:
    """A name that any file system takes; the hash in the key keeps apart what this makes equal."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".") or "_"
