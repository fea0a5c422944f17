"""Reconstruction over Ray actors: each holds a whole pipeline and does one piece of the job after another."""

from collections.abc import Iterator, Sequence
from functools import cached_property

import ray
from ray.exceptions import RayActorError, RayTaskError

from cineray.core.errors import CinerayError, ConfigError
from cineray.serving.jobs import Job, Piece, write_piece
from cineray.serving.video_pipeline import VideoPipeline, VideoPipelineConfig

__all__ = ["reconstruct"]

MAX_RESTARTS = 3
"""Of an actor that dies; the piece it was at is done again."""


class Worker:
    """One pipeline on one device."""

    def __init__(self, config: VideoPipelineConfig, device: str) -> None:
        self.config, self.device = config, device

    @cached_property
    def pipeline(self) -> VideoPipeline:
        """Opened with the first piece: what is wrong with it is then told as the error of a task."""
        return VideoPipeline.open(self.config, self.device)

    def write(self, job: Job, piece: Piece) -> None:
        """Do one piece; done twice, it gives the same bytes."""
        write_piece(job, self.pipeline, piece)


def reconstruct(job: Job, pieces: Sequence[Piece], *, num_actors: int, device: str = "cpu") -> Iterator[Piece]:
    """Do these pieces of a job on ``num_actors`` actors, each piece as it is finished; Ray must be running.

    Args:
        device: ``cuda`` gives every actor a GPU of its own.

    Raises:
        ConfigError: Ray has too few CPUs or GPUs for so many actors.
        CinerayError: a piece cannot be done; those that are done stay done.
    """
    kind = "GPU" if device.startswith("cuda") else "CPU"
    have = int(ray.cluster_resources().get(kind, 0))
    if not 0 < num_actors <= have:
        raise ConfigError(f"found num_actors={num_actors}, expected 1 to {have}, one for each {kind} that Ray has")
    wanted = {"num_gpus": 1} if kind == "GPU" else {"num_cpus": 1}
    remote = ray.remote(Worker).options(max_restarts=MAX_RESTARTS, max_task_retries=MAX_RESTARTS, **wanted)
    given = ray.put(job)
    idle = [remote.remote(job.config, device) for _ in range(min(num_actors, len(pieces)))]
    # By hand rather than by `ray.util.ActorPool`: that does not tell which piece an actor died at.
    waiting, running = list(reversed(pieces)), {}
    while waiting or running:
        while waiting and idle:
            actor, piece = idle.pop(), waiting.pop()
            running[actor.write.remote(given, piece)] = (actor, piece)
        (done,), _ = ray.wait(list(running))
        actor, piece = running.pop(done)
        _checked(done, piece)
        idle.append(actor)
        yield piece


def _checked(done: ray.ObjectRef, piece: Piece) -> None:
    """Raise what the actor raised, in our own words where it was ours."""
    what = f"clips {piece.clips[0].example} to {piece.clips[-1].example} of {piece.clips[0].subject}"
    again = "the same command goes on with what is left"
    try:
        ray.get(done)
    except RayTaskError as error:
        if isinstance(error.cause, CinerayError):
            raise error.cause from None
        raise CinerayError(f"{what} cannot be reconstructed ({error.cause}); {again}") from error
    except RayActorError as error:
        reason = str(error).strip().splitlines()[0]
        raise CinerayError(f"the actor at {what} died more than {MAX_RESTARTS} times ({reason}); {again}") from error
