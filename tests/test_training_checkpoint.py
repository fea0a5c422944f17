"""Checkpoints: bytes another reader understands, damage refused, nothing half-published."""

import hashlib
import json
import threading

import pytest
import torch
from safetensors import safe_open

from cineray.core.errors import ConfigError, IntegrityError, StorageError
from cineray.core.storage import LocalStore, Store
from cineray.training.checkpoint import (
    Manifest,
    Position,
    StoredSizes,
    best,
    committed,
    latest,
    prune,
    read_manifest,
    read_tensors,
    write_checkpoint,
)
from cineray.training.writer import BackgroundWriter
from toys import SIZES


def a_manifest(step=7, **position):
    sizes = StoredSizes(voxels=dict(SIZES.voxels), scans=SIZES.scans, targets=dict(SIZES.targets))
    return Manifest(
        position=Position(step=step, epoch=1, **position),
        world_size=2,
        strategy="ddp",
        identity="0123",
        data="4567",
        sizes=sizes,
        metrics={"loss": 0.5},
        files={},
    )


def some_tensors():
    chance = torch.Generator().manual_seed(0)
    names = ["weights/a", "exp_avg/a", "weights/b", "exp_avg_sq/b", "normaliser/brain/x/mean", "weights/c"]
    return {n: torch.randn(50, 5, generator=chance) for n in names} | {"steps/a": torch.tensor(3.0)}


@pytest.fixture
def store(tmp_path):
    return Store.at(tmp_path / "run")


def test_another_reader_finds_every_tensor_and_hash(store, tmp_path):
    tensors = some_tensors()
    write_checkpoint(store, a_manifest(), tensors)
    folder = tmp_path / "run" / "checkpoints" / "00000007"
    manifest = json.loads(json.loads((folder / "manifest.json").read_text())["manifest"])
    found = {}
    assert {p.name for p in folder.iterdir()} == set(manifest["files"]) | {"manifest.json"}
    for name, entry in manifest["files"].items():
        data = (folder / name).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (entry["sha256"], entry["num_bytes"])
        with safe_open(folder / name, "pt") as file:
            found |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[key], tensors[key]) for key in tensors)
    assert manifest["position"]["step"] == 7
    assert manifest["sizes"]["voxels"] == SIZES.voxels


def test_read_back_by_family(store):
    tensors = some_tensors()
    written = write_checkpoint(store, a_manifest(), tensors)
    assert read_manifest(store, 7) == written
    assert read_tensors(store, written).keys() == {"weights/a", "weights/b", "weights/c"}
    everything = read_tensors(store, written, ("weights", "moments", "normaliser"))
    assert everything.keys() == tensors.keys()
    assert all(torch.equal(everything[key], tensors[key]) for key in tensors)


def test_files_are_no_larger_than_asked(store):
    one = 50 * 5 * 4
    written = write_checkpoint(store, a_manifest(), some_tensors(), shard_bytes=2 * one)
    sizes = [entry.num_bytes for name, entry in written.files.items() if name.startswith("weights")]
    assert len(sizes) == 2
    assert max(sizes) < 3 * one


def test_a_flipped_bit_anywhere_is_refused(store, tmp_path):
    write_checkpoint(store, a_manifest(), some_tensors())
    for path in sorted((tmp_path / "run" / "checkpoints" / "00000007").iterdir()):
        good = path.read_bytes()
        for at in (0, len(good) // 2, len(good) - 20):
            path.write_bytes(good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
            with pytest.raises(IntegrityError, match=path.name):
                read_tensors(store, read_manifest(store, 7), ("weights", "moments", "normaliser"))
        path.write_bytes(good[: len(good) // 2])
        with pytest.raises(IntegrityError, match=path.name):
            read_tensors(store, read_manifest(store, 7), ("weights", "moments", "normaliser"))
        path.write_bytes(good)
    read_tensors(store, read_manifest(store, 7))


class Dies(LocalStore):
    """A store whose writer is killed at the n-th write."""

    left = 0

    def put(self, key, data):
        if self.left == 0:
            raise StorageError("killed")
        self.left -= 1
        super().put(key, data)


def test_killed_at_any_write_the_last_whole_checkpoint_stands(tmp_path):
    store = Dies(str(tmp_path))
    store.left = 100
    write_checkpoint(store, a_manifest(5), some_tensors())
    writes = 100 - store.left
    other = {name: tensor + 1 for name, tensor in some_tensors().items()}
    for step in (5, 6):  # over the same step, and a new one
        for survived in range(writes):
            store.left = survived
            with pytest.raises(StorageError):
                write_checkpoint(store, a_manifest(step), other)
            assert latest(store) == 5
            found = read_tensors(store, read_manifest(store, 5))
            assert torch.equal(found["weights/a"], some_tensors()["weights/a"])


def test_pruning_keeps_the_newest_and_the_best(store):
    for step in (1, 2, 3, 4, 5):
        write_checkpoint(store, a_manifest(step, best_step=2), some_tensors())
    prune(store, 2, best_step=2)
    assert committed(store) == [2, 4, 5]
    assert {key.split("/")[1] for key in store.list("checkpoints/")} == {"00000002", "00000004", "00000005"}
    assert best(store) == 2


def test_no_checkpoint_is_said_in_a_sentence(store):
    assert latest(store) is None
    with pytest.raises(ConfigError, match="no checkpoint; train"):
        best(store)


def test_the_writer_has_one_job_at_a_time_and_gives_errors_back():
    writer, gate, order = BackgroundWriter(), threading.Event(), []
    writer.submit(lambda: (gate.wait(5), order.append("first"), 1)[-1])
    assert writer.done() is None  # the caller goes on meanwhile
    threading.Timer(0.05, gate.set).start()
    writer.submit(lambda: (order.append("second"), 2)[-1])
    assert writer.wait() == 2
    assert order == ["first", "second"]

    def fails():
        raise StorageError("disk full")

    writer.submit(fails)
    with pytest.raises(StorageError, match="disk full"):
        writer.submit(lambda: 3)
    writer.close()
