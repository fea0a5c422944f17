"""What stands between the network and the decoder: key, limits, deadlines, and errors of one sentence.

Everything is refused unless it is allowed: a route added later needs the key without anybody thinking of it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager

from pydantic import Field
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cineray.core.config import Config
from cineray.serving.keys import is_allowed

__all__ = ["PUBLIC", "Guard", "Limits", "Purse", "RefusedError", "busy", "problem", "read_body"]

PUBLIC = frozenset({"/", "/healthz", "/readyz"})
"""The only paths that answer without a key; none of them tells anything about a run."""

HEADERS = {b"cache-control": b"no-store", b"x-content-type-options": b"nosniff"}
"""Decoded brains stay out of caches."""

log = logging.getLogger(__name__)


class Limits(Config):
    """What one ingress process accepts."""

    max_body_bytes: int = Field(default=64 * 2**20, ge=1024)
    max_json_bytes: int = Field(default=8 * 2**20, ge=1024)
    """JSON takes about eight times its size in memory while it is read."""
    max_in_flight_bytes: int = Field(default=1024 * 2**20, ge=1024)
    """Bodies held at one moment; beyond it the answer is 503."""
    max_in_flight: int = Field(default=1024, ge=1)
    """Requests held at one moment; beyond it the answer is 503."""
    body_timeout_s: float = Field(default=30.0, gt=0)
    """Time a client has to send its body."""
    decode_timeout_s: float = Field(default=60.0, gt=0)
    retry_after_s: int = Field(default=1, ge=1)


class RefusedError(Exception):
    """A request that is not served: status and one sentence."""

    def __init__(self, status: int, sentence: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(sentence)
        self.status, self.sentence, self.headers = status, sentence, dict(headers or {})


def problem(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The one form of every error."""
    return JSONResponse({"error": sentence}, status, dict(headers or {}))


class Guard:
    """ASGI middleware: the key, the number of requests in flight, and a last net under every exception."""

    def __init__(self, app: ASGIApp, *, key_digest: str, limits: Limits) -> None:
        self.app, self.key_digest, self.limits = app, key_digest, limits
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, refuse, or let pass."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        self.in_flight += 1
        try:
            await self._guarded(scope, receive, send)
        finally:
            self.in_flight -= 1

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if scope["path"] in PUBLIC:
            return None
        if not is_allowed(headers, self.key_digest):
            sentence = "the API key is missing or wrong; send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'"
            return problem(401, sentence, {"www-authenticate": "Bearer"})
        if self.in_flight >= self.limits.max_in_flight:
            return problem(503, *busy(self.limits))
        return None

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message = {**message, "headers": [*message.get("headers", []), *HEADERS.items()]}
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception:
            log.exception("unexpected error at %s", scope["path"])
            if not started:
                await problem(500, "the server failed on this request and has logged why; try again later")(
                    scope, receive, watched
                )


def busy(limits: Limits) -> tuple[str, dict[str, str]]:
    """Sentence and headers of a 503."""
    retry = str(limits.retry_after_s)
    return f"the server is busy; try again in {retry} s", {"retry-after": retry}


async def read_body(
    stream: AsyncIterator[bytes],
    headers: Mapping[str, str],
    *,
    max_bytes: int,
    timeout_s: float,
    take: Callable[[int], None],
) -> bytes:
    """The whole body, refused as soon as it is too large or too slow; ``take`` holds each piece (`Purse.share`).

    Raises:
        RefusedError: 408, 413 or 503.
    """
    too_large = RefusedError(413, f"the body is larger than {max_bytes} bytes; send fewer scans at a time")
    declared = headers.get("content-length", "0")
    if declared.isdecimal() and int(declared[:20]) > max_bytes:
        raise too_large
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in stream:
                size += len(chunk)
                if size > max_bytes:
                    raise too_large
                take(len(chunk))
                chunks.append(chunk)
    except TimeoutError:
        raise RefusedError(408, f"the body did not arrive within {timeout_s:g} s; send it faster or in parts") from None
    return b"".join(chunks)


class Purse:
    """Bytes of bodies that one process may hold at a moment."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.held_bytes = 0

    @contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """A function that holds so many more bytes, or refuses with 503; all are given back at the end."""
        mine = 0

        def take(num_bytes: int) -> None:
            nonlocal mine
            if self.held_bytes + num_bytes > self.limits.max_in_flight_bytes:
                raise RefusedError(503, *busy(self.limits))
            self.held_bytes += num_bytes
            mine += num_bytes

        try:
            yield take
        finally:
            self.held_bytes -= mine
