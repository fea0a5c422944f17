"""The HTTP interface: routes, their models and their examples. Knows no Ray: it asks a `Backend`.

``POST /decode`` takes one recording, (scans, voxels), as ``.npy`` bytes or as JSON, and answers the clips it looks most
like, or (``Accept: application/x-npy``) the predicted target itself.
"""

import asyncio
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, Response
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from cineray.core.errors import DataError
from cineray.serving.arrays import read_json, read_npy, write_npy
from cineray.serving.card import Card
from cineray.serving.gallery import MatchedClip
from cineray.serving.guard import Guard, Limits, Purse, RefusedError, busy, problem, read_body

__all__ = ["Backend", "BusyError", "make_api"]

NPY = "application/x-npy"

ACCEPTED = {"application/x-npy": read_npy, "application/octet-stream": read_npy, "application/json": read_json}

MAX_TOP = 100


class BusyError(Exception):
    """The decoder's queue is full."""


class Backend(Protocol):
    """What answers: Ray Serve handles in production, a plain pipeline in tests."""

    async def features(self, subject: str, recording: NDArray[np.float32], target: str) -> NDArray[np.float32]:
        """(scans, voxels) to the predicted (scans, ...) target; raises `BusyError`."""
        ...

    async def clips(
        self, subject: str, recording: NDArray[np.float32], target: str, num_scans: int, top: int
    ) -> list[MatchedClip]:
        """Clips of ``num_scans`` and their ``top`` candidates; raises `BusyError` or `DataError`."""
        ...

    async def is_ready(self) -> bool:
        """Whether a decoder answers."""
        ...


class Answer(BaseModel):
    """What a recording looks like."""

    subject: str
    target: str
    """Target whose prediction was compared with the stimuli."""
    num_scans: int
    tr_s: float
    clips: list[MatchedClip]

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "subject": "sub-01",
                "target": "features",
                "num_scans": 40,
                "tr_s": 1.0,
                "clips": [
                    {
                        "first_scan": 0,
                        "num_scans": 20,
                        "matches": [{"stimulus_id": "film:120", "film": "film", "onset_s": 120.0, "score": 0.41}],
                    }
                ],
            }
        }
    )


class Subject(BaseModel):
    """One person the decoder knows."""

    subject: str
    voxels: int


class Subjects(BaseModel):
    """Whom the decoder knows, what it predicts and what it accepts."""

    run: str
    fingerprint: str
    step: int
    targets: tuple[str, ...]
    tr_s: float
    clip_s: float
    subjects: list[Subject]
    limits: Limits


class Health(BaseModel):
    """State of the server."""

    status: str


class Problem(BaseModel):
    """Every error: one sentence that says what was found, what was expected and what to do."""

    error: str

    model_config = ConfigDict(json_schema_extra={"example": {"error": "the recording has no scans, expected one"}})


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (400, 401, 404, 408, 413, 415, 422, 500, 503, 504)
}

BODY = {
    "requestBody": {
        "required": True,
        "description": "One run or a part of one, prepared as the data set was (same mask, detrended, z-scored): "
        "(scans, voxels), finite. Binary: little-endian float16, float32 or float64 in C order.",
        "content": {
            NPY: {"schema": {"type": "string", "format": "binary"}},
            "application/json": {
                "schema": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
                "example": [[0.1, -1.2, 0.7], [0.0, 0.4, -0.3]],
            },
        },
    }
}

FEATURES = {"description": "Matched clips, or the predicted target", "content": {NPY: {}}}


def make_api(backend: Backend, card: Card, *, key_digest: str, limits: Limits) -> FastAPI:
    """The whole application, ready to be served by anything that speaks ASGI."""
    # No /docs: its page loads scripts from a CDN. The schema itself is at /openapi.json, behind the key.
    app = FastAPI(title="cineray", summary="What does this brain see?", docs_url=None, redoc_url=None)
    app.add_middleware(Guard, key_digest=key_digest, limits=limits)
    _add_errors(app, limits)
    _add_health(app, backend)
    _add_decode(app, backend, card, limits)
    return app


def _add_decode(app: FastAPI, backend: Backend, card: Card, limits: Limits) -> None:
    purse = Purse(limits)

    @app.get("/subjects", responses={401: PROBLEMS[401]})
    async def subjects() -> Subjects:
        """Whom the decoder knows, what it predicts and what it accepts."""
        known = [Subject(subject=name, voxels=voxels) for name, voxels in card.voxels.items()]
        return Subjects(
            run=card.run,
            fingerprint=card.fingerprint,
            step=card.step,
            targets=card.targets,
            tr_s=card.tr_s,
            clip_s=card.clip_s,
            subjects=known,
            limits=limits,
        )

    @app.post("/decode", response_model=Answer, responses=PROBLEMS | {200: FEATURES}, openapi_extra=BODY)
    async def decode(
        request: Request,
        subject: Annotated[str, Query(max_length=200, examples=["sub-01"])],
        target: Annotated[str | None, Query(max_length=200, description="default: the run's first target")] = None,
        clip_s: Annotated[float | None, Query(gt=0, le=3600, allow_inf_nan=False, description="seconds")] = None,
        top: Annotated[int, Query(ge=1, le=MAX_TOP)] = 5,
    ) -> Any:
        """Decode one recording."""
        target = target or card.targets[0]
        if subject not in card.voxels:
            raise RefusedError(404, "this subject is not in the model; GET /subjects lists those who are")
        if target not in card.targets:
            raise RefusedError(404, "this target is not predicted by the model; GET /subjects lists those that are")
        with purse.share() as take:
            recording = await _recording(request, card.voxels[subject], limits, take)
            async with asyncio.timeout(limits.decode_timeout_s):
                if NPY in request.headers.get("accept", ""):
                    return Response(write_npy(await backend.features(subject, recording, target)), media_type=NPY)
                clips = await backend.clips(subject, recording, target, card.clip_scans(clip_s), top)
        return Answer(subject=subject, target=target, num_scans=len(recording), tr_s=card.tr_s, clips=clips)


async def _recording(request: Request, voxels: int, limits: Limits, take: Any) -> NDArray[np.float32]:
    """The request's body as a checked array."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ACCEPTED:
        raise RefusedError(415, f"the body's content type is not accepted; send {NPY} or application/json")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise RefusedError(415, "the body is compressed; send it as it is")
    max_bytes = min(limits.max_body_bytes, limits.max_json_bytes) if kind.endswith("json") else limits.max_body_bytes
    body = await read_body(
        request.stream(), request.headers, max_bytes=max_bytes, timeout_s=limits.body_timeout_s, take=take
    )
    return await asyncio.to_thread(ACCEPTED[kind], body, voxels)


def _add_health(app: FastAPI, backend: Backend) -> None:
    page = (Path(__file__).parent / "web" / "index.html").read_text(encoding="utf-8")

    @app.get("/", include_in_schema=False)
    async def look() -> HTMLResponse:
        """A page to look at one recording by hand; it holds no data and asks for the key."""
        policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
        return HTMLResponse(page, headers={"content-security-policy": policy})

    @app.get("/healthz")
    async def alive() -> Health:
        """This process answers; needs no key."""
        return Health(status="ok")

    @app.get("/readyz", responses={503: PROBLEMS[503]})
    async def ready() -> Health:
        """A decoder answers; needs no key."""
        if not await backend.is_ready():
            raise RefusedError(503, "no decoder is ready; try again in a few seconds", {"retry-after": "2"})
        return Health(status="ok")


def _add_errors(app: FastAPI, limits: Limits) -> None:
    @app.exception_handler(RefusedError)
    async def refused(request: Request, error: RefusedError) -> Response:
        return problem(error.status, error.sentence, error.headers)

    @app.exception_handler(DataError)
    async def unusable(request: Request, error: DataError) -> Response:
        return problem(422, str(error))

    @app.exception_handler(BusyError)
    async def overloaded(request: Request, error: BusyError) -> Response:
        return problem(503, *busy(limits))

    @app.exception_handler(TimeoutError)
    async def late(request: Request, error: TimeoutError) -> Response:
        return problem(504, f"the decoder did not answer within {limits.decode_timeout_s:g} s; send fewer scans")

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return problem(400, "the connection was closed before the body was complete; send it again")

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]  # its "input" is the client's text and is not repeated
        return problem(422, f"query parameter '{first['loc'][-1]}': {first['msg'].lower()}; see /openapi.json")

    @app.exception_handler(HTTPException)
    async def routing(request: Request, error: HTTPException) -> Response:
        sentence = {404: "there is no such path; see /openapi.json", 405: "this path takes another method"}
        return problem(error.status_code, sentence.get(error.status_code, str(error.detail)), error.headers)
