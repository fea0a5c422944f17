"""Where a run goes on: the newest checkpoint of its folder, if the folder holds this very run."""

from torch import Tensor

from cineray.core.errors import ConfigError
from cineray.core.storage import Store
from cineray.training.checkpoint import Manifest, latest, read_manifest, read_tensors
from cineray.training.run import EvaluationConfig, FaultConfig, Run
from cineray.training.strategies import StrategyConfig
from cineray.training.world import World

__all__ = ["identity", "require_settings", "resumable", "resume"]


def identity(run: Run) -> str:
    """Fingerprint of the settings that decide the trained weights.

    Not the name, how the work is spread, how often it is saved and how it is scored; nor where the data set lies, whose
    content has a fingerprint of its own; nor what is told of how others chose the weights that it begins with.
    """
    published = getattr(run.model, "published", ())
    told = {"published": tuple(w.model_copy(update={"selected_on_test": True}) for w in published)} if published else {}
    same = {
        "name": "",
        "view": run.view.model_copy(update={"dataset": ""}),
        "model": run.model.model_copy(update=told),
        "strategy": StrategyConfig(),
        "num_workers": 1,
        "fault": FaultConfig(),
        "evaluation": EvaluationConfig(),
    }
    return run.model_copy(update=same).fingerprint()


def require_settings(run: Run, manifest: Manifest, store: Store) -> None:
    """`ConfigError` where the settings are not those that the checkpoint in ``store`` was trained with."""
    if manifest.identity != (found := identity(run)):
        raise ConfigError(
            f"{store.url} holds a run of other settings: its checkpoint {manifest.step} was trained with fingerprint "
            f"{manifest.identity}, these have {found}; put back what was changed (in run.yaml too), or train in a new "
            "folder, as is needed if another version of cineray trained it"
        )


def resumable(run: Run, store: Store, step: int | None = None) -> Manifest | None:
    """The checkpoint a run goes on from: that of ``step``, or the newest; None where there is none.

    Raises:
        ConfigError: the folder holds a run of other settings.
    """
    step = latest(store) if step is None else step
    if step is None:
        return None
    manifest = read_manifest(store, step)
    require_settings(run, manifest, store)
    return manifest


def resume(run: Run, world: World, store: Store) -> tuple[Manifest | None, dict[str, Tensor] | None]:
    """The newest checkpoint and its tensors; rank 0 decides which one that is."""
    step = world.first(latest(store) if world.rank == 0 else None)
    manifest = None if step is None else resumable(run, store, step)
    if manifest is None:
        return None, None
    return manifest, read_tensors(store, manifest, ("weights", "moments", "normaliser"))
