"""The HTTP interface before a backend whose answers can be checked by hand."""

import asyncio
import io

import httpx
import numpy as np

from cineray.serving.api import make_api
from cineray.serving.card import Card
from cineray.serving.gallery import Match, MatchedClip
from cineray.serving.guard import Limits
from cineray.serving.keys import digest_of

__all__ = ["AUTH", "CARD", "JSON", "KEY", "NPY", "Sums", "X", "ask", "npy", "refused"]

KEY = "a-key-of-sufficient-length"
AUTH = {"authorization": f"Bearer {KEY}"}
NPY = {"content-type": "application/x-npy"}
JSON = {"content-type": "application/json"}
CARD = Card("tiny", "0123", 7, {"sub-01": 3, "sub.2": 4}, ("features", "tokens"), tr_s=2.0, clip_s=8.0)


def npy(values, **options):
    buffer = io.BytesIO()
    np.save(buffer, values, **options)
    return buffer.getvalue()


X = np.arange(6, dtype=np.float32).reshape(2, 3)


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
