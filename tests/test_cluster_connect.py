"""Ray as a command meets it: private and closed, or a cluster that gets the code of the checkout."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cineray.cluster.connect import ROOTS, _checkout, connected
from cineray.core.errors import CinerayError
from conftest import REPOSITORY
from toys import toy_run

CONNECT = """
import time
import ray, torch  # to load them is no part of the wait
from cineray.cluster.connect import connected
from cineray.core.errors import CinerayError
start_s = time.monotonic()
try:
    with connected():
        print("connected")
except CinerayError as error:
    print(error)
print(time.monotonic() - start_s)
"""
"""Says what became of it, and how long it took."""


def start(code: str, home: Path, **environment: str) -> subprocess.Popen[str]:
    """Python without anything of Ray in its environment, at home in ``home``."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    clean |= {"HOME": str(home), **environment}
    return subprocess.Popen([sys.executable, "-c", code], env=clean, text=True, stdout=subprocess.PIPE)


def told(process: subprocess.Popen[str]) -> list[str]:
    out = process.communicate(timeout=200)[0]
    assert process.returncode == 0
    return out.splitlines()


@pytest.fixture(scope="module")
def unreachable(tmp_path_factory) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Attempts at a port that nobody holds, and at one whose holder never answers; they go on beside other tests."""
    with socket.socket() as silent:
        silent.bind(("", 0))
        silent.listen()
        addresses = {"closed": "127.0.0.1:1", "silent": f"127.0.0.1:{silent.getsockname()[1]}"}
        home = tmp_path_factory.mktemp("home")
        yield {name: start(CONNECT, home, RAY_ADDRESS=address) for name, address in addresses.items()}


PRIVATE = """
import json, os, subprocess, sys
import ray  # before Ray's mode is known
from cineray.cluster.connect import connected

def inside():
    from cineray.core.pretrained import parts_folder
    os.chdir("/")  # as Ray Train does, to a folder of its own
    return [os.environ.get("RAY_AUTH_MODE"), len(os.environ.get("RAY_AUTH_TOKEN", "")), str(parts_folder())]

def outsider(address):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run([sys.executable, "-c", sys.argv[1]], env=clean | {"RAY_ADDRESS": address},
                          text=True, stdout=subprocess.PIPE)
    return done.stdout

found = []
for address in ("", "local"):
    os.environ["RAY_ADDRESS"] = address
    with connected(num_cpus=1):
        found.append([ray.get(ray.remote(inside).remote()), ray.cluster_resources()["CPU"]])
        joined = outsider(ray.get_runtime_context().gcs_address)
    found.append(ray.is_initialized())
print(json.dumps({"found": found, "joined": joined}))
"""


@pytest.mark.slow
@pytest.mark.cluster
def test_a_private_ray_is_closed_to_others_and_leaves_the_home_folder_alone(unreachable, tmp_path):
    code = PRIVATE.replace("sys.argv[1]", repr(CONNECT))
    told_last: Any = json.loads(told(start(code, tmp_path, CINERAY_MODELS="parts"))[-1])
    assert told_last["found"] == [[["token", 64, os.path.abspath("parts")], 1.0], False] * 2
    assert told_last["joined"].startswith("cannot reach the Ray cluster")
    assert list(tmp_path.iterdir()) == []


SEARCHING = """
import json, os
import ray
from cineray.cluster.connect import connected

class Cleaner:  # as Ray Train starts its own: detached, with variables of its own
    def wrong(self, without):
        from cineray.training.tune import _wrong_with_state_api
        os.environ.pop(without, None)
        return _wrong_with_state_api()

with connected(num_cpus=1, searching=True):
    options = {"lifetime": "detached", "runtime_env": {"env_vars": {"ITS": "own"}}}
    cleaners = [ray.remote(num_cpus=0)(Cleaner).options(**options).remote() for _ in range(2)]
    wrong = [cleaner.wrong.remote(name) for cleaner, name in zip(cleaners, ("", "RAY_ADDRESS"))]
    print(json.dumps(ray.get(wrong)))
"""
ANOTHER_RAY = """
import sys, ray
ray.init(address="local", num_cpus=1)
print("it runs", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
@pytest.mark.cluster
def test_a_search_asks_its_own_ray_beside_another(unreachable, tmp_path):
    with subprocess.Popen([sys.executable, "-c", ANOTHER_RAY], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout is not None
            assert b"it runs" in other.stdout.readline()
            wrong, without_address = json.loads(told(start(SEARCHING, tmp_path))[-1])
        finally:
            other.communicate()
    assert wrong == ""
    assert without_address.startswith("found no answer (Found multiple active Ray instances")


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Address of a running cluster of two nodes."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 100_000_000}
    started = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    try:
        started.add_node(**node)
        yield started.address
    finally:
        started.shutdown()


@pytest.mark.slow
@pytest.mark.cluster
def test_a_cluster_runs_the_code_of_the_checkout(unreachable, cluster, monkeypatch):
    import ray

    def where(root: str) -> tuple[str, bytes]:
        import importlib
        from pathlib import Path

        module = importlib.import_module({"core": "cineray.core.config"}.get(root, "cineray.training.run"))
        return str(module.__file__), Path(str(module.__file__)).read_bytes()

    def address() -> str | None:
        return os.environ.get("RAY_ADDRESS")

    monkeypatch.setenv("RAY_ADDRESS", cluster)
    with connected(searching=True):
        assert sum(node["Alive"] for node in ray.nodes()) == 2
        found = ray.get([ray.remote(where).remote(root) for root in ("core", "training")], timeout=120)
        assert ray.get(ray.remote(address).remote()) == ray.get_runtime_context().gcs_address
    assert not ray.is_initialized()
    for (path, content), name in zip(found, ("core/cineray/core/config", "training/cineray/training/run"), strict=True):
        assert "py_modules_files" in path  # Ray's copy comes before what is installed on the node
        assert path.endswith(f"/{name.partition('/')[2]}.py")
        assert content == (REPOSITORY / f"{name}.py").read_bytes()


@pytest.mark.slow
@pytest.mark.cluster
def test_a_search_is_refused_where_its_stopped_trials_would_keep_their_cpus(
    unreachable, cluster, tmp_path, monkeypatch
):
    from cineray.training.space import SearchConfig
    from cineray.training.tune import Search, search

    monkeypatch.setenv("RAY_ADDRESS", cluster)
    what = Search(run=toy_run(), space={}, search=SearchConfig())
    with (
        connected(searching=True),
        pytest.raises(CinerayError, match=r"found no answer .*expected Ray's state API .*start Ray with its dashboard"),
    ):
        search(what, str(tmp_path / "search"))
    assert not (tmp_path / "search").exists()


@pytest.mark.slow
@pytest.mark.cluster
def test_the_doctor_looks_at_every_node(unreachable, cluster, monkeypatch):
    from cineray.cluster.checks import check_ray

    monkeypatch.setenv("RAY_ADDRESS", cluster)
    finding = check_ray()
    assert finding.ok, finding
    assert finding.found.count("with 1 CPUs and 0 GPUs") == 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["closed", "silent"])
def test_an_address_that_does_not_answer(unreachable, kind):
    message, seconds = told(unreachable[kind])
    assert message.startswith("cannot reach the Ray cluster at RAY_ADDRESS=127.0.0.1:")
    assert "check the address" in message
    assert float(seconds) < 60


def test_an_address_that_is_none(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:8265")
    before, start_s = dict(os.environ), time.monotonic()
    words = r"cannot reach .*Invalid Ray address: 'http.*; check the address"
    with pytest.raises(CinerayError, match=words) as caught, connected():
        pass
    assert "\n" not in str(caught.value)
    assert time.monotonic() - start_s < 30
    assert "RAY_gcs_server_port_wait_time_s" not in os.environ
    assert os.environ.keys() - before.keys() <= {"RAY_USAGE_STATS_ENABLED", "DS_ACCELERATOR"}


def lonely(paths: list[str], code: str) -> Any:
    """JSON from a Python that knows the standard library and ``paths``, nothing else."""
    code = f"import json, sys; sys.path[:0] = {paths}; print(json.dumps({code}))"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_folders_that_are_sent_hold_every_part():
    """Ray puts each one, under its own name, on the path of the workers."""
    folders = _checkout()
    assert [Path(folder).name for folder in folders] == ["cineray"] * len(ROOTS)
    find = f"[__import__('importlib.util').util.find_spec('cineray.' + r) is not None for r in {ROOTS}]"
    assert lonely([str(Path(folder).parent) for folder in folders], find) == [True] * len(ROOTS)
    assert lonely([], "__import__('importlib.util').util.find_spec('cineray') is None")


def test_nothing_is_sent_where_the_wheel_is_installed(tmp_path):
    for root in ROOTS:
        shutil.copytree(REPOSITORY / root / "cineray" / root, tmp_path / "cineray" / root)
    assert lonely([str(tmp_path)], "__import__('cineray.cluster.connect').cluster.connect._checkout()") == []
