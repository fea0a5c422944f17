"""The served run over real HTTP: the numbers of the pipeline, many requests at once, one sentence an error."""

import asyncio
import io
import os
import socket
import tempfile

import httpx
import numpy as np
import pytest
import ray
from ray import serve
from ray.exceptions import RayActorError, RayTaskError
from ray.serve.exceptions import BackPressureError

from cineray.core.errors import ConfigError, DataError
from cineray.serving.api import BusyError
from cineray.serving.app import Handles, ServeConfig, serve_run
from cineray.serving.guard import Limits
from cineray.serving.keys import generate_key
from cineray.serving.pipeline import Pipeline
from tiny_run import TEST_RUN, tiny_run

KEY = generate_key()
AUTH = {"authorization": f"Bearer {KEY}"}
NPY = {"content-type": "application/x-npy"}

pytestmark = [pytest.mark.cluster]


def npy(values):
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return Pipeline.open(tiny_run(tmp_path_factory.mktemp("served")))


@pytest.fixture(scope="module")
def url(pipeline, tmp_path_factory):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:
        ray.init(address="local", num_cpus=2, include_dashboard=False, _temp_dir=folder, log_to_driver=False)
        said = []
        # Relative to this process: the decoders must still find them.
        run_dir, data = (os.path.relpath(x.store.url) for x in (pipeline.weights, pipeline.dataset))
        config = ServeConfig(num_cpus=0.5, limits=Limits(max_body_bytes=1 << 20))
        serve_run(run_dir, dataset_url=data, key=KEY, port=port, config=config, on_ready=said.append, block=False)
        assert said == [f"http://127.0.0.1:{port}/"]
        yield said[0]
        serve.shutdown()
        ray.shutdown()


@serve.deployment
class Echo:
    """Answers what it was asked, or raises it."""

    async def ping(self):
        return True

    async def features(self, recording, target):
        if target == "trouble":
            raise DataError("the recording is upside down")
        if target == "bug":
            raise ZeroDivisionError
        return recording, target

    async def clips(self, recording, target, num_scans, top):
        return recording, target, num_scans, top


def test_requests_and_errors_travel_through_a_handle():
    backend = Handles(serve.run(Echo.bind(), name="echo", _local_testing_mode=True))

    async def go():
        assert await backend.is_ready()
        assert await backend.features("sub-02", 7, "features") == (7, "features")
        assert await backend.clips("sub.3", 8, "tokens", 4, 2) == (8, "tokens", 4, 2)
        with pytest.raises(DataError, match=r"^the recording is upside down$"):
            await backend.features("sub-02", 7, "trouble")
        with pytest.raises(ZeroDivisionError):
            await backend.features("sub-02", 7, "bug")

    asyncio.run(go())


class Failing:
    """A handle whose every call fails."""

    def __init__(self, error):
        self.error = error
        self.ping = self

    def options(self, **options):
        return self

    async def remote(self, *arguments):
        raise self.error


def remote_failure(error):
    """As Ray wraps it: the text is the traceback on the other machine."""
    return RayTaskError("features", f"Traceback ... {error}", error).as_instanceof_cause()


@pytest.mark.parametrize(
    ("error", "expected", "words"),
    [
        (BackPressureError(num_queued_requests=9, max_queued_requests=9), BusyError, "^$"),
        (RayActorError(), BusyError, "^$"),
        (remote_failure(DataError("one sentence")), DataError, "^one sentence$"),
        (remote_failure(ValueError("a bug")), ValueError, None),
    ],
)
def test_failures_of_a_decoder_are_told_apart(error, expected, words):
    backend = Handles(Failing(error))
    with pytest.raises(expected, match=words):
        asyncio.run(backend.features("sub-01", np.zeros((1, 2), np.float32), "features"))
    if expected is BusyError:
        assert asyncio.run(backend.is_ready()) is False


def recording(pipeline, subject):
    run = next(r for r in pipeline.dataset.runs if (r.subject, r.run) == (subject, TEST_RUN))
    return pipeline.dataset.gather_samples(np.array(run.rows))


def test_200_concurrent_requests_get_the_numbers_of_the_pipeline(url, pipeline):
    chance = np.random.default_rng(0)
    subjects = [list(pipeline.card.voxels)[i % 3] for i in range(200)]
    # Every request is another recording, so an answer that went to the wrong client shows.
    sent = [recording(pipeline, s)[: chance.integers(10, 37)] * np.float16(chance.uniform(0.5, 2)) for s in subjects]

    async def go():
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as client:
            headers = AUTH | NPY | {"accept": "application/x-npy"}
            posts = [
                client.post(f"/decode?subject={s}", headers=headers, content=npy(x))
                for s, x in zip(subjects, sent, strict=True)
            ]
            return await asyncio.gather(*posts)

    answers = asyncio.run(go())
    assert [a.status_code for a in answers] == [200] * 200
    decoders = {s: pipeline.subject(s) for s in pipeline.card.voxels}
    for answer, subject, x in zip(answers, subjects, sent, strict=True):
        expected = decoders[subject].predict([x])[0]["features"]
        np.testing.assert_allclose(np.load(io.BytesIO(answer.content)), expected, rtol=0, atol=1e-6)


def test_clips_over_http_are_those_of_the_gallery(url, pipeline):
    x = recording(pipeline, "sub-03")
    found = httpx.post(f"{url}decode?subject=sub-03&top=3", headers=AUTH | NPY, content=npy(x), timeout=30).json()
    expected = pipeline.gallery("features").rank(pipeline.predict("sub-03", x)["features"], 5, 3)
    assert len(found["clips"]) == len(expected) == 7
    for clip, own in zip(found["clips"], expected, strict=True):
        assert clip["first_scan"] == own.first_scan
        assert [m["stimulus_id"] for m in clip["matches"]] == [m.stimulus_id for m in own.matches]
        np.testing.assert_allclose([m["score"] for m in clip["matches"]], [m.score for m in own.matches], atol=1e-6)


def test_health_page_and_subjects(url, pipeline):
    assert httpx.get(f"{url}healthz").json() == httpx.get(f"{url}readyz").json() == {"status": "ok"}
    assert "What does this brain see?" in httpx.get(url).text
    listed = httpx.get(f"{url}subjects", headers={"x-api-key": KEY}).json()["subjects"]
    assert {s["subject"]: s["voxels"] for s in listed} == pipeline.card.voxels


def test_a_taken_port_is_named(pipeline):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="another port"):
            serve_run(pipeline.weights.store.url, key=KEY, port=taken.getsockname()[1], block=False)


@pytest.mark.parametrize(
    ("query", "change", "headers", "status", "words"),
    [
        ("subject=sub-01", lambda x: np.where(x == x[0, 0], np.nan, x), AUTH, 422, "NaN"),
        ("subject=sub-01", lambda x: x[:, 1:], AUTH, 422, "voxels"),
        ("subject=sub-01", lambda x: x[:3], AUTH, 422, "fewer than a clip of 5"),
        ("subject=nobody", lambda x: x, AUTH, 404, "not in the model"),
        ("subject=sub-01", lambda x: x, {}, 401, "API key"),
        ("subject=sub-01", lambda x: np.zeros((1 << 19, 2), np.float32), AUTH, 413, "1048576 bytes"),
    ],
)
def test_errors_over_http_are_one_sentence(url, pipeline, query, change, headers, status, words):
    body = npy(change(recording(pipeline, "sub-01")))
    answer = httpx.post(f"{url}decode?{query}", headers=headers | NPY, content=body, timeout=30)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    assert words in answer.json()["error"]
    assert "Traceback" not in answer.text
