"""`check` finds what is wrong with each object, and says so once."""

import numpy as np
import pytest

from cineray.core.errors import DataError
from cineray.core.storage import Store
from cineray.datasets.check import check, show
from cineray.datasets.ingest import ingest
from cineray.datasets.manifest import MANIFEST_KEY, Manifest
from films import FilmSource

SOURCE = FilmSource(scans=12, clips=10)


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path) -> Store:
    url = tmp_path / "set" if request.param == "folder" else request.getfixturevalue("s3_url")
    ingest(SOURCE, url)
    return Store.at(url)


def test_a_good_data_set(store, capsys):
    report = check(store.url)
    assert report.good
    assert (report.num_objects, report.num_samples, report.num_stimuli, report.version) == (5, 48, 20, 1)
    assert report.num_bytes == sum(store.size(key) for key in store.list() if key != MANIFEST_KEY)
    show(report)
    assert "good" in capsys.readouterr().out


def test_every_damaged_object_is_named(store, capsys):
    keys = [info.key for info in Manifest.read(store).objects]
    data = {key: store.get(key) for key in keys}
    store.put(keys[0], data[keys[0]][:-1])
    store.put(keys[1], data[keys[2]])
    store.delete(keys[3])
    store.put("samples/stray", b"")
    report = check(store.url)
    assert not report.good
    assert [any(key in problem for problem in report.problems) for key in keys] == [True, True, False, True, False]
    assert report.orphans == ("samples/stray",)
    show(report)
    assert f"{len(report.problems)} with problems" in capsys.readouterr().out


@pytest.mark.parametrize("number", range(5))
def test_any_flipped_bit_of_an_object_is_found(tmp_path, number):
    ingest(SOURCE, tmp_path)
    store, rng = Store.at(tmp_path), np.random.default_rng(number)
    key = Manifest.read(store).objects[number].key
    data = store.get(key)
    for position in rng.integers(0, len(data), 20):
        damaged = bytearray(data)
        damaged[position] ^= 1 << rng.integers(8)
        store.put(key, bytes(damaged))
        assert key in "".join(check(tmp_path).problems)


def test_a_manifest_that_contradicts_itself(tmp_path):
    ingest(SOURCE, tmp_path)
    manifest = Manifest.read(Store.at(tmp_path))
    runs = (*manifest.runs[:-1], manifest.runs[-1].model_copy(update={"first_row": 40}))
    (tmp_path / MANIFEST_KEY).write_bytes(manifest.model_copy(update={"runs": runs}).dumps())
    assert "follow on" in check(tmp_path).problems[0]
    (tmp_path / MANIFEST_KEY).write_bytes(manifest.model_copy(update={"runs": manifest.runs[:-1]}).dumps())
    assert "runs and sample objects differ" in check(tmp_path).problems[0]


def test_samples_that_point_at_another_stimulus(tmp_path):
    """Stimuli of one ingest, samples of another: every object is whole, but they do not belong together."""
    first = ingest(SOURCE, tmp_path)
    second = ingest(FilmSource(scans=12, clips=8), tmp_path)
    objects = (*first.of_kind("samples"), *second.of_kind("stimuli"))
    (tmp_path / MANIFEST_KEY).write_bytes(second.model_copy(update={"objects": objects, "runs": first.runs}).dumps())
    assert "pairs stimulus 'film0-0008' with row 8" in check(tmp_path).problems[0]


def test_nothing_to_check(tmp_path):
    with pytest.raises(DataError, match="holds no manifest"):
        check(tmp_path)
