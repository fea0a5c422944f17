"""A hub of one repository on this machine, as far as the hub's client asks: revision, tree, and files by commit."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["COMMIT", "fake_hub"]

COMMIT = "a" * 40
LARGE = ".safetensors"
"""Files that the hub keeps by sha256, and says so."""


def entry(name: str, data: bytes) -> dict:
    found: dict = {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
    if name.endswith(LARGE):
        digest = hashlib.sha256(data).hexdigest()
        found["lfs"] = {"oid": digest, "sha256": digest, "size": len(data), "pointerSize": 130}
    return found


@dataclass(frozen=True)
class Repository:
    """What the hub knows."""

    name: str
    files: dict[str, bytes]
    kind: str = "model"

    @property
    def addresses(self) -> tuple[str, str]:
        """Before the answers of its interface, and before its files."""
        return f"/api/{self.kind}s/{self.name}", ("/datasets/" if self.kind == "dataset" else "/") + self.name

    @property
    def entries(self) -> dict[str, dict]:
        return {name: entry(name, data) for name, data in self.files.items()}

    def answer(self, path: str) -> tuple[bytes, dict[str, str]] | None:
        """Body and headers; None where there is no such thing."""
        interface, files = self.addresses
        if path in (f"{interface}/revision/main", f"{interface}/revision/{COMMIT}"):
            siblings = [{"rfilename": n, "size": e["size"], "lfs": e.get("lfs")} for n, e in self.entries.items()]
            info = {"id": self.name, "sha": COMMIT, "private": False, "tags": [], "cardData": {"license": "mit"}}
            return json.dumps(info | {"siblings": siblings}).encode(), {}
        if path == f"{interface}/tree/{COMMIT}":
            return json.dumps(list(self.entries.values())).encode(), {}
        file = path.removeprefix(f"{files}/resolve/{COMMIT}/")
        if file not in self.files:
            return None
        found = self.entries[file]
        return self.files[file], {"ETag": f'"{found.get("lfs", found)["oid"]}"', "X-Repo-Commit": COMMIT}


class Hub(BaseHTTPRequestHandler):
    """Answers of one repository, which the server carries."""

    def do_GET(self) -> None:
        repository: Repository = self.server.repository  # type: ignore[attr-defined]
        path = self.path.partition("?")[0]
        found = repository.answer(path)
        known = path.startswith(tuple(f"{address}/" for address in repository.addresses))
        missing = "RevisionNotFound" if known else "RepoNotFound"
        data, headers = found or (b"", {"X-Error-Code": missing})
        self.send_response(200 if found else 404)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def fake_hub(repo: str, files: dict[str, bytes], kind: str = "model") -> Iterator[str]:
    """The hub's address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.repository = Repository(repo, files, kind)  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
