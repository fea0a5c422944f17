"""Ray for as long as a command runs: the cluster that ``RAY_ADDRESS`` names, or a private one on this machine."""

import logging
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from textwrap import shorten

from cineray.core.errors import CinerayError

__all__ = ["connected"]

ROOTS = ("core", "datasets", "training", "serving", "cluster")


@contextmanager
def connected(*, num_cpus: int | None = None, searching: bool = False) -> Iterator[None]:
    """Connect, and leave at the end; a private Ray ends with the block.

    Args:
        num_cpus: of a private Ray; None takes what the machine has.
        searching: Ray's state API answers, and workers ask this cluster's, whatever other Ray runs on the machine. Ray
            Train needs it to take back what a run held that was stopped from outside, as searches stop trials.

    Raises:
        CinerayError: the cluster cannot be reached.
    """
    address = os.environ.get("RAY_ADDRESS") or "local"
    private = address == "local"
    _prepare_environment(private=private)
    # By name: Ray Train's own runtime environments inherit it.
    hook = {"worker_process_setup_hook": f"{__name__}.{name_own_cluster.__name__}"} if searching else {}
    import ray

    try:
        if private:
            ray.init(address=address, num_cpus=num_cpus, include_dashboard=searching, runtime_env=hook, **_QUIET)
        else:
            with _one_attempt():
                ray.init(address=address, runtime_env={"py_modules": _checkout()} | hook, **_QUIET)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        where = "start a private Ray" if private else f"reach the Ray cluster at RAY_ADDRESS={address}"
        advice = (
            "`cineray doctor` says what is lacking" if private else "check the address, and its head with `ray status`"
        )
        # Ray's messages go on for paragraphs, and end in a traceback.
        reason = shorten(str(error).partition("Traceback")[0], 300, placeholder=" …") or type(error).__name__
        raise CinerayError(f"cannot {where} ({reason}); {advice}") from error
    try:
        yield
    finally:
        ray.shutdown()


def name_own_cluster() -> None:
    """In a worker of Ray: have it ask its own cluster.

    Ray's state API, which Ray Train's cleaner asks whether a run still lives, looks for any Ray on the machine where
    ``RAY_ADDRESS`` is not set, and gives up where there are two.
    """
    import ray

    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address


_QUIET = {"log_to_driver": False, "logging_level": logging.WARNING}


def _prepare_environment(*, private: bool) -> None:
    """Defaults for everything that Ray starts from here; what the user has set stays."""
    import torch

    from cineray.core.pretrained import PARTS_VARIABLE, parts_folder

    if private:
        # A private Ray asks for a token by itself. Given one, it makes none, which it would keep in the home folder.
        # The mode stays unset: Ray reads it when it is imported, which may have been earlier, or sets it on its own.
        if os.environ.get("RAY_AUTH_MODE", "token") == "token" and not _has_token():
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)  # it warns of the token
        if os.environ.get(PARTS_VARIABLE):  # Ray's processes inherit it, and work in folders of their own
            os.environ[PARTS_VARIABLE] = str(parts_folder())
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


@contextmanager
def _one_attempt() -> Iterator[None]:
    """Ray asks an address that does not answer 20 times, 40 s each, unless it is told how long to wait."""
    name = "RAY_gcs_server_port_wait_time_s"
    given = name in os.environ
    os.environ.setdefault(name, "1")
    try:
        yield
    finally:
        if not given:
            del os.environ[name]


def _has_token() -> bool:
    return any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))


def _checkout() -> list[str]:
    """The parts of the namespace package, where they come from a checkout; none where the wheel is installed."""
    found = []
    for root in ROOTS:
        spec = find_spec(f"cineray.{root}")
        assert spec is not None
        assert spec.submodule_search_locations
        folder = Path(next(iter(spec.submodule_search_locations)))
        if folder.parent.parent.name == root:
            found.append(str(folder.parent))
    return found
