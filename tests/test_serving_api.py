import asyncio
import io
import json
import struct

import httpx
import numpy as np
import pytest

from cineray.core.errors import ConfigError, DataError
from cineray.serving.api import BusyError, make_api
from cineray.serving.arrays import read_json, read_npy, write_npy
from cineray.serving.card import Card
from cineray.serving.gallery import Match, MatchedClip
from cineray.serving.guard import PUBLIC, Limits
from cineray.serving.keys import KEY_VARIABLE, digest_of, find_key, generate_key

KEY = "a-key-of-sufficient-length"
AUTH = {"authorization": f"Bearer {KEY}"}
NPY = {"content-type": "application/x-npy"}
JSON = {"content-type": "application/json"}
CARD = Card("tiny", "0123", 7, {"sub-01": 3, "sub.2": 4}, ("features", "tokens"), tr_s=2.0, clip_s=8.0)


def npy(values, **options):
    buffer = io.BytesIO()
    np.save(buffer, values, **options)
    return buffer.getvalue()


def raw(header, data=b"", version=1):
    text = header.encode("latin-1")
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + data


def described(descr="'<f4'", order="False", shape="(2, 3)"):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_what_numpy_writes_is_read(dtype, version):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, X.astype(dtype), version=version)
    found = read_npy(buffer.getvalue(), 3)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, X)
    np.testing.assert_array_equal(np.load(io.BytesIO(write_npy(found)), allow_pickle=False), X)


HOSTILE_NPY = {
    "huge claim": (raw(described(shape="(65536, 3)")), "promises 786432 bytes"),
    "claim beyond int64": (raw(described(shape="(999999999999999999, 3)")), "promises"),
    "absurd digits": (raw(described(shape=f"({'9' * 400}, 3)")), "axes"),
    "truncated": (npy(X)[:-1], "23 followed"),
    "trailing bytes": (npy(X) + b"x", "25 followed"),
    "object": (npy(X.astype(object), allow_pickle=True), r"dtype is \|O"),
    "structured": (npy(np.zeros((2, 3), [("a", "<f4")])), "dtype"),
    "text": (npy(np.full((2, 3), "1.5")), "dtype is <U3"),
    "bool": (npy(X > 1), r"dtype is \|b1"),
    "integers": (npy(X.astype(np.int64)), "dtype is <i8"),
    "complex": (npy(X.astype(complex)), "dtype is <c16"),
    "big endian": (npy(X.astype(">f4")), "dtype is >f4"),
    "fortran": (npy(np.asfortranarray(X)), "C order"),
    "one axis": (npy(X[0]), "1 axes"),
    "no axis": (npy(X[0, 0]), "0 axes"),
    "three axes": (npy(X[None]), "3 axes"),
    "negative": (raw(described(shape="(-2, 3)")), "axes"),
    "no scans": (npy(X[:0]), "no scans"),
    "voxel too few": (npy(X[:, :2]), "2 voxels, this subject has 3"),
    "voxel too many": (npy(np.zeros((2, 4))), "4 voxels, this subject has 3"),
    "empty": (b"", "begin like"),
    "magic only": (b"\x93NUMPY", "begin like"),
    "future version": (raw(described(), version=4), "begin like"),
    "zip": (b"PK\x03\x04" + b"\0" * 40, "begin like"),
    "long header": (raw(" " * 4000 + described()), "header claims"),
    "header past the end": (b"\x93NUMPY\x02\0" + struct.pack("<I", 2**32 - 1) + b"x", "header claims"),
    "code in header": (raw("{'descr': __import__('os').abort(), 'fortran_order': False, 'shape': (2, 3)}"), "dtype"),
    "nested header": (raw("(" * 1000), "dtype"),
    "two shapes": (raw(described()[:-2] + "'shape': (9, 9)}", X.tobytes()), "axes"),
    "nan": (npy(np.where(X == 4, np.nan, X)), "scan 1, voxel 1"),
    "infinite": (npy(np.where(X == 2, -np.inf, X)), "scan 0, voxel 2"),
    "beyond float16": (npy(np.where(X == 1, 65536, X)), "beyond 65504, the first at scan 0, voxel 1"),
    "beyond float32": (npy(np.where(X == 5, 1e300, X.astype(float))), "scan 1, voxel 2"),
}


@pytest.mark.parametrize("name", HOSTILE_NPY)
def test_hostile_npy_is_refused_in_one_sentence(name):
    body, expected = HOSTILE_NPY[name]
    with pytest.raises(DataError, match=expected) as caught:
        read_npy(body, 3)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_a_claim_of_32_gib_costs_no_memory():
    import tracemalloc

    tracemalloc.start()
    with pytest.raises(DataError, match="promises"):
        read_npy(raw(described("'<f8'", shape="(65536, 65536)")), 65536)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_json_lists_of_numbers_are_read():
    np.testing.assert_array_equal(read_json(json.dumps(X.tolist()).encode(), 3), X)
    np.testing.assert_array_equal(read_json(b"[[1, 2, -0.5e1]]", 3), np.float32([[1, 2, -5]]))


HOSTILE_JSON = {
    "nan": (b"[[1, NaN, 2]]", "not valid JSON"),
    "infinity": (b"[[1, -Infinity, 2]]", "not valid JSON"),
    "1e400": (b"[[1, 1e400, 2]]", "scan 0, voxel 1"),
    "beyond float32": (b"[[1, 2, 3], [1, 2, 1e39]]", "scan 1, voxel 2"),
    "endless integer": (b"[[1, 2, " + b"9" * 5000 + b"]]", "not valid JSON"),
    "large integer": (b"[[1, 2, " + b"9" * 400 + b"]]", "beyond the range"),
    "bool": (b"[[1, true, 2]]", "not a number"),
    "text": (b'[[1, "1.5", 2]]', "not a number"),
    "null": (b"[[1, null, 2]]", "not a number"),
    "nested": (b"[[1, [2], 3]]", "not a number"),
    "ragged": (b"[[1, 2, 3], [1, 2]]", "2 to 3 values"),
    "flat": (b"[1, 2, 3]", "list of lists"),
    "object": (b'{"recording": [[1, 2, 3]]}', "list of lists"),
    "no scans": (b"[]", "axes"),
    "empty scan": (b"[[]]", "0 voxels"),
    "wrong voxels": (b"[[1, 2]]", "2 voxels, this subject has 3"),
    "deep": (b"[" * 100_000, "not valid JSON"),
    "invalid UTF-8": (b"[[1, 2, \xff]]", "not valid JSON"),
    "UTF-16": ("[[1, 2, 3]]".encode("utf-16"), "not valid JSON"),
    "byte order mark": (b"\xef\xbb\xbf[[1, 2, 3]]", "not valid JSON"),
    "empty": (b"", "not valid JSON"),
    "two documents": (b"[[1, 2, 3]] [[1, 2, 3]]", "not valid JSON"),
}


@pytest.mark.parametrize("name", HOSTILE_JSON)
def test_hostile_json_is_refused_in_one_sentence(name):
    body, expected = HOSTILE_JSON[name]
    with pytest.raises(DataError, match=expected) as caught:
        read_json(body, 3)
    assert len(str(caught.value)) < 300


class Sums:
    """A backend whose answers can be checked by hand."""

    ready = True

    def __init__(self, error=None, wait_s=0.0):
        self.error, self.wait_s = error, wait_s

    async def features(self, subject, recording, target):
        await asyncio.sleep(self.wait_s)
        if self.error:
            raise self.error
        return recording.sum(1, keepdims=True) + (target == "tokens")

    async def clips(self, subject, recording, target, num_scans, top):
        score = float((await self.features(subject, recording, target)).sum())
        return [MatchedClip(0, num_scans, [Match("id", "film", 1.5, score)] * top)]

    async def is_ready(self):
        return self.ready


def ask(method, path, *, backend=None, limits=None, headers=AUTH, **options):
    app = make_api(backend or Sums(), CARD, key_digest=digest_of(KEY), limits=limits or Limits())

    async def go():
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, headers=headers, **options)

    return asyncio.run(go())


def refused(answer, status, words):
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    assert words in answer.json()["error"]
    assert len(answer.content) < 600
    return answer


def test_clips_and_features_are_answered():
    answer = ask("POST", "/decode?subject=sub-01&top=2", headers=AUTH | NPY, content=npy(X))
    assert answer.status_code == 200
    match = {"stimulus_id": "id", "film": "film", "onset_s": 1.5, "score": 15.0}
    assert answer.json() == {
        "subject": "sub-01",
        "target": "features",
        "num_scans": 2,
        "tr_s": 2.0,
        "clips": [{"first_scan": 0, "num_scans": 4, "matches": [match, match]}],
    }
    wanted = AUTH | JSON | {"accept": "application/x-npy"}
    answer = ask("POST", "/decode?subject=sub-01&target=tokens", headers=wanted, content=json.dumps(X.tolist()))
    assert answer.headers["content-type"] == "application/x-npy"
    np.testing.assert_array_equal(np.load(io.BytesIO(answer.content)), X.sum(1, keepdims=True) + 1)


@pytest.mark.parametrize(("clip_s", "scans"), [("", 4), ("&clip_s=5.9", 3), ("&clip_s=0.1", 1)])
def test_clip_length_is_whole_scans(clip_s, scans):
    answer = ask("POST", f"/decode?subject=sub-01{clip_s}", headers=AUTH | NPY, content=npy(X))
    assert answer.json()["clips"][0]["num_scans"] == scans


def test_subjects_and_limits_are_listed():
    found = ask("GET", "/subjects").json()
    assert found["subjects"] == [{"subject": "sub-01", "voxels": 3}, {"subject": "sub.2", "voxels": 4}]
    assert (found["run"], found["targets"], found["limits"]) == ("tiny", ["features", "tokens"], Limits().model_dump())


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


def test_public_paths_tell_nothing_of_the_run():
    assert ask("GET", "/healthz", headers={}).json() == {"status": "ok"}
    assert ask("GET", "/readyz", headers={}).json() == {"status": "ok"}
    backend = Sums()
    backend.ready = False
    refused(ask("GET", "/readyz", headers={}, backend=backend), 503, "no decoder")
    page = ask("GET", "/", headers={})
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "http" not in page.text.replace("http://www.w3.org/2000/svg", "")
    assert not any(word in page.text for word in ("sub-01", "tiny"))


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("subject=sub-99", 404, "not in the model"),
        ("subject=../../etc", 404, "not in the model"),
        ("subject=", 404, "not in the model"),
        ("subject=" + "x" * 5000, 422, "'subject'"),
        ("", 422, "'subject': field required"),
        ("subject=sub-01&target=flow", 404, "target"),
        ("subject=sub-01&top=0", 422, "'top'"),
        ("subject=sub-01&top=101", 422, "'top'"),
        ("subject=sub-01&top=many", 422, "'top'"),
        ("subject=sub-01&clip_s=nan", 422, "'clip_s'"),
        ("subject=sub-01&clip_s=-1", 422, "'clip_s'"),
    ],
)
def test_wrong_queries_are_named_and_not_echoed(query, status, words):
    answer = refused(ask("POST", f"/decode?{query}", headers=AUTH | NPY, content=npy(X)), status, words)
    assert not any(text in answer.text for text in ("sub-99", "etc", "xxx", "flow", "many", "nan"))


@pytest.mark.parametrize(
    ("headers", "body", "status", "words"),
    [
        (NPY, npy(np.full((2, 3), np.nan)), 422, "NaN"),
        (NPY, npy(X[:, :2]), 422, "2 voxels"),
        (JSON, b'[[1, 2, "voxel-secret"]]', 422, "not a number"),
        ({}, npy(X), 415, "content type"),
        ({"content-type": "text/csv"}, b"1,2,3", 415, "content type"),
        (NPY | {"content-encoding": "gzip"}, b"\x1f\x8b", 415, "compressed"),
    ],
)
def test_wrong_bodies(headers, body, status, words):
    answer = refused(ask("POST", "/decode?subject=sub-01", headers=AUTH | headers, content=body), status, words)
    assert "secret" not in answer.text


def test_wrong_paths_and_methods():
    refused(ask("GET", "/nothing"), 404, "no such path")
    refused(ask("GET", "/decode?subject=sub-01"), 405, "another method")


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


def test_unexpected_errors_are_logged_and_kept_from_the_client(caplog):
    broken = Sums(RuntimeError("secret detail"))
    answer = refused(
        ask("POST", "/decode?subject=sub-01", headers=AUTH | NPY, content=npy(X), backend=broken), 500, "log"
    )
    assert "secret" not in answer.text
    assert "secret detail" in caplog.text


def test_openapi_describes_body_answers_and_errors():
    schema = ask("GET", "/openapi.json").json()
    decode = schema["paths"]["/decode"]["post"]
    assert set(decode["requestBody"]["content"]) == {"application/x-npy", "application/json"}
    assert {"200", "401", "404", "408", "413", "415", "422", "503", "504"} <= set(decode["responses"])
    assert set(decode["responses"]["200"]["content"]) == {"application/x-npy", "application/json"}
    assert schema["components"]["schemas"]["Answer"]["example"]["clips"]
    reference = decode["responses"]["422"]["content"]["application/json"]["schema"]["$ref"]
    assert reference.endswith("/Problem")


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
