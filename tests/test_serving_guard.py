"""Keys, limits and deadlines at the ingress."""

import asyncio

import httpx
import numpy as np
import pytest

from asking import AUTH, CARD, JSON, KEY, NPY, Sums, X, ask, npy, refused
from cineray.core.errors import ConfigError
from cineray.serving.api import BusyError, make_api
from cineray.serving.guard import PUBLIC, Limits
from cineray.serving.keys import KEY_VARIABLE, digest_of, find_key, generate_key


@pytest.mark.parametrize("headers", [{"x-api-key": KEY}, {"authorization": f"bearer {KEY}"}, AUTH])
def test_both_ways_to_send_the_key(headers):
    assert ask("GET", "/subjects", headers=headers).status_code == 200


WRONG_KEYS = (
    {},
    {"x-api-key": ""},
    {"x-api-key": KEY[:-1]},
    {"x-api-key": digest_of(KEY)},
    {"x-api-key": "ключ".encode()},
    {"authorization": KEY},
    {"authorization": "Bearer "},
    {"authorization": f"Basic {KEY}"},
)


@pytest.mark.parametrize("headers", WRONG_KEYS)
def test_every_route_but_the_public_ones_needs_the_key(headers):
    app = make_api(Sums(), CARD, key_digest=digest_of(KEY), limits=Limits())
    paths = {route.path for route in app.routes} | {"/never/heard/of", "/docs", "/healthz/"}
    assert {"/decode", "/subjects", "/openapi.json"} <= paths
    for path in paths - PUBLIC:
        for method in ("GET", "POST", "OPTIONS"):
            answer = refused(ask(method, path, headers=headers), 401, "API key")
            assert answer.headers["www-authenticate"] == "Bearer"


async def in_pieces(num, size, wait_s=0.0):
    for _ in range(num):
        yield b"\0" * size
        await asyncio.sleep(wait_s)


def test_bodies_are_limited_while_they_arrive():
    small = Limits(max_body_bytes=2048, max_json_bytes=1024)
    path, exact = "/decode?subject=sub-01", npy(np.zeros((160, 3), np.float32))
    assert len(exact) == 2048
    assert ask("POST", path, headers=AUTH | NPY, content=exact, limits=small).status_code == 200
    too_large = [exact + b"\0", in_pieces(1000, 512)]
    for body in too_large:
        refused(ask("POST", path, headers=AUTH | NPY, content=body, limits=small), 413, "2048 bytes")
    refused(ask("POST", path, headers=AUTH | JSON, content=b" " * 1025, limits=small), 413, "1024 bytes")
    lying = AUTH | NPY | {"content-length": "5"}
    refused(ask("POST", path, headers=lying, content=in_pieces(9, 512), limits=small), 413, "2048 bytes")


def test_a_client_that_leaves_is_no_error_of_the_server(caplog):
    app, sent = make_api(Sums(), CARD, key_digest=digest_of(KEY), limits=Limits()), []
    messages = [{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}]
    headers = [(name.encode(), value.encode()) for name, value in (AUTH | NPY).items()]
    scope = {"type": "http", "method": "POST", "path": "/decode", "query_string": b"subject=sub-01", "headers": headers}

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 400
    assert "unexpected" not in caplog.text


def test_slow_bodies_and_slow_decoders_end():
    path = "/decode?subject=sub-01"
    slow = Limits(body_timeout_s=0.05, decode_timeout_s=0.05)
    refused(ask("POST", path, headers=AUTH | NPY, content=in_pieces(9, 1, 0.02), limits=slow), 408, "0.05 s")
    refused(ask("POST", path, headers=AUTH | NPY, content=npy(X), limits=slow, backend=Sums(wait_s=5)), 504, "0.05 s")


def test_full_queues_answer_503_with_retry_after():
    path, headers = "/decode?subject=sub-01", AUTH | NPY
    answer = refused(ask("POST", path, headers=headers, content=npy(X), backend=Sums(BusyError())), 503, "busy")
    assert answer.headers["retry-after"] == "1"
    tight = Limits(max_in_flight_bytes=1024, retry_after_s=3)
    big = npy(np.zeros((100, 3), np.float32))
    assert (
        refused(ask("POST", path, headers=headers, content=big, limits=tight), 503, "3 s").headers["retry-after"] == "3"
    )


def test_requests_beyond_the_limit_are_turned_away_and_slots_come_back():
    app = make_api(Sums(wait_s=0.2), CARD, key_digest=digest_of(KEY), limits=Limits(max_in_flight=3))

    async def go():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            post = lambda: client.post("/decode?subject=sub-01", headers=AUTH | NPY, content=npy(X))  # noqa: E731
            first = await asyncio.gather(*(post() for _ in range(8)))
            return [a.status_code for a in first], (await post()).status_code

    codes, later = asyncio.run(go())
    assert (codes.count(200), codes.count(503), later) == (3, 5, 200)


def test_there_is_no_server_without_a_key(tmp_path):
    with pytest.raises(ConfigError, match=KEY_VARIABLE):
        find_key(None, {})
    with pytest.raises(ConfigError, match="at least 16"):
        find_key(None, {KEY_VARIABLE: "short"})
    with pytest.raises(ConfigError, match="cannot read"):
        find_key(tmp_path / "absent", {KEY_VARIABLE: KEY})
    (tmp_path / "key").write_text(KEY + "\n")
    assert find_key(tmp_path / "key", {}) == find_key(None, {KEY_VARIABLE: KEY}) == KEY
    assert len({find_key(None, {KEY_VARIABLE: generate_key()}) for _ in range(5)}) == 5
