"""A few gloo processes with a deadline: children of the test, ended by the test."""

import multiprocessing
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import wait
from typing import Any

import torch
import torch._dynamo  # torch imports it at the first backward pass; here the children need not (1 s each)
import torch.distributed as dist
import torch.distributed.fsdp  # likewise

from cineray.training.world import World


def on_ranks(size: int, function: Callable[..., Any], *args: Any, deadline_s: float = 60.0) -> list[Any]:
    """``function(world, *args)`` on ``size`` forked processes that form a group; what each returned, by rank.

    Fork rather than spawn: nothing has to be imported again (torch and DeepSpeed take longer than the tests).
    """
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        pipes = [context.Pipe(duplex=False) for _ in range(size)]
        children = [
            context.Process(target=_child, args=(rank, size, f"{folder}/group", pipe[1], function, args))
            for rank, pipe in enumerate(pipes)
        ]
        for child in children:
            child.start()
        for _, theirs in pipes:
            theirs.close()  # so that a child's death is an end of file here
        try:
            return _answers([pipe[0] for pipe in pipes], time.monotonic() + deadline_s)
        finally:
            for child in children:
                child.kill()
                child.join()


def _answers(pipes: list[Any], until: float) -> list[Any]:
    """In whatever order they come: the first to fail is the cause, the others only lost their partner."""
    found: dict[int, Any] = {}
    while len(found) < len(pipes):
        open_pipes = [pipe for rank, pipe in enumerate(pipes) if rank not in found]
        ready = wait(open_pipes, max(0.0, until - time.monotonic()))
        if not ready:
            late = [rank for rank in range(len(pipes)) if rank not in found]
            raise TimeoutError(f"ranks {late} did not finish in time")
        rank = pipes.index(ready[0])
        try:
            ok, value = pipes[rank].recv()
        except EOFError:
            ok, value = False, "it died"
        if not ok:
            raise AssertionError(f"rank {rank} failed:\n{value}")
        found[rank] = value
    return [found[rank] for rank in range(len(pipes))]


def _child(rank: int, size: int, path: str, pipe: Any, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    try:
        dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=size)
        pipe.send((True, function(World(rank, size), *args)))
    except BaseException:
        pipe.send((False, traceback.format_exc()))
    # Not sys.exit: the parent's handlers (pytest, Ray) must not run here. The parent ends us when all have answered.
    time.sleep(3600)
