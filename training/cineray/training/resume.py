"""Where a run goes on: the newest checkpoint of its folder, if the folder holds this very run."""

from torch import Tensor

from cineray.core.errors import ConfigError
from cineray.core.storage import Store
from cineray.training.checkpoint import Manifest, latest, read_manifest, read_tensors
from cineray.training.run import FaultConfig, Run
from cineray.training.strategies import StrategyConfig
from cineray.training.world import World

__all__ = ["identity", "resumable", "resume"]


def identity(run: Run) -> str:
    """Fingerprint of the settings that decide the result: not where, how spread or how often saved."""
    same = {"num_workers": 1, "strategy": StrategyConfig(), "fault": FaultConfig()}
    return run.model_copy(update=same).fingerprint()


def resumable(run: Run, store: Store, step: int | None = None) -> Manifest | None:
    """The checkpoint a run goes on from: that of ``step``, or the newest; None where there is none.

    Raises:
        ConfigError: the folder holds a run of other settings.
    """
    step = latest(store) if step is None else step
    if step is None:
        return None
    manifest = read_manifest(store, step)
    if manifest.identity != identity(run):
        raise ConfigError(
            f"{store.url} holds a run of other settings (fingerprint {manifest.identity}, these have "
            f"{identity(run)}); choose another folder or train the run.yaml that stands there"
        )
    return manifest


def resume(run: Run, world: World, store: Store) -> tuple[Manifest | None, dict[str, Tensor] | None]:
    """The newest checkpoint and its tensors; rank 0 decides which one that is."""
    step = world.first(latest(store) if world.rank == 0 else None)
    manifest = None if step is None else resumable(run, store, step)
    if manifest is None:
        return None, None
    return manifest, read_tensors(store, manifest, ("weights", "moments", "normaliser"))
