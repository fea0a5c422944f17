"""What a process may use of its machine: a container or a job often has less than the machine."""

import os
from collections.abc import Iterator
from pathlib import Path

import psutil

__all__ = ["machine_limits"]

MEMORY_LIMITS = ("memory.max", "memory.limit_in_bytes")
"""Files of control groups, version 2 and 1."""
CPU_LIMITS = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
"""Files of version 1; version 2 has both numbers in ``cpu.max``."""


def machine_limits(own: Path = Path("/proc/self/cgroup"), groups: Path = Path("/sys/fs/cgroup")) -> tuple[int, float]:
    """Bytes of memory and number of CPUs: the machine's, or what the control groups leave of them.

    Args:
        own: which control groups the process is in, one line each: ``number:controllers:path``.
        groups: where the control groups are mounted.
    """
    memory, cpus = [psutil.virtual_memory().total], [float(len(os.sched_getaffinity(0)))]
    for folder in _folders(_text(own), groups):
        memory += [int(text) for name in MEMORY_LIMITS if (text := _text(folder / name)).isdigit()]
        quota, period = _text(folder / "cpu.max").split() or map(_text, (folder / name for name in CPU_LIMITS))
        cpus += [int(quota) / int(period)] if quota.isdigit() else []  # "max", "-1" or nothing is no limit
    return min(memory), min(cpus)


def _folders(own: str, groups: Path) -> Iterator[Path]:
    """Folders of the process's control groups and of those above: the limits of all of them hold."""
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):  # empty for version 2
            top = groups / controller
            folder = top / path.strip("/")
            yield from (place for place in (folder, *folder.parents) if place.is_relative_to(top))


def _text(path: Path) -> str:
    return path.read_text().strip() if path.is_file() else ""
