"""An opened data set against the source it was made from, on a folder and on S3."""

import json
import os
import pickle
import shutil
import uuid

import numpy as np
import pyarrow.parquet as pq
import pytest

from cineray.core.errors import DataError, IntegrityError
from cineray.core.storage import Store
from cineray.datasets.cache import open_object
from cineray.datasets.dataset import Dataset
from cineray.datasets.ingest import ingest
from cineray.datasets.manifest import MANIFEST_KEY, Manifest
from films import FilmSource
from fixtures_s3 import BUCKET

SOURCE = FilmSource(scans=290, clips=270)
NUM_ROWS = 4 * 290


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "set"
    ingest(SOURCE, path)
    return path


@pytest.fixture(scope="module")
def remote(s3_endpoint):
    """Read only, but for one test that mends what it damages."""
    url = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    ingest(SOURCE, url)
    return url


@pytest.fixture
def copy(folder, tmp_path):
    """One that may be damaged."""
    return shutil.copytree(folder, tmp_path / "set")


@pytest.fixture(params=["mmap", "pread", "s3"])
def dataset(request, folder, tmp_path):
    if request.param != "s3":
        return Dataset.open(folder, access=request.param)
    return Dataset.open(request.getfixturevalue("remote"), tmp_path / "cache")


@pytest.fixture(scope="module")
def expected():
    """Subject -> (rows, voxels) z-scored by the formula, run after run."""
    brains: dict[str, list] = {}
    for recording in SOURCE.recordings():
        run = recording.brain.astype(np.float64)
        brains.setdefault(recording.subject, []).append((run - run.mean(0)) / run.std(0))
    return {subject: np.concatenate(runs).astype(np.float16) for subject, runs in brains.items()}


def test_what_is_in_it(dataset):
    assert (len(dataset), dataset.tr_s, dataset.num_stimuli) == (NUM_ROWS, 1.0, 540)
    assert dataset.subjects == ["sub-a", "sub-b"]
    assert dataset.num_voxels == {"sub-a": 9, "sub-b": 5}
    assert dataset.target_specs == SOURCE.targets()
    assert [(run.subject, run.run, run.film, run.first_row, run.num_rows) for run in dataset.runs] == [
        ("sub-a", "run-0", "film0", 0, 290),
        ("sub-a", "run-1", "film1", 290, 290),
        ("sub-b", "run-0", "film0", 580, 290),
        ("sub-b", "run-1", "film1", 870, 290),
    ]
    manifest = dataset.manifest
    assert (manifest.version, manifest.source_fingerprint) == (1, SOURCE.fingerprint())
    assert (manifest.signal["zscore"], manifest.notes) == ("run", {"licence": "CC0"})


def test_samples_are_those_of_the_source(dataset, expected):
    rng = np.random.default_rng(0)
    for subject, first in (("sub-a", 0), ("sub-b", 580)):
        rows = rng.permutation(580)
        found = dataset.gather_samples(first + rows)
        assert found.dtype == np.float16
        np.testing.assert_allclose(found, expected[subject][rows], rtol=2e-3, atol=1e-3)
        out = np.empty((7, dataset.num_voxels[subject]), np.float16)
        assert dataset.gather_samples(first + rows[:7], out) is out
        assert np.array_equal(out, found[:7])


def test_tables_are_those_of_the_source(dataset):
    samples, stimuli = dataset.samples(), dataset.stimuli()
    recordings, clips = list(SOURCE.recordings()), list(SOURCE.stimuli())
    assert samples["subject"].to_pylist() == [r.subject for r in recordings for _ in range(290)]
    assert samples["run"].to_pylist() == [r.run for r in recordings for _ in range(290)]
    assert samples["scan"].to_pylist() == list(range(290)) * 4
    assert samples["stimulus_id"].to_pylist() == [name for r in recordings for name in r.stimulus_id]
    offsets = [None if np.isnan(x) else x for r in recordings for x in r.offset_s.tolist()]
    assert samples["offset_s"].to_pylist() == offsets
    for name in ("stimulus_id", "film", "onset_s", "length_s", "group", "caption"):
        assert stimuli[name].to_pylist() == [getattr(clip, name) for clip in clips]
    assert dataset.samples(["scan"]).column_names == ["scan"]


def test_stimulus_rows_name_the_stimulus_shown(dataset):
    rows = np.random.default_rng(0).permutation(NUM_ROWS)
    ids = dataset.stimuli(["stimulus_id"])["stimulus_id"].to_pylist()
    shown = np.array(dataset.samples(["stimulus_id"])["stimulus_id"].to_pylist(), object)[rows]
    found = dataset.gather_stimulus_rows(rows)
    assert found.dtype == np.int64
    assert [None if row < 0 else ids[row] for row in found] == shown.tolist()


@pytest.mark.parametrize("target", ["features", "frames"])
def test_targets_are_those_of_the_source(dataset, target):
    rows = np.random.default_rng(0).integers(0, 540, 100)
    clips = [clip.targets[target] for clip in SOURCE.stimuli()]
    found = dataset.gather_stimuli(target, rows)
    assert found.dtype == clips[0].dtype
    assert np.array_equal(found, np.stack([clips[row] for row in rows]))
    out = np.empty_like(found)
    assert dataset.gather_stimuli(target, rows, out) is out
    assert np.array_equal(out, found)


def test_no_rows(dataset):
    none = np.array([], np.int64)
    assert dataset.gather_samples(none).shape == (0, 9)
    assert dataset.gather_stimulus_rows(none).shape == (0,)
    assert dataset.gather_stimuli("frames", none).shape == (0, 2, 4, 4)


def test_it_travels_with_its_snapshot(dataset):
    other = pickle.loads(pickle.dumps(dataset))
    assert other.manifest == dataset.manifest
    assert np.array_equal(other.gather_samples(np.arange(9)), dataset.gather_samples(np.arange(9)))
    assert len(pickle.dumps(dataset)) < 20_000


def test_wrong_questions(dataset):
    for ask, sentence in [
        (lambda: dataset.gather_samples(np.array([0, 580])), "row 580 does not belong"),
        (lambda: dataset.gather_samples(np.array([NUM_ROWS])), f"row {NUM_ROWS} does not exist"),
        (lambda: dataset.gather_samples(np.array([-1])), "row -1 does not exist"),
        (lambda: dataset.gather_stimuli("clip", np.array([0])), "no target 'clip'; it has features, frames"),
        (lambda: dataset.gather_stimuli("features", np.array([540])), "row 540"),
        (lambda: dataset.gather_stimuli("features", np.array([0]), np.empty((1, 3))), "expected contiguous float32"),
        (lambda: dataset.samples(["fmri"]), "gather_samples"),
        (lambda: dataset.samples(["nothing"]), "no column 'nothing'"),
    ]:
        with pytest.raises(DataError, match=sentence):
            ask()


def test_other_readers_see_the_gathered_values(folder):
    import duckdb

    dataset = Dataset.open(folder)
    for info, run in zip(dataset.manifest.of_kind("samples"), dataset.runs, strict=True):
        path = folder / info.key
        rows = np.frombuffer(b"".join(pq.read_table(path)["fmri"].to_pylist()), np.float16)
        gathered = dataset.gather_samples(np.array(run.rows))
        assert np.array_equal(rows.reshape(gathered.shape), gathered)
        question = f"select scan, octet_length(fmri) from read_parquet('{path}') where subject = '{run.subject}'"
        assert duckdb.sql(question).fetchall() == [(scan, 2 * gathered.shape[1]) for scan in range(290)]


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match=r"holds no manifest\.json; ingest"):
        Dataset.open(tmp_path / "none")


def test_another_schema_version_is_refused(copy):
    manifest = Manifest.read(Store.at(copy)).model_copy(update={"schema_version": "99"})
    (copy / MANIFEST_KEY).write_bytes(manifest.dumps())
    with pytest.raises(DataError, match=r"schema version '99', this cineray reads '1'"):
        Dataset.open(copy)


def test_missing_longer_and_truncated_objects_are_refused(copy):
    key = Manifest.read(Store.at(copy)).objects[2].key
    data = (copy / key).read_bytes()
    for other in (data[:-1], data + b"x", b""):
        (copy / key).write_bytes(other)
        with pytest.raises(IntegrityError, match=f"{key} has {len(other)} bytes, the manifest says {len(data)}"):
            Dataset.open(copy)
    (copy / key).unlink()
    with pytest.raises(IntegrityError, match=f"{key} .*missing"):
        Dataset.open(copy)


def test_swapped_siblings_are_noticed(copy):
    """Two runs of one subject look alike from outside; their footers or their pages do not."""
    one, two = (copy / info.key for info in Manifest.read(Store.at(copy)).of_kind("samples")[:2])
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    with pytest.raises(IntegrityError):
        Dataset.open(copy).gather_samples(np.array([0]))


def test_no_flipped_bit_of_the_manifest_is_silent(copy):
    path, rng = copy / MANIFEST_KEY, np.random.default_rng(0)
    data, manifest = path.read_bytes(), Manifest.read(Store.at(copy))
    found = 0
    for position in rng.integers(0, len(data), 500):
        damaged = bytearray(data)
        damaged[position] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            assert Manifest.read(Store.at(copy)) == manifest  # white space
        except IntegrityError:
            found += 1
    assert found > 400
    assert json.loads(data)["sha256"]


def test_handles_are_given_back(folder):
    count = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        dataset = Dataset.open(folder)
        dataset.gather_samples(np.array([0]))
        info = dataset.manifest.objects[0]
        open_object(dataset.store, info, None)
        del dataset
    assert len(os.listdir("/proc/self/fd")) <= count
