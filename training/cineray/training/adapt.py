"""Begin with another run's shared layers: how a new subject joins a trained model with minutes of data.

The shared layers speak of targets in the units of the run they come from, so its target statistics come along
(they stem from that run's training rows). The statistics of the brain are the new subject's own.
"""

from dataclasses import replace

from torch import Tensor, nn

from cineray.core.errors import ConfigError
from cineray.core.storage import Store
from cineray.datasets.normaliser import Normaliser
from cineray.datasets.view import ViewConfig
from cineray.training.checkpoint import best, read_manifest, read_tensors
from cineray.training.models.base import subject_of
from cineray.training.predict import read_run
from cineray.training.resume import require_settings
from cineray.training.run import StartConfig

__all__ = ["freeze_shared", "load_shared", "with_targets_of"]


def with_targets_of(start: StartConfig, normaliser: Normaliser) -> Normaliser:
    """The same statistics of brains beside the run's statistics of targets."""
    return replace(normaliser, targets=Normaliser.of_state(_tensors(start, "normaliser")).targets)


def load_shared(model: nn.Module, view: ViewConfig, start: StartConfig) -> None:
    """Put the shared tensors (parameters and buffers) of a trained run into a new model.

    Raises:
        ConfigError: the view's scans, targets or scaling are not the run's, the model has no shared tensors, or others.
    """
    _check_view(view, start)
    theirs = {name: x for name, x in _tensors(start, "weights").items() if subject_of(name) is None}
    ours = {name: x for name, x in model.state_dict().items() if subject_of(name) is None}
    shapes = [{name: tuple(x.shape) for name, x in tensors.items()} for tensors in (ours, theirs)]
    if shapes[0] != shapes[1] or not ours:
        name = min(set(shapes[0].items()) ^ set(shapes[1].items()), default=("shared", ()))[0]
        found, expected = (_described(each, name) for each in shapes)
        raise ConfigError(
            f"shared tensor '{name}' {found} in this run and {expected} in {start.run_dir}; "
            f"take the model and targets of the run.yaml that stands there"
        )
    model.load_state_dict(theirs, strict=False)


def freeze_shared(model: nn.Module) -> None:
    """Only the subjects' own layers go on learning."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(subject_of(name) is not None)


def _tensors(start: StartConfig, family: str) -> dict[str, Tensor]:
    store = Store.at(start.run_dir)
    manifest = read_manifest(store, best(store))
    require_settings(read_run(store), manifest, store)
    found = read_tensors(store, manifest, (family,))
    return {name.removeprefix(f"{family}/"): x for name, x in found.items()}


def _check_view(view: ViewConfig, start: StartConfig) -> None:
    """Shared layers fit only the scans, targets and scaling they were trained on; shapes alone would not tell."""
    theirs = read_run(Store.at(start.run_dir)).view
    for key in ("window", "targets", "normalise"):
        found, expected = getattr(view, key), getattr(theirs, key)
        if found != expected:
            raise ConfigError(
                f"view.{key} of this run is {found}, that of {start.run_dir}, from which it starts, is {expected}; "
                "set it to the same"
            )


def _described(shapes: dict[str, tuple[int, ...]], name: str) -> str:
    return f"is {shapes[name]}" if name in shapes else "does not exist"
