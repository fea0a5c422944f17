"""A real S3-protocol server on loopback, and a proxy before it that fails as told."""

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

BUCKET = "cineray"


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """URL of moto's server in a process of its own; credentials and endpoint stand in the environment."""
    port = _free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    endpoint = f"http://127.0.0.1:{port}"
    settings = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        _wait_until_answering(port, server)
        assert request(endpoint, "PUT", f"/{BUCKET}") == 200
        yield endpoint
    finally:
        server.terminate()
        server.wait(10)
        for name, value in before.items():
            os.environ.pop(name)
            os.environ.update({name: value} if value is not None else {})


@pytest.fixture
def s3_url(s3_endpoint: str) -> str:
    """An unused ``s3://`` location."""
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


def request(endpoint: str, method: str, path: str, body: bytes = b"") -> int:
    """Status of one plain HTTP request."""
    connection = http.client.HTTPConnection(endpoint.removeprefix("http://"), timeout=10)
    connection.request(method, path, body)
    status = connection.getresponse().status
    connection.close()
    return status


Fault = Callable[[str, str], str]
"""Method and path to ``""`` (pass), ``"503"``, ``"500 after"`` (the request lands first), ``"reset"`` or ``"strip"``
(conditions are taken out of the request)."""


class FaultProxy:
    """Passes requests on to an endpoint, unless ``fault`` says otherwise; ``log`` lists what came."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.fault: Fault = lambda method, path: ""
        self.log: list[tuple[str, str, str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultProxy

    def log_message(self, *args: object) -> None:
        pass

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.proxy.fault(self.command, self.path)
        self.proxy.log.append((self.command, self.path, fault))
        if fault == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.close_connection = True
            self.connection.close()
            return
        status, headers, data = (503, [], b"") if fault == "503" else self._pass_on(body, fault == "strip")
        if fault == "500 after":
            status, headers, data = 500, [], b""
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "connection", "content-length", "date", "server"):
                self.send_header(name, value)
        length = dict(headers).get("Content-Length", "0") if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(data)

    def _pass_on(self, body: bytes, strip: bool) -> tuple[int, list[tuple[str, str]], bytes]:
        headers = {k: v for k, v in self.headers.items() if not (strip and k.lower().startswith("if-"))}
        connection = http.client.HTTPConnection(self.proxy.endpoint.removeprefix("http://"), timeout=30)
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, answer.getheaders(), data

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _handle  # noqa: N815


@pytest.fixture
def fault_proxy(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy that the store talks to instead of the server."""
    from cineray.core import storage_s3

    proxy = FaultProxy(s3_endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    storage_s3._file_system_of.cache_clear()
    storage_s3._require_conditions.cache_clear()
    yield proxy
    storage_s3._file_system_of.cache_clear()
    storage_s3._require_conditions.cache_clear()
    proxy.close()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _wait_until_answering(port: int, server: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError(f"moto's server did not answer on port {port} (exit code {server.poll()})")
