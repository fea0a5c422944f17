"""Wherever the writer dies, readers see the old data set or the new one."""

import subprocess
import sys

import pytest

from cineray.core.storage import LocalStore, Store
from cineray.datasets.check import check
from cineray.datasets.ingest import ingest
from cineray.datasets.manifest import MANIFEST_KEY, Manifest
from films import FilmSource, visible

SMALL = FilmSource(scans=12, clips=10)
OTHER = FilmSource(scans=12, clips=10, seed=1)


class Died(BaseException):
    """Stands for SIGKILL."""


@pytest.mark.parametrize("published", [False, True], ids=["first", "next"])
@pytest.mark.parametrize("landed", [False, True], ids=["before", "after"])
def test_a_writer_killed_at_any_operation_leaves_old_or_new(tmp_path, monkeypatch, published, landed):
    """Die just before or just after the k-th change of the store, for every k; then run again."""
    reference = tmp_path / "reference"
    ingest(OTHER, reference)
    new = visible(Store.at(reference))[1]
    for die_at in range(1, 100):
        folder = tmp_path / str(die_at)
        if published:
            ingest(SMALL, folder)
        store, before = Store.at(folder), visible(Store.at(folder))
        with monkeypatch.context() as patch:
            _die_at(patch, die_at, landed)
            try:
                ingest(OTHER, folder)
                finished = True
            except Died:
                finished = False
        after = visible(store)
        assert after == before or after[1] == new
        orphans = Manifest.read(store).orphans(store) if after else store.list(unfinished=True)
        ingest(OTHER, folder)
        assert visible(store)[1] == new
        assert check(folder).good
        if not published:
            assert Manifest.read(store).orphans(store) == []
        if finished:
            break
        assert orphans or die_at == 1 or after[1] == new
    assert die_at == 7  # one stimuli object, four runs, the manifest; the seventh never comes


def _die_at(patch: pytest.MonkeyPatch, die_at: int, landed: bool) -> None:
    count = 0

    def wrapped(real):
        def call(self, *args, **kwargs):
            nonlocal count
            count += 1
            if count == die_at and not landed:
                raise Died
            result = real(self, *args, **kwargs)
            if count == die_at:
                raise Died
            return result

        return call

    patch.setattr(LocalStore, "put_file", wrapped(LocalStore.put_file))
    patch.setattr(Manifest, "publish", wrapped(Manifest.publish))


def test_a_real_kill_in_the_middle(tmp_path):
    """SIGKILL while the second recording is being written: no manifest, and the next attempt succeeds."""
    code = f"""
import os, signal, sys
sys.path.insert(0, {str(__file__).rpartition("/")[0]!r})
from films import FilmSource
from cineray.datasets import ingest as module
def shown(items, text):
    for number, item in enumerate(items):
        if text == "recordings" and number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        yield item
module.ingest(FilmSource(scans=12, clips=10), {str(tmp_path)!r}, progress=shown)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    store = Store.at(tmp_path)
    assert visible(store) is None
    assert len(store.list()) == 3
    ingest(SMALL, tmp_path)
    assert check(tmp_path).good


def test_a_full_disk_publishes_nothing(tmp_path):
    code = f"""
import resource, signal, sys
sys.path.insert(0, {str(__file__).rpartition("/")[0]!r})
from films import FilmSource
from cineray.core.errors import StorageError
from cineray.datasets.ingest import ingest
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
try:
    ingest(FilmSource(voxels={{"sub-a": 9, "sub-b": 5000}}, scans=20, clips=20), {str(tmp_path)!r})
except StorageError as error:
    sys.exit(str(error))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "free some space and repeat" in done.stderr
    assert done.stderr.count("\n") == 1
    store = Store.at(tmp_path)
    assert not store.exists(MANIFEST_KEY)
    assert not [key for key in store.list(unfinished=True) if ".tmp" in key]
