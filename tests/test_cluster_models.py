"""Pulling, listing and verifying pretrained parts, with the hub's own client against a hub on this machine."""

import hashlib
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from cineray.cluster.models import Fetched, fetch_from_hub, listing, pull, verify
from cineray.core.errors import ConfigError, IntegrityError, StorageError
from cineray.core.pretrained import Part, PartRecord, catalogue, folder_of, locate
from fake_hub import COMMIT, fake_hub

FILES = {"config.json": b"{}", "model.safetensors": b"abc" * 1000, "unet/notes.txt": b"q"}
NAME = "owner/name@main"


def fetch(files=FILES, **fetched):
    """A hub that sends these files."""

    def send(entry, folder):
        for name, data in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return Fetched(commit=COMMIT, **fetched)

    return send


def cineray(root, hub, *words):
    """The command in a process of its own: the client reads its environment when it is imported."""
    env = os.environ | {
        "CINERAY_MODELS": str(root),
        "HF_ENDPOINT": hub,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(root / "hf"),
    }
    env |= {"HF_HUB_DISABLE_TELEMETRY": "1"}
    return subprocess.run(
        [sys.executable, "-m", "cineray.cluster.cli", "models", *words], env=env, capture_output=True, text=True
    )


def test_a_part_is_pulled_verified_damaged_named_and_pulled_again(tmp_path):
    with fake_hub("owner/name", FILES) as hub:
        done = cineray(tmp_path, hub, "pull", NAME)
        assert done.returncode == 0, done.stderr
        folder = locate(Part(hub_id="owner/name"), root=tmp_path)
        assert f"3 files at commit {COMMIT}, licence mit, in {folder}" in done.stdout
        assert {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()} == FILES
        assert "as it was pulled" in cineray(tmp_path, hub, "verify").stdout

        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"X")
        damaged = cineray(tmp_path, hub, "verify", NAME)
        assert damaged.returncode == 1
        assert "model.safetensors has sha256" in damaged.stdout
        assert f"cineray models pull {NAME}" in damaged.stdout

        assert cineray(tmp_path, hub, "pull", NAME).returncode == 0
        assert weights.read_bytes() == FILES["model.safetensors"]


def test_what_the_hub_does_not_have_is_one_sentence(tmp_path):
    with fake_hub("owner/name", FILES) as hub:
        for name in ("owner/name@v9", "owner/other"):
            done = cineray(tmp_path, hub, "pull", name)
            assert done.returncode == 2
            assert "put datasets/ before it" in done.stderr
            assert (
                f"knows no {Part(hub_id=name.split('@')[0], revision=(name + '@main').split('@')[1]).label}"
                in done.stderr
            )
    assert PartRecord.of(tmp_path / "owner--name@v9") is None


def test_a_file_of_a_repository_of_data_is_pulled_alone(tmp_path):
    """As the published checkpoints lie: other files of theirs are not brought, and another file is another part."""
    names = [f"datasets/owner/name@main:{file}" for file in ("unet/notes.txt", "config.json")]
    with fake_hub("owner/name", FILES, "dataset") as hub:
        assert "knows no owner/name@main" in cineray(tmp_path, hub, "pull", "owner/name").stderr
        for name in names:
            done = cineray(tmp_path, hub, "pull", name)
            assert done.returncode == 0, done.stderr
        verified = cineray(tmp_path, hub, "verify").stdout.splitlines()
    assert sorted(verified) == sorted(f"{name}: as it was pulled" for name in names)
    folder = locate(Part(hub_id="owner/name", file="unet/notes.txt"), root=tmp_path)
    assert [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()] == ["unet/notes.txt"]
    assert set(names) < {row.name for row in listing(tmp_path)}


def test_the_client_is_asked_for_the_catalogues_kind_revision_and_files(tmp_path, monkeypatch):
    """What goes to the hub's client, for every part; the parts that published runs begin with are among them."""
    import huggingface_hub

    asked: list[dict] = []

    class Api:
        def repo_info(self, hub_id, **given):
            asked.append({"hub_id": hub_id, **given})
            return SimpleNamespace(sha=COMMIT, siblings=[])

    def snapshot(hub_id, **given):
        asked.append({"hub_id": hub_id, **given})

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    for entry in catalogue().values():
        asked.clear()
        fetch_from_hub(entry, tmp_path)
        assert {(call["hub_id"], call["repo_type"]) for call in asked} == {(entry.hub_id, entry.kind)}
        assert [call["revision"] for call in asked] == [entry.revision, COMMIT]
        assert asked[1]["allow_patterns"] == ([entry.file] if entry.file else list(entry.files) or None)
    published = {"mindeye2": "unclip6", "mindeye2-backbone": "last.pth", "neuroclips-text": "coco_tokens_avg_proj.pth"}
    for name, file in published.items():
        assert catalogue()[name].kind == "dataset"
        assert file in (catalogue()[name].file or "")


def test_nothing_pulled_is_nothing_to_verify(tmp_path):
    done = cineray(tmp_path, "http://127.0.0.1:9", "verify")
    assert (done.returncode, done.stdout.count("\n")) == (0, 1)
    assert f"nothing to verify: no pretrained part was pulled to {tmp_path}" in done.stdout


def test_without_a_network_it_says_so(tmp_path):
    done = cineray(tmp_path, "http://127.0.0.1:9", "pull", "taesd")
    assert done.returncode == 2
    assert done.stderr.startswith("cineray: no network: madebyollin/taesd@main did not come from the hub")
    assert len(done.stderr.strip().splitlines()) == 1
    with pytest.raises(ConfigError, match="models pull taesd"):
        locate(catalogue()["taesd"].part, root=tmp_path)


def test_a_file_that_is_not_what_the_hub_states_is_refused(tmp_path):
    with pytest.raises(IntegrityError, match=r"model\.safetensors has sha256"):
        pull(NAME, tmp_path, fetch(sha256={"model.safetensors": hashlib.sha256(b"other").hexdigest()}))
    assert PartRecord.of(folder_of(Part(hub_id="owner/name"), tmp_path)) is None


def test_a_whole_part_is_left_alone_and_a_short_one_pulled_again(tmp_path):
    record = pull(NAME, tmp_path, fetch())
    assert pull(NAME, tmp_path, fetch({})) == record, "nothing was asked for"
    (folder_of(Part(hub_id="owner/name"), tmp_path) / "config.json").unlink()
    assert dict(verify([], tmp_path)) == {NAME: ["config.json is missing"]}
    assert pull(NAME, tmp_path, fetch()) == record
    assert dict(verify([], tmp_path)) == {NAME: []}


def test_an_interrupted_pull_leaves_no_part(tmp_path):
    def half(entry, folder):
        fetch()(entry, folder)
        raise StorageError("gone")

    with pytest.raises(StorageError, match="gone"):
        pull(NAME, tmp_path, half)
    with pytest.raises(ConfigError, match=f"models pull {NAME}"):
        locate(Part(hub_id="owner/name"), root=tmp_path)
    with pytest.raises(ConfigError, match=f"models pull {NAME}"):
        dict(verify([NAME], tmp_path))


def test_nothing_sent_is_no_part(tmp_path):
    with pytest.raises(StorageError, match="sent no file"):
        pull("taesd", tmp_path, fetch({}))


def test_the_list_shows_what_is_there(tmp_path):
    before = {row.name: row for row in listing(tmp_path)}
    assert set(before) == set(catalogue())
    assert {row.present for row in before.values()} == {"no"}
    pull("taesd", tmp_path, fetch(licence="mit"))
    pull(NAME, tmp_path, fetch())
    after = {row.name: row for row in listing(tmp_path)}
    assert (after["taesd"].present, after["taesd"].licence) == (COMMIT[:12], "mit")
    assert after["taesd"].size == "3e-06 GB"
    assert after[NAME].present == COMMIT[:12]
    assert before["taesd"].sha256 == "-"
    assert before["animate-lcm-lora"].sha256 == "8f90d840e075"
    assert after[NAME].sha256 == f"{hashlib.sha256(FILES['model.safetensors']).hexdigest()[:12]} +2"


def test_the_list_on_a_narrow_terminal_shows_names_revisions_and_digests_whole(tmp_path):
    shown = cineray(tmp_path, "http://127.0.0.1:9", "list").stdout
    for row in listing(tmp_path):
        assert f"\n{row.name} " in shown
        assert row.revision in shown
        assert row.sha256 in shown


def test_the_list_tells_pinned_parts_from_those_that_move(tmp_path):
    pull(f"owner/name@{COMMIT}", tmp_path, fetch())
    rows = {row.name: row.revision for row in listing(tmp_path)}
    assert rows[f"owner/name@{COMMIT}"] == COMMIT[:12]
    assert rows["sparsectrl-rgb"] == "b8003d681d81"
    assert rows["animatediff-v3-adapter"] == "8b5ff2775000"
    assert rows["taesd"] == "unpinned"


def test_an_unknown_name_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="found part 'clip', expected owner/name@revision or one of clip-bigg"):
        pull("clip", tmp_path, fetch())
