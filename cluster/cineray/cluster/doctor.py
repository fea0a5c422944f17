"""What this machine lacks: every check says what was found, what is expected and what to do."""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from cineray.cluster import checks
from cineray.cluster.checks import Finding
from cineray.cluster.limits import machine_limits

__all__ = ["Finding", "as_json", "doctor", "healthy", "show"]

CHECKOUT = Path(__file__).parents[3]
"""Where this is one; in an installed wheel a folder that holds no constraints.txt."""


def doctor(
    where: str | None,
    dataset: str | None,
    with_ray: bool,
    *,
    progress: Callable[[Iterable[Any], str], Iterable[Any]] = lambda items, _: items,
) -> list[Finding]:
    """Look at this machine, at a place for results and at a data set; nothing stays behind.

    Args:
        where: folder or ``s3://`` prefix to try writing to; None leaves that out.
        dataset: data set to open; None leaves that out.
        with_ray: start Ray, or connect to the cluster that ``RAY_ADDRESS`` names, and run a task on every node.
        progress: wraps the checks, for a bar.
    """
    memory_bytes, num_cpus = machine_limits()
    tested = checks.tested_versions(CHECKOUT / "constraints.txt")
    wanted: list[Callable[[], Finding]] = [
        partial(checks.check_python, sys.version_info[:3]),
        *(partial(checks.check_package, name, tested.get(name)) for name in checks.PACKAGES),
        *(partial(checks.check_tool, name) for name in ("g++", "ninja")),
        partial(checks.check_cpus, num_cpus),
        partial(checks.check_memory, memory_bytes),
        checks.check_gpus,
        partial(checks.check_shared_memory, memory_bytes),
        partial(checks.check_disk, tempfile.gettempdir()),
    ]
    if where is not None:
        wanted += [] if "://" in where else [partial(checks.check_disk, where)]
        wanted += [partial(checks.check_writable, where)]
    if dataset is not None:
        wanted += [partial(checks.check_dataset, dataset)]
    wanted += [partial(checks.check_data_folder, os.environ.get("CINERAY_DATA"))]
    wanted += [checks.check_ray] if with_ray else []
    return [check() for check in progress(wanted, "checks")]


def healthy(findings: Sequence[Finding]) -> bool:
    """Whether everything that is necessary is there."""
    return all(finding.ok is not False for finding in findings)


def as_json(findings: Sequence[Finding]) -> str:
    """All findings on one line."""
    return json.dumps({"ok": healthy(findings), "checks": [asdict(finding) for finding in findings]})


def show(findings: Sequence[Finding]) -> None:
    """A table on a terminal, plain lines elsewhere."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    words = {True: ("ok", "green"), None: ("note", "yellow"), False: ("wrong", "red")}
    console = Console()
    if not console.is_terminal:
        for finding in findings:
            advice = f"; {finding.advice}" if finding.advice else ""
            print(f"{words[finding.ok][0]:6}{finding.name}: {finding.found}{advice}")
        return
    table = Table("", "check", "found", "what to do")
    for finding in findings:
        table.add_row(Text(*words[finding.ok]), Text(finding.name), Text(finding.found), Text(finding.advice))
    console.print(table)
