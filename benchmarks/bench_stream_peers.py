"""Peers in a child process with an environment of its own, made on demand; one that cannot run is said to be absent."""

import json
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from benchmarks.bench_stream_measure import Cost

REPOSITORY = Path(__file__).parent.parent
VENV = REPOSITORY / ".venvs" / "peers"
PACKAGES = (
    *("mosaicml-streaming", "xxhash", "zstd", "Brotli", "python-snappy", "cramjam", "catalogue"),
    *("webdataset", "braceexpand"),
)
"""Installed without their dependencies: mosaicml-streaming pins numpy and transformers below what cineray runs on.
Everything else they import is found in this environment, which stands behind theirs on the path."""


class AbsentError(RuntimeError):
    """A peer that cannot run here."""


def peer_python() -> Path:
    """The interpreter of the peers' environment."""
    python = VENV / "bin" / "python"
    done = VENV / "complete"
    if not done.exists():
        _run([sys.executable, "-m", "venv", "--clear", str(VENV)])
        site = next((VENV / "lib").glob("python*/site-packages"))
        (site / "behind.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        _run([str(python), "-m", "pip", "install", "--quiet", "--no-deps", *PACKAGES])
        done.touch()
    return python


def _run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise AbsentError((result.stderr.strip().splitlines() or ["no message"])[-1])


class Child:
    """A reader in another process, with the same two verbs as `Reader`."""

    def __init__(self, name: str, kind: str, rows: Path, out: Path) -> None:
        self.name = name
        script = Path(__file__).parent / "bench_stream_child.py"
        self._errors = open(out.with_suffix(".log"), "w+")  # noqa: SIM115 (closed with the process)
        self._process = subprocess.Popen(
            [str(peer_python()), str(script), kind, str(rows), str(out)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._answer()

    def cost(self, epochs: int) -> Cost:
        """Deliver some epochs."""
        found = self._ask(epochs, check=False)
        return Cost(found["rows"], found["wall_s"], found["cpu_s"])

    def digest(self) -> str:
        """Of one epoch."""
        return self._ask(1, check=True)["digest"]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._errors.close()

    def _ask(self, epochs: int, *, check: bool) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"epochs": epochs, "check": check}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        raise AbsentError(f"{self.name}: {lines[-1] if lines else 'ended without a message'}")
