"""The local cache of a remote data set: filled as it is read, checked, bounded, shared."""

import io
import subprocess
import sys
import uuid

import numpy as np
import pyarrow.parquet as pq
import pytest

from cineray.core.errors import IntegrityError, StorageError
from cineray.core.storage import Store
from cineray.datasets.cache import Cache
from cineray.datasets.dataset import Dataset
from cineray.datasets.ingest import ingest
from cineray.datasets.manifest import Manifest
from films import FilmSource
from fixtures_s3 import BUCKET, FaultProxy

SOURCE = FilmSource(scans=290, clips=270)


@pytest.fixture(scope="module")
def remote(s3_endpoint):
    """Read only, but for one test that mends what it damages."""
    url = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    ingest(SOURCE, url)
    return url


@pytest.fixture(scope="module")
def expected():
    """(rows, voxels) of the first subject, z-scored by the formula, run after run."""
    runs = [r.brain.astype(np.float64) for r in SOURCE.recordings() if r.subject == "sub-a"]
    return np.concatenate([(run - run.mean(0)) / run.std(0) for run in runs]).astype(np.float16)


def test_only_the_pages_that_are_asked_for_are_fetched(fault_proxy: FaultProxy, remote, tmp_path, expected):
    dataset = Dataset.open(remote, tmp_path)
    fault_proxy.log.clear()
    dataset.gather_samples(np.array([3, 1]))
    # The footers of this subject's two runs, and one page.
    assert [(method, fault) for method, _, fault in fault_proxy.log] == [("GET", "")] * 3
    dataset.gather_samples(np.arange(256))
    assert len(fault_proxy.log) == 3
    # A second process finds them in the cache.
    again = Dataset.open(remote, tmp_path)
    fault_proxy.log.clear()
    np.testing.assert_allclose(again.gather_samples(np.arange(256)), expected[:256], rtol=2e-3, atol=1e-3)
    assert fault_proxy.log == []


def test_a_damaged_cache_heals(remote, tmp_path, expected):
    Dataset.open(remote, tmp_path).gather_samples(np.arange(580))
    for path in tmp_path.glob("*.parquet"):
        path.write_bytes(bytes(len(path.read_bytes())))
    found = Dataset.open(remote, tmp_path).gather_samples(np.arange(580))
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-3)


def test_damage_in_the_store_is_not_cached(remote, tmp_path):
    store = Store.at(remote)
    info = Manifest.read(store).of_kind("samples")[0]
    data = store.get(info.key)
    start = pq.read_metadata(io.BytesIO(data)).row_group(0).column(8).data_page_offset
    store.put(info.key, data[: start + 60] + bytes([data[start + 60] ^ 1]) + data[start + 61 :])
    with pytest.raises(IntegrityError, match="'fmri', row group 0"):
        Dataset.open(remote, tmp_path).gather_samples(np.array([0]))
    store.put(info.key, data)
    assert Dataset.open(remote, tmp_path).gather_samples(np.array([0])).shape == (1, 9)


def test_the_cache_stays_below_its_limit(remote, tmp_path):
    manifest = Manifest.read(Store.at(remote))
    limit = 2 * max(info.num_bytes for info in manifest.objects) + 4096
    dataset = Dataset.open(remote, tmp_path, cache_bytes=limit)
    for run in dataset.runs:
        one = Dataset(dataset.store, manifest, Cache(tmp_path, limit))
        one.gather_samples(np.array(run.rows))
        assert Cache(tmp_path).num_bytes() <= limit
    # What was removed under an open data set stays readable, and comes again for a new one.
    assert len(dataset.gather_samples(np.arange(580))) == 580


def test_a_full_cache_disk_is_one_sentence(remote, tmp_path):
    code = f"""
import resource, signal, sys
import numpy as np
from cineray.core.errors import StorageError
from cineray.datasets.dataset import Dataset
dataset = Dataset.open({remote!r}, {str(tmp_path)!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 10, 1 << 10))
try:
    dataset.gather_samples(np.arange(9))
except StorageError as error:
    sys.exit(str(error))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "free" in done.stderr or "cache" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("*.tmp"))


def test_many_processes_share_a_cache(remote, tmp_path, expected):
    code = f"""
import numpy as np, sys
from cineray.datasets.dataset import Dataset
dataset = Dataset.open({remote!r}, {str(tmp_path)!r})
rows = np.random.default_rng(int(sys.argv[1])).permutation(580)
out = np.empty((580, 9), np.float16)
for part in np.array_split(rows, 20):
    out[part] = dataset.gather_samples(part)
sys.stdout.buffer.write(out.tobytes())
"""
    workers = [subprocess.Popen([sys.executable, "-c", code, str(n)], stdout=subprocess.PIPE) for n in range(2)]
    found = [np.frombuffer(worker.communicate()[0], np.float16).reshape(580, 9) for worker in workers]
    for values in found:
        np.testing.assert_allclose(values, expected, rtol=2e-3, atol=1e-3)


def test_an_unusable_cache_folder(remote, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    dataset = Dataset.open(remote, tmp_path / "file")
    with pytest.raises(StorageError, match="cannot use the cache"):
        dataset.gather_samples(np.array([0]))
