"""Checks of a machine, one by one: what was found and, where that is not enough, what is expected and what to do."""

import platform
import shutil
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from textwrap import shorten
from typing import Any

from cineray.core.errors import CinerayError, ConflictError, IntegrityError
from cineray.core.storage import Store

__all__ = [
    "PACKAGES",
    "Finding",
    "check_cpus",
    "check_data_folder",
    "check_dataset",
    "check_disk",
    "check_gpus",
    "check_memory",
    "check_package",
    "check_python",
    "check_ray",
    "check_shared_memory",
    "check_tool",
    "check_writable",
    "judge_nodes",
    "tested_versions",
]

PACKAGES = {
    "ray": "ray",
    "torch": "torch",
    "torchvision": "torchvision",
    "deepspeed": "deepspeed",
    "diffusers": "diffusers",
    "transformers": "transformers",
    "open_clip_torch": "open_clip",
    "pyarrow": "pyarrow",
    "numpy": "numpy",
    "s3fs": "s3fs",
}
"""Distribution -> module."""

GIB = 1 << 30
MIN_PYTHON = (3, 11)
MIN_MEMORY_BYTES = 4 * GIB
"""A private Ray, the command and one worker that has imported the training code take 1.6 GiB, without any data."""
MAX_DISK_USED = 0.95
"""Ray writes nothing more to a disk that is fuller (``local_fs_capacity_threshold``)."""
STORE_SHARE, MAX_STORE_BYTES = 0.3, 200 * 10**9
"""Ray's object store: this part of the memory, up to a limit (``DEFAULT_OBJECT_STORE_…``), where /dev/shm has it."""
TASK_DEADLINE_S = 60.0


@dataclass(frozen=True)
class Finding:
    """One check; ``ok`` is None for what is worth knowing and stops nothing."""

    name: str
    ok: bool | None
    found: str
    advice: str = ""


def check_python(version: tuple[int, ...]) -> Finding:
    """The interpreter."""
    found, expected = (".".join(map(str, numbers)) for numbers in (version, MIN_PYTHON))
    if version >= MIN_PYTHON:
        return Finding("Python", True, found)
    return Finding("Python", False, found, f"expected {expected} or later; make the environment with that one")


def tested_versions(path: Path) -> dict[str, str]:
    """Distribution -> version, from a constraints file; empty where there is none."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return {name: version for name, _, version in (line.partition("==") for line in lines)}


def check_package(name: str, tested: str | None) -> Finding:
    """A distribution is installed and can be imported; another version than the tested one is a note."""
    install = f"pip install '{name}{f'=={tested}' if tested else ''}'"
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(name, False, "not installed", install)
    try:
        with redirect_stdout(sys.stderr):  # some say things as they are imported
            import_module(PACKAGES[name])
    except Exception as error:  # a broken binary raises whatever it likes; all of it is told
        reason = shorten(f"{type(error).__name__}: {error}", 200, placeholder=" …")
        return Finding(name, False, f"{version}, cannot be imported ({reason})", f"{install} --force-reinstall")
    if tested and version.partition("+")[0] != tested:
        return Finding(name, None, version, f"tested with {tested}; {install}")
    return Finding(name, True, version)


def check_tool(name: str) -> Finding:
    """A program that DeepSpeed calls to compile what moves Adam to the CPU; our own optimiser needs none."""
    if place := shutil.which(name):
        return Finding(name, True, place)
    how = "pip install ninja, and activate the environment" if name == "ninja" else f"install {name} with the system"
    return Finding(name, None, "not on PATH", f"only DeepSpeed's own CPU Adam needs it; {how}")


def check_cpus(num_cpus: float) -> Finding:
    """CPUs that this process may use."""
    if num_cpus >= 1:
        return Finding("CPUs", True, f"{num_cpus:g}")
    return Finding("CPUs", None, f"{num_cpus:g}", "expected 1 or more, Ray gives out whole ones; raise the CPU limit")


def check_memory(memory_bytes: int) -> Finding:
    """Memory that this process may use."""
    found = _gib(memory_bytes)
    if memory_bytes >= MIN_MEMORY_BYTES:
        return Finding("memory", True, found)
    advice = f"expected {_gib(MIN_MEMORY_BYTES)} or more; raise the limit of the container or take a larger machine"
    return Finding("memory", None, found, advice)


def check_gpus() -> Finding:
    """GPUs that torch can use."""
    try:
        import torch
    except Exception:  # told by the check of torch itself
        return Finding("GPUs", None, "not known", "repair torch first")
    if torch.cuda.is_available():
        cards = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
        return Finding("GPUs", True, ", ".join(f"{card.name} ({_gib(card.total_memory)})" for card in cards))
    if shutil.which("nvidia-smi"):
        advice = f"there is a driver, but torch (built for CUDA {torch.version.cuda}) sees no GPU; update the driver"
        return Finding("GPUs", None, "none", f"{advice} or give the container its GPUs")
    return Finding("GPUs", None, "none", "training runs on the CPU; large models need a GPU")


def check_shared_memory(memory_bytes: int, folder: str = "/dev/shm") -> Finding:
    """Room for Ray's object store."""
    expected = min(int(STORE_SHARE * memory_bytes), MAX_STORE_BYTES)
    free = shutil.disk_usage(folder).free if Path(folder).is_dir() else 0
    if free >= expected:
        return Finding(folder, True, f"{_gib(free)} free")
    advice = f"expected {_gib(expected)} ({STORE_SHARE:.0%} of the memory) or Ray's object store is smaller or slower"
    return Finding(folder, None, f"{_gib(free)} free", f"{advice}; give the container --shm-size={expected >> 20}m")


def check_disk(folder: str) -> Finding:
    """Room on the disk of a folder."""
    name = f"disk of {folder}"
    try:
        usage = shutil.disk_usage(_existing(folder))
    except OSError as error:
        return Finding(name, None, f"not known ({error.strerror})", "check owner and mode of the folder")
    found = f"{_gib(usage.free)} free of {_gib(usage.total)}"
    if usage.free > (1 - MAX_DISK_USED) * usage.total:
        return Finding(name, True, found)
    advice = f"Ray stops at {MAX_DISK_USED:.0%} full; free some space or choose another folder"
    return Finding(name, None, found, advice)


def check_writable(where: str) -> Finding:
    """Everything that runs and data sets ask of a store, under a key of its own, which is removed."""
    name = f"writing to {where}"
    try:
        _round_trip(Store.at(where if "://" in where else _existing(where)), f"doctor-{uuid.uuid4().hex}")
    except CinerayError as error:
        return Finding(name, False, "failed", str(error))
    return Finding(name, True, "put, get, create once, swap and delete work")


def _round_trip(store: Store, key: str) -> None:
    once = f"{key}-once"
    store.put(key, b"put")
    try:
        _expect(store, key, b"put")
        if store.local(key) is None and store.list(key) != [key]:  # a local list would walk the whole folder
            raise IntegrityError(f"{store.url} does not list {key}, which it holds; use another store")
        store.create(once, b"one")
        with _refused(store, once):
            store.create(once, b"two")
        tag = store.get_tagged(once)[1]
        store.swap(once, b"three", tag)
        with _refused(store, once):
            store.swap(once, b"four", tag)
        _expect(store, once, b"three")
    finally:
        store.delete(key)
        store.delete(once)


def _expect(store: Store, key: str, data: bytes) -> None:
    if (found := store.get(key)) != data:
        raise IntegrityError(f"{store.path(key)} gave {found!r}, expected {data!r}, just written; use another store")


@contextmanager
def _refused(store: Store, key: str) -> Iterator[None]:
    """The block must meet a conflict."""
    try:
        yield
    except ConflictError:
        return
    raise IntegrityError(f"{store.path(key)} was written twice, expected a conflict; use a store that refuses that")


def check_dataset(url: str) -> Finding:
    """The manifest is sound and every object is there with its length; `cineray check` looks at the bytes."""
    from cineray.datasets.dataset import Dataset

    name = f"data set {url}"
    try:
        data = Dataset.open(url)
    except CinerayError as error:
        return Finding(name, False, "cannot be opened", str(error))
    return Finding(name, True, f"{len(data)} scans of {len(data.subjects)} subjects, TR {data.tr_s:g} s")


def check_data_folder(folder: str | None) -> Finding:
    """Real recordings, for the tests and results that use them."""
    if folder and Path(folder).is_dir():
        return Finding("CINERAY_DATA", True, folder)
    found = f"{folder} is no folder" if folder else "not set"
    return Finding("CINERAY_DATA", None, found, "only results on real recordings need it; see docs/data.md")


def check_ray() -> Finding:
    """Ray starts, or the cluster answers, and every node runs a task of this code with these versions."""
    if broken := [name for name in ("ray", "torch") if check_package(name, None).ok is False]:
        return Finding("Ray", False, "not started", f"repair {' and '.join(broken)} first")
    import ray

    from cineray.cluster.connect import connected

    try:
        with connected():
            nodes = [node for node in ray.nodes() if node["Alive"]]
            found = ray.get([_task_on(node["NodeID"]) for node in nodes], timeout=TASK_DEADLINE_S)
    except CinerayError as error:
        return Finding("Ray", False, "not reached", str(error))
    except ray.exceptions.RayError as error:  # a failed task tells its traceback; the cause is the last line
        reason = shorten(str(error).strip().splitlines()[-1], 200, placeholder=" …")
        return Finding("Ray", False, f"a task failed ({reason})", "give every node the same image; see `ray status`")
    return judge_nodes(nodes, found, _versions())


def judge_nodes(nodes: Sequence[dict[str, Any]], found: Sequence[str], own: str) -> Finding:
    """What the nodes have, from Ray's table of them, and the versions they run, which must be this process's."""
    have = [f"{node['Resources'].get('CPU', 0):g} CPUs and {node['Resources'].get('GPU', 0):g} GPUs" for node in nodes]
    names = [node["NodeManagerHostname"] for node in nodes]
    if set(found) == {own}:
        listed = ", ".join(f"{name} with {what}" for name, what in zip(names, have, strict=True))
        return Finding("Ray", True, f"{own} on {listed}")
    listed = ", ".join(f"{versions} on {name}" for name, versions in zip(names, found, strict=True) if versions != own)
    return Finding("Ray", False, listed, f"expected {own}, as here; give every node the same image")


def _task_on(node_id: str) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0)(_versions)
    return task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)).remote()


def _versions() -> str:
    import ray

    return f"Ray {ray.__version__} Python {platform.python_version()}"


def _existing(folder: str) -> Path:
    """The folder itself, or the nearest above it that is there: what is missing can be made if that can be written."""
    place = Path(folder).expanduser().absolute()
    while True:
        try:
            place.stat()
        except (FileNotFoundError, NotADirectoryError):
            place = place.parent
        except PermissionError:  # there or not, nothing can be written
            return place
        else:
            return place


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / GIB:.1f} GiB"
