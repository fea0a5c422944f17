"""Names of pretrained parts, and what is said where one is missing."""

import hashlib
import json
import pickle
import re

import pytest

from cineray.core.errors import ConfigError, IntegrityError
from cineray.core.pretrained import CatalogueEntry, Part, PartRecord, catalogue, folder_of, locate, parts_folder


def record(folder, **changes):
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"abc")
    digest = hashlib.sha256(b"abc").hexdigest()
    values = {"hub_id": "a/b", "revision": "main", "commit": "c" * 40, "licence": "MIT"}
    values |= {"files": {"weights": {"bytes": 3, "sha256": digest}}} | changes
    PartRecord.path(folder).write_text(json.dumps(values))


def test_the_catalogue_names_hub_revision_licence_and_size():
    entries = catalogue()
    wanted = {"clip-bigg", "clip-l", "sd-vae", "taesd", "sd15", "realistic-vision", "animatediff-v3", "sparsectrl-rgb"}
    assert wanted <= set(entries)
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+", e.hub_id) and e.licence and e.revision for e in entries.values())
    assert len({e.part.label for e in entries.values()}) == len(entries), "two names for one part"
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for e in entries.values() for digest in e.sha256.values())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "exactly one"),
        ({"folder": "x", "hub_id": "a/b"}, "exactly one"),
        ({"folder": "x", "revision": "main"}, "only beside hub_id"),
        ({"folder": "x", "file": "y"}, "found file=y of a local folder, expected it only beside hub_id"),
        ({"hub_id": "clip"}, "owner/name"),
    ],
)
def test_a_part_has_one_place(values, said):
    with pytest.raises(ConfigError, match=said):
        Part.parse(values)


def test_a_folder_is_found_and_a_missing_one_named(tmp_path):
    assert locate(Part(folder=str(tmp_path))) == tmp_path
    with pytest.raises(ConfigError, match=r"no-such-part.*light generator"):
        locate(Part(folder=str(tmp_path / "no-such-part")))


def test_a_folder_named_from_where_one_stands_is_found_from_elsewhere(tmp_path, monkeypatch):
    """As by a process that Ray starts in a folder of its own."""
    (tmp_path / "weights").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    parts = [Part(folder="weights"), Part.parse({"folder": "./weights"}), Part(folder="~/weights")]
    monkeypatch.chdir("elsewhere")
    assert [locate(pickle.loads(pickle.dumps(part))) for part in parts] == [tmp_path / "weights"] * 3


def test_a_pulled_part_is_found_and_only_at_its_revision(tmp_path):
    part = Part(hub_id="a/b")
    record(folder_of(part, tmp_path))
    assert locate(part, root=tmp_path).joinpath("weights").read_bytes() == b"abc"
    with pytest.raises(ConfigError, match="a/b@v2"):
        locate(Part(hub_id="a/b", revision="v2"), root=tmp_path)


def test_a_part_without_its_record_was_not_pulled_to_the_end(tmp_path):
    part = catalogue()["sd15"].part
    folder_of(part, tmp_path).mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"models pull sd15`.*light generator"):
        locate(part, root=tmp_path)
    with pytest.raises(ConfigError, match=r"models pull a/b@main`.*ask for grey$"):
        locate(Part(hub_id="a/b"), root=tmp_path, instead="ask for grey")


def test_a_torn_record_is_named(tmp_path):
    folder = tmp_path / "a--b@main"
    record(folder)
    PartRecord.path(folder).write_text('{"hub_id": ')
    with pytest.raises(IntegrityError, match=r"a--b@main\.json"):
        locate(Part(hub_id="a/b"), root=tmp_path)


def test_the_parts_folder_is_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("CINERAY_MODELS", str(tmp_path))
    assert parts_folder() == tmp_path
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CINERAY_MODELS", "parts")
    assert parts_folder() == tmp_path / "parts"
    monkeypatch.delenv("CINERAY_MODELS")
    assert parts_folder().parts[-3:] == (".cache", "cineray", "models")


def test_files_of_one_repository_are_parts_of_their_own(tmp_path):
    motion, lora = (catalogue()[name].part for name in ("animate-lcm", "animate-lcm-lora"))
    assert motion.hub_id == lora.hub_id
    record(folder_of(motion, tmp_path))
    with pytest.raises(
        ConfigError, match=r"AnimateLCM_sd15_t2v_lora\.safetensors is not at .*models pull animate-lcm-lora`"
    ):
        locate(lora, root=tmp_path)
    record(folder_of(lora, tmp_path))
    assert locate(lora, root=tmp_path) != locate(motion, root=tmp_path)
    assert {path.parent for path in tmp_path.glob("*")} == {tmp_path}, "no folder inside another part's"


@pytest.mark.parametrize("name", ["a/b@main", "a/b@v2:c/d.pth", "datasets/a/b@main", "datasets/a/b@main:c", "sd15"])
def test_a_name_and_its_entry_are_one_to_one(name):
    entry = CatalogueEntry.named(name)
    assert entry.name == name
    assert entry.kind == ("dataset" if name.startswith("datasets/") else "model")


def test_names_without_revision_are_of_the_main_branch():
    assert CatalogueEntry.named("a/b:c").part == Part(hub_id="a/b", revision="main", file="c")
    assert CatalogueEntry.named("datasets/a/b").part == Part(hub_id="a/b", revision="main")
