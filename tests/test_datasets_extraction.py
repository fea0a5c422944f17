"""Features beside the stimuli: resumable part by part, published in one step, read like any target."""

import hashlib
import json
import multiprocessing
import time

import numpy as np
import pytest

from cineray.core.errors import CinerayError, ConfigError, DataError, IntegrityError
from cineray.core.storage import Store
from cineray.datasets import extraction
from cineray.datasets.check import check
from cineray.datasets.dataset import Dataset
from cineray.datasets.encoders.base import identity
from cineray.datasets.encoders.pool import PoolConfig
from cineray.datasets.extraction import Job, extract, in_process, publish
from cineray.datasets.ingest import ingest
from cineray.datasets.manifest import Manifest
from cineray.datasets.schema import TensorSpec
from clips import ClipSource, OddConfig, SlowConfig

SOURCE = ClipSource()
PART_ROWS = 4
POOL = PoolConfig(factor=8)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(extraction, "group_rows", lambda num_bytes: PART_ROWS)


@pytest.fixture(params=["folder", "s3"])
def url(request, tmp_path):
    url = str(tmp_path / "set") if request.param == "folder" else request.getfixturevalue("s3_url")
    ingest(SOURCE, url)
    return url


@pytest.fixture
def folder(tmp_path):
    ingest(SOURCE, tmp_path / "set")
    return tmp_path / "set"


def pooled(pixels, factor):
    """By a loop."""
    rows, frames, height, width, _ = pixels.shape
    found = np.empty((rows, frames, 3, height // factor, width // factor))
    for y in range(height // factor):
        for x in range(width // factor):
            square = pixels[:, :, y * factor : (y + 1) * factor, x * factor : (x + 1) * factor].astype(float)
            found[..., y, x] = square.mean((2, 3)) * 2 / 255 - 1
    return found


def test_features_are_read_like_any_target(url, tmp_path):
    before = Manifest.read(Store.at(url))
    manifest = extract(url, POOL)
    dataset = Dataset.open(url, tmp_path / "cache")
    assert (manifest.version, dataset.manifest.commit) == (2, manifest.commit)
    assert dataset.target_specs["latents"] == TensorSpec(
        "float16", (3, 3, 4, 4), "frames channels height width", "sRGB, -1 to 1"
    )
    rows = np.array([9, 0, 4, 4, 3])
    assert np.allclose(dataset.gather_stimuli("latents", rows), pooled(SOURCE.pixels(), 8)[rows], atol=1e-3)
    assert np.array_equal(dataset.gather_stimuli("frames", rows), SOURCE.pixels()[rows])
    assert dataset.stimuli().column_names == ["stimulus_id", "film", "onset_s", "length_s", "group", "caption"]
    assert dataset.num_stimuli == 10
    assert [info.num_rows for info in manifest.features_of("latents")] == [4, 4, 2]
    assert manifest.features["latents"].encoder == POOL.model_dump(mode="json")
    assert manifest.objects[: len(before.objects)] == before.objects
    report = check(url)
    assert (report.good, report.orphans, report.num_objects) == (True, (), 5)


def test_only_who_reads_a_feature_depends_on_it(folder):
    base = Dataset.open(folder)
    extract(folder, POOL)
    once = Dataset.open(folder)
    assert base.fingerprint == base.fingerprint_of(["frames"]) == once.fingerprint == once.fingerprint_of(["frames"])
    assert once.fingerprint_of(["latents"]) != once.fingerprint
    extract(folder, PoolConfig(factor=4, target="fine"))
    twice = Dataset.open(folder)
    assert twice.fingerprint_of(["frames", "latents"]) == once.fingerprint_of(["latents"])
    assert twice.fingerprint_of(["latents", "fine"]) == twice.fingerprint_of(["fine", "latents"])
    extract(folder, PoolConfig(factor=16), replace=True)
    assert Dataset.open(folder).fingerprint_of(["latents"]) != once.fingerprint_of(["latents"])
    assert Dataset.open(folder).fingerprint_of(["fine"]) == twice.fingerprint_of(["fine"])


def test_features_stay_while_their_stimuli_do(folder):
    extract(folder, POOL)
    before = Dataset.open(folder)
    ingest(SOURCE.override({"shift": 0.1}), folder)
    after = Dataset.open(folder)
    assert after.fingerprint != before.fingerprint
    assert np.array_equal(
        after.gather_stimuli("latents", np.arange(10)), before.gather_stimuli("latents", np.arange(10))
    )
    assert check(folder).good
    ingest(SOURCE.override({"seed": 1}), folder)
    assert list(Dataset.open(folder).target_specs) == ["frames"]
    assert check(folder).good


class Died(BaseException):
    """Stands for SIGKILL."""


@pytest.mark.parametrize("done", range(4))
def test_a_job_that_died_goes_on_with_the_parts_that_are_left(folder, done):
    def until_death(job, parts):
        for number, part in enumerate(in_process(job, parts)):
            yield part
            if number + 1 == done:
                raise Died
        raise Died

    def counted(job, parts):
        seen.extend(parts)
        return in_process(job, parts)

    seen = []
    with pytest.raises(Died):
        extract(folder, POOL, workers=(lambda job, parts: kill_at_once()) if done == 0 else until_death)
    assert "latents" not in Dataset.open(folder).target_specs
    extract(folder, PoolConfig(factor=4), workers=lambda job, parts: seen.extend(parts) or in_process(job, parts))
    assert seen == [0, 1, 2]
    seen.clear()
    extract(folder, POOL, workers=counted, replace=True)
    assert seen == [0, 1, 2][done:]
    latents = Dataset.open(folder).gather_stimuli("latents", np.arange(10))
    assert np.allclose(latents, pooled(SOURCE.pixels(), 8), atol=1e-3)
    seen.clear()
    extract(folder, POOL, workers=counted)
    assert seen == []


def kill_at_once():
    raise Died
    yield


def test_a_record_whose_object_is_gone_counts_for_nothing(folder):
    job = Job.of(Dataset.open(folder), POOL)
    for _ in in_process(job, job.pending()):
        pass
    job.dataset.store.delete(job.done()[1].key)
    assert job.pending() == [1]
    with pytest.raises(DataError, match="found 2 of 3 parts of 'latents' done; run the same command again"):
        publish(job)


def test_two_jobs_on_one_data_set_both_publish(folder):
    """The second one began before the first was published."""
    jobs = [Job.of(Dataset.open(folder), POOL.override({"target": name})) for name in ("one", "two")]
    for job in jobs:
        for _ in in_process(job, job.pending()):
            pass
        publish(job)
    assert set(Dataset.open(folder).target_specs) == {"frames", "one", "two"}
    assert check(folder).good


def read(folder):
    return Dataset.open(folder).gather_stimuli("latents", np.arange(10))


def test_other_values_of_the_same_name_are_refused_unless_they_shall_give_way(folder):
    """Told before anything is computed; the stored values stay."""

    def never(job, parts):
        raise AssertionError("nothing is to be computed")

    extract(folder, POOL)
    with pytest.raises(
        ConfigError, match=r"'latents' of \S+ was computed with {'factor': 8}, expected {'factor': 16}; .*replace=true"
    ):
        extract(folder, PoolConfig(factor=16), workers=never)
    extract(folder, OddConfig(target="odd"))
    with pytest.raises(ConfigError, match=r"with {'name': 'odd', .*}, expected {'name': 'slow'"):
        extract(folder, SlowConfig(target="odd", log=""), workers=never)
    assert np.allclose(read(folder), pooled(SOURCE.pixels(), 8), atol=1e-3)
    extract(folder, PoolConfig(factor=16), replace=True)
    assert np.allclose(read(folder), pooled(SOURCE.pixels(), 16), atol=1e-3)
    extract(folder, PoolConfig(factor=16), workers=never)


def test_a_changed_encoder_computes_other_values(folder, monkeypatch):
    """Version 1 is that of features which were stored without one: the hash is that of the settings alone."""
    plain = json.dumps({"factor": 8, "name": "pool", "target": "latents"}, separators=(",", ":")).encode()
    assert identity(POOL) == hashlib.sha256(plain).hexdigest()[:16]
    extract(folder, POOL)
    monkeypatch.setattr(PoolConfig, "version", 2)
    assert identity(POOL) != hashlib.sha256(plain).hexdigest()[:16]
    with pytest.raises(ConfigError, match="was computed from other weights or by another version of it; choose"):
        extract(folder, POOL)
    assert Job.of(Dataset.open(folder), POOL, replace=True).pending() == [0, 1, 2]


def test_a_name_taken_by_others_meanwhile_is_told(folder):
    job = Job.of(Dataset.open(folder), PoolConfig(factor=16))
    for _ in in_process(job, job.pending()):
        pass
    extract(folder, POOL)
    with pytest.raises(ConfigError, match=r"'latents' of \S+ was computed with"):
        publish(job)
    assert np.allclose(read(folder), pooled(SOURCE.pixels(), 8), atol=1e-3)


def test_stimuli_published_anew_meanwhile_are_told(folder):
    job = Job.of(Dataset.open(folder), POOL)
    for _ in in_process(job, job.pending()):
        pass
    ingest(SOURCE.override({"seed": 1}), folder)
    with pytest.raises(DataError, match="published anew meanwhile; compute 'latents' again"):
        publish(job)


def test_a_damaged_feature_object_is_refused(folder):
    key = extract(folder, POOL).features_of("latents")[1].key
    data = bytearray(Store.at(folder).get(key))
    data[len(data) // 3] ^= 1
    Store.at(folder).put(key, bytes(data))
    with pytest.raises(IntegrityError, match=r"column 'latents', row group 0 of features/latents/000001-"):
        Dataset.open(folder).gather_stimuli("latents", np.arange(10))
    assert [key in problem for problem in check(folder).problems] == [True]


def test_check_finds_rows_of_other_stimuli(folder):
    manifest = extract(folder, POOL)
    store, (first, second, third) = Store.at(folder), manifest.features_of("latents")
    for objects, problem in (((second, first, third), "not in the order"), ((first, second), "has 8 rows, expected")):
        version = manifest.with_features("latents", manifest.features["latents"], objects)
        version.publish(store, Manifest.read_tagged(store)[1])
        assert any(problem in found for found in check(folder).problems)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (OddConfig(dtype="float64"), r"odd gave float64 \(4, 2\), expected float32 \(4, 2\)"),
        (OddConfig(value=np.inf), "odd gave values that are not finite"),
        (POOL.override({"target": "frames"}), "'frames' was ingested into .*; set target="),
        (PoolConfig(factor=5), "found frames of 32 x 32, expected multiples of factor=5"),
    ],
)
def test_what_does_not_fit_is_one_sentence(folder, encoder, message):
    with pytest.raises(CinerayError, match=message):
        extract(folder, encoder)
    assert list(Dataset.open(folder).target_specs) == ["frames"]


def test_kill_9_loses_at_most_the_row_group_in_work(folder, tmp_path):
    """A process that is killed while it encodes; another one goes on."""
    log = tmp_path / "log"
    encoder = SlowConfig(log=str(log), seconds=0.3)
    process = multiprocessing.get_context("fork").Process(target=extract, args=(folder, encoder))
    process.start()
    while process.is_alive() and (not log.exists() or log.read_text().count("\n") < 2):
        time.sleep(0.01)
    process.kill()
    process.join()
    assert Job.of(Dataset.open(folder), encoder).pending() == [1, 2]
    assert Manifest.read(Store.at(folder)).version == 1
    extract(folder, encoder)
    assert log.read_text().split()[1::2] == ["0", "4", "4", "8"]
    dataset = Dataset.open(folder)
    assert np.array_equal(dataset.gather_stimuli("slow", np.arange(10)), SlowConfig.values(SOURCE))
    assert [key for key in Store.at(folder).list("features/") if key.endswith("json")] == []


def test_a_slow_encoder_sees_its_own_frames_in_memory_that_does_not_grow(folder, tmp_path, monkeypatch):
    """Batches are gathered ahead into a few buffers, for all parts the same."""
    places, encode = [], SlowConfig.encode

    def noting(self, frames, captions):
        places.append(frames.ctypes.data)
        return encode(self, frames, captions)

    monkeypatch.setattr(SlowConfig, "encode", noting)
    monkeypatch.setattr(extraction, "group_rows", lambda num_bytes: 2 * PART_ROWS)
    monkeypatch.setattr(extraction, "BATCH_ROWS", 1)
    extract(folder, SlowConfig(log=str(tmp_path / "log"), seconds=0.03))
    assert np.array_equal(Dataset.open(folder).gather_stimuli("slow", np.arange(10)), SlowConfig.values(SOURCE))
    assert len(places) == 10
    assert len(set(places)) == extraction.NUM_AHEAD + 2
