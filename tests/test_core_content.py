"""Weights are what they are wherever they lie: fingerprints follow the files, not the place."""

import errno
import hashlib
import os
import shutil

import numpy as np
import pytest

from cineray.core.config import Config, recorded_fingerprint
from cineray.core.content import BY_CONTENT, NUM_SAMPLES, SAMPLE_BYTES, WHOLE_BYTES, Local, content_of
from cineray.core.errors import StorageError
from cineray.core.pretrained import Part

LARGE = 8 << 20


@pytest.fixture
def weights(tmp_path):
    """A part: a large file, a small one in a folder, and what a client left beside them."""
    folder = tmp_path / "weights"
    (folder / "unet").mkdir(parents=True)
    (folder / ".cache").mkdir()
    (folder / ".cache" / "lock").write_bytes(b"x")
    (folder / "unet" / "config.json").write_bytes(b"{}")
    (folder / "model.safetensors").write_bytes(np.random.default_rng(0).bytes(LARGE))
    return folder


class Uses(Config):
    """Settings with a part inside."""

    part: Part | None = None
    steps: int = 3


class Here(Config):
    """Settings with a place that stays as it was written."""

    place: Local


def test_the_content_is_names_sizes_and_samples(weights):
    data = (weights / "model.safetensors").read_bytes()
    starts = [i * (LARGE - SAMPLE_BYTES) // (NUM_SAMPLES - 1) for i in range(NUM_SAMPLES)]
    assert starts[-1] == LARGE - SAMPLE_BYTES
    text = f"model.safetensors\0{LARGE}\0".encode() + b"".join(data[i : i + SAMPLE_BYTES] for i in starts)
    text += b"unet/config.json\x002\0{}"
    assert content_of(weights) == hashlib.sha256(text).hexdigest()[:16]
    assert content_of(weights / "unet" / "config.json") == hashlib.sha256(b"\x002\0{}").hexdigest()[:16]


def test_a_fingerprint_is_the_same_wherever_a_part_lies(weights, tmp_path):
    before = Uses(part=Part(folder=str(weights)))
    shutil.copytree(weights, tmp_path / "copy", ignore=shutil.ignore_patterns(".cache"))
    after = before.override({"part.folder": str(tmp_path / "copy")})
    assert before.fingerprint() == after.fingerprint() != Uses().fingerprint()
    assert before.override({"steps": 4}).fingerprint() != before.fingerprint()
    assert Uses.loads(after.dump()) == after, "the YAML still says where it lies"
    assert recorded_fingerprint(after.dump()) == before.fingerprint()


def test_symbolic_links_are_followed(weights, tmp_path):
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "unet").symlink_to(weights / "unet")
    (tmp_path / "linked" / "model.safetensors").symlink_to(weights / "model.safetensors")
    assert content_of(tmp_path / "linked") == content_of(weights)


def test_the_home_folder_s_short_name_is_no_other_place(weights, monkeypatch):
    monkeypatch.setenv("HOME", str(weights.parent))
    home, full = (Here(place=place) for place in ("~/weights", str(weights)))
    assert home.fingerprint() == full.fingerprint() != Here(place="~/others").fingerprint()


def test_what_cannot_be_read_is_one_sentence_and_not_nothing(weights, monkeypatch):
    (weights / "gone.bin").symlink_to(weights / "nowhere")
    with pytest.raises(StorageError, match=r"read of \S*/weights/gone\.bin does not exist"):
        Uses(part=Part(folder=str(weights))).fingerprint()
    (weights / "gone.bin").unlink()

    def refuse(folder):
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StorageError, match=r"read of \S*/weights is not permitted"):
        content_of(weights)


def small_file(folder):
    (folder / "unet" / "config.json").write_bytes(b"[]")


def renamed(folder):
    (folder / "unet" / "config.json").rename(folder / "config.json")


def longer(folder):
    with open(folder / "model.safetensors", "ab") as file:
        file.write(b"\0")


def trained(folder):
    """One tensor of many, as large as what is read whole, with another step added to each of its weights."""
    data = np.fromfile(folder / "model.safetensors", np.uint8)
    data[3_000_001 : 3_000_001 + WHOLE_BYTES] += 1
    data.tofile(folder / "model.safetensors")


@pytest.mark.parametrize("change", [small_file, renamed, longer, trained])
def test_other_weights_are_another_fingerprint(weights, change):
    uses = Uses(part=Part(folder=str(weights)))
    before, size = uses.fingerprint(), os.path.getsize(weights / "model.safetensors")
    change(weights)
    assert uses.fingerprint() != before
    assert change is longer or os.path.getsize(weights / "model.safetensors") == size


def test_where_nothing_lies_the_place_itself_counts(tmp_path):
    one, other = (Part(folder=str(tmp_path / name)) for name in "ab")
    assert one.fingerprint() != other.fingerprint()
    assert one.model_dump(context=BY_CONTENT) == one.model_dump()
