"""What a store promises, on a folder and on a real S3-protocol server, and what it says when it cannot."""

import itertools
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cineray.core.errors import ConflictError, StorageError
from cineray.core.storage import LocalStore, Store


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path) -> Store:
    return Store.at(tmp_path / "store" if request.param == "folder" else request.getfixturevalue("s3_url"))


def test_round_trip(store, tmp_path):
    data = bytes(range(256)) * 3
    store.put("a/b c/é.bin", data)
    (tmp_path / "file").write_bytes(data[::-1])
    store.put_file("a/file", tmp_path / "file")
    assert store.get("a/b c/é.bin") == data
    assert store.get("a/file") == data[::-1]
    assert [store.get_range("a/b c/é.bin", a, n) for a, n in [(0, 768), (5, 3), (700, 68), (9, 0)]] == [
        data,
        data[5:8],
        data[700:],
        b"",
    ]
    assert store.size("a/file") == 768
    assert store.list() == ["a/b c/é.bin", "a/file"]
    assert store.list("a/b") == ["a/b c/é.bin"]
    assert store.sizes("a/f") == {"a/file": 768}
    store.delete("a/file")
    store.delete("a/file")
    assert not store.exists("a/file")
    assert store.exists("a/b c/é.bin")


def test_consumed_file_is_gone(store):
    with store.scratch() as folder:
        path = Path(folder) / "x"
        path.write_bytes(b"x")
        assert store.list() == []
        store.put_file("x", path, consume=True)
        assert not path.exists()
    assert (store.get("x"), store.list(unfinished=True)) == (b"x", ["x"])


def test_local_names_the_file_only_where_there_is_one(store):
    store.put("k", b"1")
    path = store.local("k")
    assert path.read_bytes() == b"1" if isinstance(store, LocalStore) else path is None


def test_create_once(store):
    store.create("k", b"first")
    with pytest.raises(ConflictError, match="another writer"):
        store.create("k", b"first")
    assert store.get("k") == b"first"
    assert store.list(unfinished=True) == ["k"]


def test_swap_replaces_only_what_was_read(store):
    store.create("k", b"1")
    _, tag = store.get_tagged("k")
    store.swap("k", b"2", tag)
    with pytest.raises(ConflictError, match="another writer"):
        store.swap("k", b"3", tag)
    with pytest.raises(ConflictError, match="another writer"):
        store.swap("absent", b"3", tag)
    assert store.get("k") == b"2"


@pytest.mark.parametrize("operation", ["create", "swap"])
def test_of_sixteen_writers_one_wins(store, operation):
    tag = ""
    if operation == "swap":
        store.create("k", b"old")
        tag = store.get_tagged("k")[1]
    won, lost, barrier = [], [], threading.Barrier(16)

    def write(number: int) -> None:
        data = b"%d" % number
        barrier.wait()
        try:
            store.create("k", data) if operation == "create" else store.swap("k", data, tag)
            won.append(data)
        except ConflictError:
            lost.append(data)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 15)
    assert store.get("k") == won[0]


def test_what_is_not_there_is_one_sentence(store):
    for read in (store.get, store.size, lambda key: store.get_range(key, 0, 1)):
        with pytest.raises(StorageError, match=r"absent.*check the path"):
            read("absent")
    store.put("short", b"123")
    with pytest.raises(StorageError, match=r"3 bytes from 0, expected 4"):
        store.get_range("short", 0, 4)


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../x", "a/../../x"])
def test_keys_stay_inside(store, key):
    with pytest.raises(StorageError, match="relative"):
        store.put(key, b"")


def test_a_store_travels(store):
    store.put("k", b"1")
    assert pickle.loads(pickle.dumps(store)).get("k") == b"1"


def test_other_schemes_are_refused():
    for url in ("ftp://host/x", "s3:///x", "s3://", ""):
        with pytest.raises(StorageError, match="expected"):
            Store.at(url)


def dying(real, calls, die_at):
    """The system call, until ``die_at`` calls were made in all."""

    def call(*args, **kwargs):
        if next(calls) > die_at:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    return call


@pytest.mark.parametrize("operation", ["put", "put_file", "create", "swap"])
def test_a_killed_local_writer_leaves_old_or_new(tmp_path, operation):
    """Raise at every system call in turn: the key holds old or new bytes, and nothing else is visible."""
    names = ["fsync", "replace", "link"]
    for die_at in range(6):
        folder = tmp_path / f"{operation}{die_at}"
        store = LocalStore(str(folder))
        old = None if operation == "create" else b"old"
        if old:
            store.put("k", old)
        (tmp_path / "new").write_bytes(b"new")
        calls = itertools.count(1)
        tag = store.get_tagged("k")[1] if old else ""
        run = {
            "put": lambda store=store: store.put("k", b"new"),
            "put_file": lambda store=store: store.put_file("k", tmp_path / "new"),
            "create": lambda store=store: store.create("k", b"new"),
            "swap": lambda store=store, tag=tag: store.swap("k", b"new", tag),
        }[operation]
        with pytest.MonkeyPatch.context() as patch:
            for name in names:
                patch.setattr(os, name, dying(getattr(os, name), calls, die_at))
            try:
                run()
            except KeyboardInterrupt:
                pass
            else:
                assert die_at > 0
        found = store.get("k") if store.exists("k") else None
        assert found in (old, b"new")
        assert set(store.list()) <= {"k"}
        if die_at == 0:
            assert found == old
        if die_at == 5:
            assert found == b"new"


def test_disk_full_is_one_sentence_and_leaves_nothing(tmp_path):
    """The limit on file size stands for a full disk; it must be set in a process of its own."""
    code = f"""
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
from cineray.core.errors import StorageError
from cineray.core.storage import Store
store = Store.at({str(tmp_path)!r})
try:
    store.put("big", bytes(1 << 20))
except StorageError as error:
    sys.exit(str(error))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "free some space and repeat" in done.stderr
    assert Store.at(tmp_path).list(unfinished=True) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_forbidden_folder(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="owner and mode"):
        Store.at(tmp_path).put("k", b"")


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(StorageError, match="another path"):
        Store.at(tmp_path).put("a/b", b"")
    with pytest.raises(StorageError, match="another path"):
        Store.at(tmp_path / "a").scratch()
