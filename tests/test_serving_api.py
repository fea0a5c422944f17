"""Every route answers what can be checked by hand, and every wrong request one sentence."""

import io
import json

import numpy as np
import pytest

from asking import AUTH, JSON, NPY, Sums, X, ask, npy, refused
from cineray.serving.guard import Limits


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
