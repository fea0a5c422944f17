"""The pipeline on Ray Serve: an ingress that checks, and decoders that batch requests and keep subjects in an LRU."""

import asyncio
import logging
import socket
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import ray
from fastapi import FastAPI
from numpy.typing import NDArray
from pydantic import Field
from ray import serve
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle

from cineray.core.config import Config
from cineray.core.errors import ConfigError, DataError
from cineray.serving.api import BusyError, make_api
from cineray.serving.card import Card
from cineray.serving.gallery import MatchedClip
from cineray.serving.guard import Limits
from cineray.serving.keys import digest_of
from cineray.serving.pipeline import Pipeline, SubjectDecoder

__all__ = ["ServeConfig", "build", "serve_run"]

SUBJECTS_PER_REPLICA = 32
"""Read-ins a replica keeps; the least recently used one goes first."""

MAX_BATCH = 32
BATCH_WAIT_S = 0.005
"""A request waits at most this long for others of its subject."""

READY_TIMEOUT_S = 2.0

log = logging.getLogger(__name__)

Features = dict[str, NDArray[np.float32]]


@serve.deployment
class Decoder:
    """One `Pipeline`; requests of one subject are decoded together."""

    def __init__(self, run_dir: str, dataset_url: str, device: str) -> None:
        self.pipeline = Pipeline.open(run_dir, dataset_url=dataset_url, device=device)
        first = self.pipeline.card.targets[0]
        self.galleries = {first: self.pipeline.gallery(first)}

    async def ping(self) -> bool:
        """Answers once the pipeline is loaded."""
        return True

    async def features(self, recording: NDArray[np.float32], target: str) -> NDArray[np.float32]:
        """(scans, voxels) of the multiplexed subject to (scans, ...)."""
        return (await self.predict(recording))[target]

    async def clips(self, recording: NDArray[np.float32], target: str, num_scans: int, top: int) -> list[MatchedClip]:
        """(scans, voxels) of the multiplexed subject to ranked clips."""
        predicted = await self.features(recording, target)
        return await asyncio.to_thread(self.rank, predicted, target, num_scans, top)

    def rank(self, predicted: NDArray[np.float32], target: str, num_scans: int, top: int) -> list[MatchedClip]:
        """Against the target's gallery, which is read on first use."""
        if target not in self.galleries:
            self.galleries[target] = self.pipeline.gallery(target)
        return self.galleries[target].rank(predicted, num_scans, top)

    @serve.multiplexed(max_num_models_per_replica=SUBJECTS_PER_REPLICA)
    async def subject(self, name: str) -> SubjectDecoder:
        """The subject's own layers on the shared trunk."""
        return await asyncio.to_thread(self.pipeline.subject, name)

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=BATCH_WAIT_S)
    async def predict(self, recordings: list[NDArray[np.float32]]) -> list[Features]:
        """Recordings of one subject (Serve splits batches by subject), decoded in one pass."""
        decoder = await self.subject(serve.get_multiplexed_model_id())  # pyright: ignore[reportCallIssue]
        return await asyncio.to_thread(decoder.predict, recordings)


class Handles:
    """`cineray.serving.api.Backend` over a Serve handle."""

    def __init__(self, decoder: DeploymentHandle) -> None:
        self.decoder = decoder

    async def features(self, subject: str, recording: NDArray[np.float32], target: str) -> NDArray[np.float32]:
        """The predicted target."""
        return await self._ask("features", subject, recording, target)

    async def clips(
        self, subject: str, recording: NDArray[np.float32], target: str, num_scans: int, top: int
    ) -> list[MatchedClip]:
        """Ranked clips."""
        return await self._ask("clips", subject, recording, target, num_scans, top)

    async def is_ready(self) -> bool:
        """Whether a decoder answers within `READY_TIMEOUT_S`."""
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                return await self.decoder.ping.remote()
        except (TimeoutError, BackPressureError, RayError):
            log.warning("no decoder answers", exc_info=True)
            return False

    async def _ask(self, method: str, subject: str, *arguments: Any) -> Any:
        handle = self.decoder.options(method_name=method, multiplexed_model_id=subject)
        try:
            return await handle.remote(*arguments)
        except (BackPressureError, RayActorError):  # full, or died under the request: another try may do
            raise BusyError from None
        except RayTaskError as error:
            if isinstance(error.cause, DataError):  # the wrapper's own text is a traceback
                raise DataError(str(error.cause)) from None
            raise


@serve.deployment
@serve.ingress()
class Ingress:
    """The HTTP side; holds the key's digest, never the key."""

    def __init__(self, decoder: DeploymentHandle, card: Card, key_digest: str, limits: Limits) -> None:
        self.decoder, self.card, self.key_digest, self.limits = decoder, card, key_digest, limits

    def __serve_build_asgi_app__(self) -> FastAPI:
        return make_api(Handles(self.decoder), self.card, key_digest=self.key_digest, limits=self.limits)


class ServeConfig(Config):
    """How a run is served."""

    num_replicas: int = Field(default=1, ge=1)
    """Decoders to begin with."""
    max_replicas: int | None = None
    """Scale out to this many under load; None keeps the number fixed."""
    num_ingresses: int = Field(default=1, ge=1)
    num_cpus: float = Field(default=1.0, gt=0)
    """CPUs of each decoder."""
    num_gpus: float = Field(default=0.0, ge=0)
    """GPUs of each decoder; above 0 it decodes on CUDA."""
    max_queued: int = Field(default=512, ge=1)
    """Requests an ingress lets wait for a decoder; beyond it the answer is 503."""
    limits: Limits = Limits()


def build(pipeline: Pipeline, key_digest: str, config: ServeConfig) -> serve.Application:
    """The application as Serve runs it; every decoder opens the same run and data set again."""
    scaling = {"num_replicas": config.num_replicas}
    if config.max_replicas is not None:
        bounds = {"min_replicas": config.num_replicas, "max_replicas": config.max_replicas}
        scaling = {"autoscaling_config": bounds | {"target_ongoing_requests": MAX_BATCH}}
    decoder = Decoder.options(
        **scaling,
        max_ongoing_requests=2 * MAX_BATCH,  # one batch decoding, the next one gathering
        max_queued_requests=config.max_queued,
        ray_actor_options={"num_cpus": config.num_cpus, "num_gpus": config.num_gpus},
    ).bind(pipeline.weights.store.url, pipeline.dataset.store.url, "cuda" if config.num_gpus else "cpu")
    ingress = Ingress.options(
        num_replicas=config.num_ingresses,
        # The guard refuses first, in our own words.
        max_ongoing_requests=2 * config.limits.max_in_flight,
        ray_actor_options={"num_cpus": 0},  # it must find a place beside a decoder on one core
    )
    return ingress.bind(decoder, pipeline.card, key_digest, config.limits)


def serve_run(
    run_dir: str,
    *,
    key: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    dataset_url: str | None = None,
    config: ServeConfig | None = None,
    on_ready: Callable[[str], None] = print,
    block: bool = True,
) -> None:
    """Serve a finished run until interrupted, on the Ray that is connected or on a private one.

    Args:
        run_dir: folder or ``s3://`` prefix of the run.
        key: what clients must present (`cineray.serving.keys`).
        dataset_url: where the data set is now; None is where the run was trained on it.
        on_ready: called with the address once requests are answered.
    """
    config = config or ServeConfig()
    pipeline = Pipeline.open(run_dir, dataset_url=dataset_url)
    _check_port(host, port)
    if not ray.is_initialized():
        ray.init(address="local", include_dashboard=False)
    # Serve's own deadline is the last net; the ingress answers before it, in our own words.
    last_s = config.limits.body_timeout_s + config.limits.decode_timeout_s + 5
    serve.start(http_options={"host": host, "port": port, "request_timeout_s": last_s})
    serve.run(build(pipeline, digest_of(key), config), name="cineray", route_prefix="/")
    on_ready(f"http://{host}:{port}/")
    if block:
        try:
            threading.Event().wait()
        finally:
            serve.shutdown()


def _check_port(host: str, port: int) -> None:
    """Serve would restart its proxy for ever on a port that somebody else has."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host}:{port} ({error.strerror}); choose another port or host"
            ) from None
