"""Every check finds the thing that is broken, and nothing where nothing is."""

import os
import shutil
from collections import namedtuple
from contextlib import contextmanager
from pathlib import Path

import pytest

from cineray.cluster import checks
from cineray.cluster.checks import Finding
from cineray.cluster.limits import machine_limits
from cineray.core import storage_s3
from cineray.core.storage import LocalStore, Store
from cineray.datasets.ingest import ingest
from cineray.datasets.manifest import Manifest
from conftest import REPOSITORY
from films import FilmSource
from fixtures_s3 import BUCKET, FaultProxy, request

NOBODY = 65534
Usage = namedtuple("Usage", "total used free")


def wrong(finding: Finding, words: str) -> None:
    """It failed, and says why in one sentence."""
    assert finding.ok is False
    assert words in f"{finding.found}; {finding.advice}"
    assert "\n" not in finding.found + finding.advice


def noted(finding: Finding, words: str) -> None:
    assert finding.ok is None
    assert words in f"{finding.found}; {finding.advice}"


def test_python():
    wrong(checks.check_python((3, 10, 14)), "3.10.14; expected 3.11 or later")
    assert checks.check_python((3, 11, 0)).ok
    assert checks.check_python((4, 0, 0)).ok


@pytest.fixture
def fake_package(tmp_path, monkeypatch):
    """Puts a distribution of a name and version before the real ones."""

    def make(name: str, version: str) -> None:
        (tmp_path / f"{name}-{version}.dist-info").mkdir()
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (tmp_path / f"{name}-{version}.dist-info" / "METADATA").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))

    return make


def test_packages(fake_package, tmp_path, monkeypatch):
    import numpy

    assert checks.check_package("numpy", numpy.__version__) == Finding("numpy", True, numpy.__version__)
    wrong(checks.check_package("no-such-package", "1.2"), "not installed; pip install 'no-such-package==1.2'")
    fake_package("numpy", "1.0")
    noted(checks.check_package("numpy", "2.4.6"), "1.0; tested with 2.4.6")
    (tmp_path / "cannot_load.py").write_text("raise OSError('libcudart.so.13: cannot open\\nshared object file')")
    monkeypatch.setitem(checks.PACKAGES, "numpy", "cannot_load")
    wrong(checks.check_package("numpy", None), "cannot be imported (OSError: libcudart.so.13: cannot open shared")


def test_importing_says_nothing_on_the_standard_output(tmp_path, monkeypatch, capsys):
    """One line of JSON is one line, whatever a package has to say."""
    (tmp_path / "chatty.py").write_text("print('hello')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(checks.PACKAGES, "numpy", "chatty")
    assert checks.check_package("numpy", None).ok
    assert capsys.readouterr() == ("", "hello\n")


def test_a_build_for_another_device_is_the_tested_version(fake_package):
    fake_package("numpy", "2.4.6+cpu")
    assert checks.check_package("numpy", "2.4.6").ok


def test_tested_versions_cover_every_package(tmp_path):
    tested = checks.tested_versions(REPOSITORY / "constraints.txt")
    assert tested.keys() >= checks.PACKAGES.keys()
    assert f"ray=={tested['ray']}\n" in (REPOSITORY / "constraints.txt").read_text()
    assert checks.tested_versions(tmp_path / "constraints.txt") == {}


def test_a_missing_compiler_is_a_note(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    noted(checks.check_tool("ninja"), "not on PATH")
    (tmp_path / "ninja").touch(mode=0o755)
    assert checks.check_tool("ninja").found == str(tmp_path / "ninja")


GROUPS = {
    "version 2, limit above": (
        "0::/jobs/7\n",
        {"jobs/memory.max": "1000", "jobs/7/memory.max": "max", "jobs/7/cpu.max": "50000 100000", "cpu.max": ""},
    ),
    "version 1": (
        "4:memory:/jobs/7\n3:cpu,cpuacct:/jobs/7\n0::/\n",
        {
            "memory/jobs/7/memory.limit_in_bytes": "1000",
            "memory/memory.limit_in_bytes": str(2**63 - 4096),
            "cpu/jobs/7/cpu.cfs_quota_us": "50000",
            "cpu/jobs/7/cpu.cfs_period_us": "100000",
            "cpu/cpu.cfs_quota_us": "-1",
            "cpu/cpu.cfs_period_us": "100000",
        },
    ),
    "container that sees its group as the root": ("0::/\n", {"memory.max": "1000", "cpu.max": "50000 100000"}),
}


@pytest.mark.parametrize(("own", "files"), GROUPS.values(), ids=GROUPS)
def test_limits_of_a_container_count(tmp_path, own, files):
    for name, text in {"own": own, **files, "elsewhere/memory.max": "1"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    assert machine_limits(tmp_path / "own", tmp_path) == (1000, 0.5)


def test_without_limits_the_machine_counts(tmp_path):
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    memory, cpus = machine_limits(tmp_path / "none", tmp_path)
    assert memory == pytest.approx(pages, rel=0.01)
    assert cpus == len(os.sched_getaffinity(0))


def test_too_little_of_the_machine_is_a_note(monkeypatch, tmp_path):
    noted(checks.check_cpus(0.5), "0.5; expected 1 or more")
    noted(checks.check_memory(2**31), "2.0 GiB; expected 4.0 GiB")
    assert checks.check_cpus(1).ok
    assert checks.check_memory(2**32).ok
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(100 * 2**30, 96 * 2**30, 4 * 2**30))
    noted(checks.check_disk(str(tmp_path)), "4.0 GiB free of 100.0 GiB; Ray stops at 95% full")
    noted(checks.check_shared_memory(20 * 2**30, str(tmp_path)), "expected 6.0 GiB (30% of the memory)")
    assert checks.check_shared_memory(10 * 2**30, str(tmp_path)).ok
    noted(checks.check_shared_memory(10 * 2**30, str(tmp_path / "none")), "0.0 GiB free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(100 * 2**30, 94 * 2**30, 6 * 2**30))
    assert checks.check_disk(str(tmp_path / "not" / "there")).ok


def test_a_driver_without_gpus_is_told_apart(monkeypatch, tmp_path):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("PATH", str(tmp_path))
    noted(checks.check_gpus(), "runs on the CPU")
    (tmp_path / "nvidia-smi").touch(mode=0o755)
    noted(checks.check_gpus(), "update the driver")


@pytest.fixture(params=["folder", "new folder", "s3"])
def place(request, tmp_path) -> str:
    if request.param == "s3":
        return request.getfixturevalue("s3_url")
    return str(tmp_path / "runs" if request.param == "new folder" else tmp_path)


def test_writing_leaves_nothing_behind(place, tmp_path):
    assert checks.check_writable(place).ok
    assert Store.at(place).list(unfinished=True) == []
    assert list(tmp_path.iterdir()) == []


@contextmanager
def without_rights(folder: Path):
    """``folder`` belongs to somebody else."""
    folder.chmod(0o500)
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    wrong(checks.check_writable(f"{tmp_path}/file/runs"), "found a file where a folder was expected")
    wrong(checks.check_writable("gs://bucket/runs"), "expected a folder or s3://bucket/prefix")
    with without_rights(tmp_path):
        wrong(checks.check_writable(f"{tmp_path}/runs"), "is not permitted; check owner and mode")


def test_a_bucket_that_cannot_be_written(s3_endpoint, s3_url, monkeypatch, tmp_path):
    wrong(checks.check_writable("s3://nobody-made-this/x"), "no such bucket; create it")
    assert request(s3_endpoint, "POST", "/moto-api/reset-auth", b"0") == 200
    try:
        wrong(checks.check_writable(s3_url), "was refused (InvalidAccessKeyId); check AWS_ACCESS_KEY_ID")
        wrong(checks.check_dataset(s3_url), "check AWS_ACCESS_KEY_ID")
    finally:
        request(s3_endpoint, "POST", "/moto-api/reset-auth", b"1000000000")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    storage_s3._file_system_of.cache_clear()
    try:
        wrong(checks.check_writable(s3_url), "check AWS_ACCESS_KEY_ID")
    finally:
        storage_s3._file_system_of.cache_clear()


def test_a_bucket_that_ignores_conditions(fault_proxy: FaultProxy, s3_url):
    fault_proxy.fault = lambda method, path: "strip"
    wrong(checks.check_writable(s3_url), f"s3://{BUCKET} ignores conditional writes")
    assert Store.at(s3_url).list() == []


LIES = {
    "create replaces": ({"create": LocalStore.put}, "was written twice"),
    "swap replaces": ({"swap": lambda self, key, data, tag: self.put(key, data)}, "was written twice"),
    "old bytes": ({"get": lambda self, key: b"old"}, "gave b'old', expected b'put'"),
}


@pytest.mark.parametrize(("methods", "words"), LIES.values(), ids=LIES)
def test_a_store_that_lies(tmp_path, monkeypatch, methods, words):
    liar = type("Liar", (LocalStore,), methods)
    monkeypatch.setattr(Store, "at", staticmethod(lambda url: liar(str(url))))
    wrong(checks.check_writable(str(tmp_path)), words)
    assert list(tmp_path.iterdir()) == []


def test_a_bucket_that_may_not_be_listed(s3_url, monkeypatch):
    monkeypatch.setattr(storage_s3.S3Store, "sizes", lambda self, prefix="", unfinished=False: {})
    wrong(checks.check_writable(s3_url), "does not list doctor-")


def test_data_sets(tmp_path):
    wrong(checks.check_dataset(f"{tmp_path}/none"), "holds no manifest.json; ingest a data set there")
    ingest(FilmSource(scans=12, clips=10), tmp_path)
    assert checks.check_dataset(str(tmp_path)).found == "48 scans of 2 subjects, TR 1 s"
    store = Store.at(tmp_path)
    key = Manifest.read(store).objects[0].key
    store.put(key, store.get(key)[:-1])
    wrong(checks.check_dataset(str(tmp_path)), f"{key} has")
    store.delete("manifest.json")
    store.put("manifest.json", b"{}")
    wrong(checks.check_dataset(str(tmp_path)), "is not a manifest")


def test_data_folder(tmp_path):
    noted(checks.check_data_folder(None), "not set")
    noted(checks.check_data_folder(f"{tmp_path}/none"), "is no folder")
    assert checks.check_data_folder(str(tmp_path)).ok


NODES = [
    {"NodeManagerHostname": "head", "Resources": {"CPU": 8.0}},
    {"NodeManagerHostname": "gpu-1", "Resources": {"CPU": 16.0, "GPU": 2.0}},
]


def test_nodes_of_other_versions():
    good = checks.judge_nodes(NODES, ["Ray 2 Python 3"] * 2, "Ray 2 Python 3")
    assert good.ok
    assert good.found == "Ray 2 Python 3 on head with 8 CPUs and 0 GPUs, gpu-1 with 16 CPUs and 2 GPUs"
    found = checks.judge_nodes(NODES, ["Ray 2 Python 3", "Ray 1 Python 3"], "Ray 2 Python 3")
    wrong(found, "Ray 1 Python 3 on gpu-1; expected Ray 2 Python 3, as here")


def test_ray_that_does_not_start(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    wrong(checks.check_ray(), "cannot reach the Ray cluster at RAY_ADDRESS=http://127.0.0.1:8265 (Invalid Ray address")
    monkeypatch.setitem(checks.PACKAGES, "torch", "no_such_module")
    wrong(checks.check_ray(), "not started; repair torch first")
