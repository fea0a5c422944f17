"""A hub of one repository on this machine, as far as the hub's client asks: revision, tree, and files by commit."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def fake_hub(repo: str, files: dict[str, bytes]) -> Iterator[str]:
    """The hub's address."""
    entries = [entry(name, data) for name, data in files.items()]
    siblings = [{"rfilename": e["path"], "size": e["size"], "blobId": e["oid"], "lfs": e.get("lfs")} for e in entries]
    info = {
        "id": repo,
        "sha": COMMIT,
        "private": False,
        "tags": [],
        "cardData": {"license": "mit"},
        "siblings": siblings,
    }

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path in (f"/api/models/{repo}/revision/main", f"/api/models/{repo}/revision/{COMMIT}"):
                self.answer(json.dumps(info).encode())
            elif path == f"/api/models/{repo}/tree/{COMMIT}":
                self.answer(json.dumps(entries).encode())
            elif (name := path.removeprefix(f"/{repo}/resolve/{COMMIT}/")) in files:
                digest = next(e for e in entries if e["path"] == name)
                self.answer(files[name], ETag=f'"{digest.get("lfs", digest)["oid"]}"', **{"X-Repo-Commit": COMMIT})
            else:
                self.send_response(404)
                missing = "RevisionNotFound" if f"/{repo}/" in path else "RepoNotFound"
                self.send_header("X-Error-Code", missing)
                self.send_header("Content-Length", "0")
                self.end_headers()

        do_HEAD = do_GET  # noqa: N815

        def answer(self, data: bytes, **headers: str) -> None:
            self.send_response(200)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
