"""Features on Ray Data: a pool of actors, the parts of a job as the items.

Ray carries part numbers alone. Each actor gathers the frames of its part straight from the data set and puts what it
computed into the store itself, so that no row passes through Ray, and whatever dies loses at most the parts in work.
"""

import logging
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import ray
import ray.data
import torch
from ray.data import ActorPoolStrategy

from cineray.core.errors import CinerayError, ConfigError
from cineray.datasets.extraction import Extractor, Job

__all__ = ["on_ray"]


def on_ray(job: Job, parts: Sequence[int], *, num_actors: int | None = None) -> Iterator[int]:
    """The workers of `cineray.datasets.extraction.extract` on the connected Ray cluster.

    Args:
        job: what to compute.
        parts: which parts of it.
        num_actors: None is one a GPU, or one a CPU where there is no GPU; more than GPUs share them.

    Raises:
        CinerayError: an actor failed; the parts that are done stay done.
    """
    size, num_cpus, num_gpus = _pool(num_actors, len(parts))
    items = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=len(parts))
    items.context.enable_progress_bars = False
    items.context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # else it tells of bars it does not draw
    done = items.map_batches(
        _Actor,
        fn_constructor_args=(job,),
        batch_size=1,
        compute=ActorPoolStrategy(size=size),
        num_cpus=num_cpus,
        num_gpus=num_gpus,
    )
    try:
        for row in done.iter_rows():
            if row["problem"]:
                raise CinerayError(row["problem"])
            yield int(row["part"])
    except ray.exceptions.RayError as error:
        raise _explained(error, job) from error


class _Actor:
    """Loads the encoder once, then does part after part."""

    def __init__(self, job: Job) -> None:
        self._extract = Extractor(job, "cuda" if torch.cuda.is_available() else "cpu")

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        (part,) = batch["part"].tolist()
        try:
            self._extract(part)
            problem = ""
        except CinerayError as error:  # as a value: Ray's own errors lose what caused them on the way
            problem = str(error)
        return {"part": np.array([part]), "problem": np.array([problem])}


def _pool(num_actors: int | None, num_parts: int) -> tuple[int, float, float]:
    """How many actors there are, and the CPUs and GPUs that each asks Ray for."""
    have = ray.cluster_resources()
    num_cpus, num_gpus = int(have.get("CPU", 0)), int(have.get("GPU", 0))
    wanted = min(num_actors or num_gpus or num_cpus, num_parts)
    if num_gpus:
        return wanted, min(1, num_cpus / wanted), 1 / math.ceil(wanted / num_gpus)
    if wanted > num_cpus:
        raise ConfigError(f"found {num_cpus} CPUs, expected one for each of num_actors={wanted}; lower num_actors")
    return wanted, 1, 0


def _explained(error: Exception, job: Job) -> CinerayError:
    """What Ray says of an actor that failed in other than our own words, on one line."""
    found = re.findall(r"^(?!ray\.)[\w.]+(?:Error|Exception)\b.*", str(error), re.MULTILINE)
    reason = found[-1] if found else type(error).__name__
    return CinerayError(
        f"computing '{job.encoder.target}' ended ({reason}), expected every part to be done; run the same command "
        "again to go on with the parts that are left"
    )
