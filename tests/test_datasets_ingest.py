"""Nothing but a whole data set ever becomes visible, whatever the source holds and wherever the writer dies."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest

from cineray.core.errors import ConflictError, DataError, StorageError
from cineray.core.storage import Store
from cineray.core.storage_s3 import S3Store
from cineray.datasets import ingest as module
from cineray.datasets.check import check
from cineray.datasets.dataset import Dataset
from cineray.datasets.ingest import ingest
from cineray.datasets.manifest import Manifest
from cineray.datasets.signal import SignalConfig
from cineray.datasets.sources.base import Recording, Stimulus
from films import FilmSource, visible

SMALL = FilmSource(scans=12, clips=10)
OTHER = FilmSource(scans=12, clips=10, seed=1)


class SpoiltSource(FilmSource):
    """The film source with one thing wrong in its last recording or stimulus."""

    fault: str
    scans: int = 12
    clips: int = 10
    name: Literal["film"] = "film"

    def recordings(self) -> Iterator[Recording]:
        *good, last = super().recordings()
        yield from good
        yield replace(last, **self._spoilt(last))

    def _spoilt(self, last: Recording) -> dict[str, Any]:
        brain = last.brain.copy()
        brain[3, 2] = {"nan": np.nan, "inf": -np.inf, "huge": 1e6}.get(self.fault, 0)
        return {
            "nan": {"brain": brain},
            "inf": {"brain": brain},
            "huge": {"brain": brain},
            "constant": {"brain": np.ones_like(brain)},
            "voxels": {"brain": last.brain[:, :-1]},
            "flat": {"brain": last.brain[:, 0]},
            "tr": {"tr_s": 2.0},
            "zero tr": {"tr_s": 0.0},
            "run": {"run": "run-0"},
            "unknown": {"stimulus_id": ["mystery", *last.stimulus_id[1:]]},
            "length": {"onset_s": last.onset_s[:-1]},
            "order": {"onset_s": last.onset_s[::-1]},
        }.get(self.fault, {})

    def stimuli(self) -> Iterator[Stimulus]:
        *good, last = super().stimuli()
        yield from good
        targets = dict(last.targets)
        changes: dict[str, dict[str, Any]] = {
            "twice": {"stimulus_id": good[0].stimulus_id},
            "nameless": {"stimulus_id": ""},
            "shape": {"targets": targets | {"features": np.zeros(4, np.float32)}},
            "dtype": {"targets": targets | {"features": np.zeros(3, np.float64)}},
            "target nan": {"targets": targets | {"features": np.full(3, np.nan, np.float32)}},
            "no target": {"targets": {"features": targets["features"]}},
            "no length": {"length_s": 0.0},
        }
        yield replace(last, **changes.get(self.fault, {}))


FAULTS = {
    "nan": "sub-b, run 'run-1' has 1 .*not finite",
    "inf": "sub-b, run 'run-1' has 1 .*not finite",
    "huge": r"sub-b, run 'run-1' reaches 1e\+06, expected at most 65504 \(float16\)",
    "voxels": "sub-b, run 'run-1' has 4 voxels, .* has 5",
    "flat": r"shape \(12,\), expected \(scans, voxels\)",
    "tr": "sub-b, run 'run-1' has a TR of 2 s, earlier runs have 1 s",
    "zero tr": "TR of 0.0 s, expected a positive",
    "run": "sub-b has two runs called 'run-0'",
    "unknown": "sub-b, run 'run-1' shows stimulus 'mystery'",
    "length": "12 scans but 11 values of onset_s",
    "order": "scan times .* do not increase",
    "twice": "stimulus id 'film0-0000' twice",
    "nameless": "stimulus id '' twice or empty",
    "shape": r"'film1-0009' has 'features' of float32 \(4,\), the source announced float32 \(3,\)",
    "dtype": r"'features' of float64 \(3,\), the source announced float32",
    "target nan": "'features' that are not finite",
    "no target": r"has targets \['features'\], the source announced \['features', 'frames'\]",
    "no length": "lasts 0.0 s",
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("published", [False, True], ids=["first", "next"])
def test_a_bad_source_is_one_sentence_and_nothing_is_published(tmp_path, fault, published):
    if published:
        ingest(SMALL, tmp_path)
    before = visible(Store.at(tmp_path))
    # Unscaled, so that this module's own checks are reached.
    with pytest.raises(DataError, match=FAULTS[fault]) as error:
        ingest(SpoiltSource(fault=fault), tmp_path, signal=SignalConfig(zscore="none"))
    assert "\n" not in str(error.value)
    assert visible(Store.at(tmp_path)) == before
    assert not [key for key in Store.at(tmp_path).list(unfinished=True) if ".tmp" in key]


def test_a_constant_run_is_refused_where_it_must_be_scaled(tmp_path):
    with pytest.raises(DataError, match=r"sub-b, run 'run-1' has 5 of 5 voxels"):
        ingest(SpoiltSource(fault="constant"), tmp_path)
    assert visible(Store.at(tmp_path)) is None


@pytest.mark.parametrize("empty", ["stimuli", "recordings"])
def test_an_empty_source_is_refused(tmp_path, empty):
    source = FilmSource(clips=0) if empty == "stimuli" else FilmSource(voxels={}, clips=2)
    with pytest.raises(DataError, match=f"no {empty}"):
        ingest(source, tmp_path)
    assert visible(Store.at(tmp_path)) is None


def test_the_next_version_replaces_and_readers_keep_theirs(tmp_path):
    first = ingest(SMALL, tmp_path)
    reader = Dataset.open(tmp_path)
    second = ingest(OTHER, tmp_path)
    assert (first.version, second.version) == (1, 2)
    assert Dataset.open(tmp_path).manifest == second
    assert reader.manifest == first
    brain = next(SMALL.recordings()).brain
    expected = (brain - brain.mean(0)) / brain.std(0)
    np.testing.assert_allclose(reader.gather_samples(np.arange(12)), expected, rtol=2e-3, atol=1e-3)
    assert set(second.orphans(Store.at(tmp_path))) == {i.key for i in first.objects} - {i.key for i in second.objects}


def test_the_same_source_writes_the_same_objects(tmp_path):
    assert ingest(SMALL, tmp_path / "a").objects == ingest(SMALL, tmp_path / "b").objects


@pytest.mark.parametrize("where", ["folder", "s3"])
def test_of_two_writers_the_second_is_told(request, tmp_path, where):
    url = tmp_path if where == "folder" else request.getfixturevalue("s3_url")

    def interrupted(items, text):
        if text == "recordings":
            ingest(OTHER, url)
        yield from items

    for version in (1, 2):
        with pytest.raises(ConflictError, match="another writer"):
            ingest(SMALL, url, progress=interrupted)
        assert (Manifest.read(Store.at(url)).version, Manifest.read(Store.at(url)).source["seed"]) == (version, 1)


def test_objects_already_uploaded_are_not_sent_again(s3_url, monkeypatch):
    sent, put_file = [], S3Store.put_file

    def counted(self, key, path, *, consume=False):
        sent.append(key)
        put_file(self, key, path, consume=consume)

    monkeypatch.setattr(S3Store, "put_file", counted)
    ingest(SMALL, s3_url)
    assert len(sent) == 5
    manifest = ingest(SMALL, s3_url)
    assert (len(sent), manifest.version) == (5, 2)
    assert check(s3_url).good


def test_stimuli_go_on_in_another_object(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "STIMULI_OBJECT_BYTES", 10_000)
    source = FilmSource(scans=12, clips=400)
    manifest = ingest(source, tmp_path)
    assert [info.num_rows for info in manifest.of_kind("stimuli")] == [256, 256, 256, 32]
    dataset = Dataset.open(tmp_path)
    clips = list(source.stimuli())
    rows = np.random.default_rng(0).permutation(800)
    assert np.array_equal(
        dataset.gather_stimuli("features", rows), np.stack([clips[row].targets["features"] for row in rows])
    )
    assert dataset.stimuli(["stimulus_id"])["stimulus_id"].to_pylist() == [clip.stimulus_id for clip in clips]
    assert check(tmp_path).good


def test_odd_names_of_subjects_and_runs(tmp_path):
    source = FilmSource(voxels={"../sub 1/ü": 3, "..": 4, "": 2}, scans=12, clips=10)
    manifest = ingest(source, tmp_path / "set")
    assert list(Dataset.open(tmp_path / "set").num_voxels) == list(source.voxels)
    assert all(".." not in info.key for info in manifest.objects)
    assert check(tmp_path / "set").good


def test_the_lag_moves_the_pairing(tmp_path):
    ingest(SMALL, tmp_path, signal=SignalConfig(lag_s=3.0))
    rows = Dataset.open(tmp_path).gather_stimulus_rows(np.arange(12))
    assert rows.tolist() == [-1, -1, -1, *range(9)]


def test_memory_does_not_grow_with_the_data(tmp_path):
    """Twenty runs need no more than four, but for the manifest."""
    import tracemalloc

    peaks = []
    for number, subjects in enumerate((2, 10)):
        source = FilmSource(voxels={f"s{i}": 2000 for i in range(subjects)}, scans=300, clips=100)
        tracemalloc.start()
        ingest(source, tmp_path / str(number))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 3e6


def test_bad_credentials_are_one_sentence(s3_endpoint, s3_url):
    from fixtures_s3 import request

    request(s3_endpoint, "POST", "/moto-api/reset-auth", b"0")
    try:
        with pytest.raises(StorageError, match="AWS_ACCESS_KEY_ID"):
            ingest(SMALL, s3_url)
    finally:
        request(s3_endpoint, "POST", "/moto-api/reset-auth", b"1000000000")
    assert Store.at(s3_url).list() == []
