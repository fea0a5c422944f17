"""Begin with what another run learned: its shared layers for a new subject, or its whole model as a part of this one.

The layers speak of the other run's units, so the statistics they were trained with come along (they stem from that
run's training rows): those of the targets with shared layers, those of the brain with a whole model.
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

__all__ = ["freeze_start", "load_start", "with_moments_of"]


def with_moments_of(start: StartConfig, normaliser: Normaliser) -> Normaliser:
    """The statistics that the loaded layers need are the other run's, the rest stay this run's own."""
    theirs = Normaliser.of_state(_tensors(start, "normaliser"))
    if not start.part:
        return replace(normaliser, targets=theirs.targets)
    if missing := set(normaliser.brain) - set(theirs.brain):
        raise ConfigError(
            f"{start.run_dir}, part '{start.part}' of this run, was not trained on {min(missing)}; "
            "set view.subjects to subjects of that run"
        )
    return replace(normaliser, brain={subject: theirs.brain[subject] for subject in normaliser.brain})


def load_start(model: nn.Module, view: ViewConfig, start: StartConfig) -> None:
    """Put tensors (parameters and buffers) of a trained run into a new model.

    Raises:
        ConfigError: the view's scans, targets or scaling are not the run's, the model has no such tensors, or others.
    """
    _check_view(view, start)
    theirs = {name: x for name, x in _tensors(start, "weights").items() if start.part or subject_of(name) is None}
    ours = _loaded(model, start)
    if start.part:
        theirs = {f"{start.part}.{name}": x for name, x in theirs.items()}
        subjects = {subject_of(name) for name in ours}
        theirs = {name: x for name, x in theirs.items() if subject_of(name) in subjects}
    shapes = [{name: tuple(x.shape) for name, x in tensors.items()} for tensors in (ours, theirs)]
    if shapes[0] != shapes[1] or not ours:
        name = min(set(shapes[0].items()) ^ set(shapes[1].items()), default=(start.part or "shared", ()))[0]
        found, expected = (_described(each, name) for each in shapes)
        raise ConfigError(
            f"tensor '{name}' {found} in this run and {expected} in {start.run_dir}; "
            f"take the model and targets of the run.yaml that stands there"
        )
    model.load_state_dict(theirs, strict=False)


def freeze_start(model: nn.Module, start: StartConfig) -> None:
    """What was loaded learns no more; of a part, its subjects' layers included."""
    loaded = _loaded(model, start)
    for name, parameter in model.named_parameters():
        if name in loaded:
            parameter.requires_grad_(False)


def _loaded(model: nn.Module, start: StartConfig) -> dict[str, Tensor]:
    """The tensors of a model that come from the other run."""
    inside = f"{start.part}."
    return {
        name: x
        for name, x in model.state_dict().items()
        if (name.startswith(inside) if start.part else subject_of(name) is None)
    }


def _tensors(start: StartConfig, family: str) -> dict[str, Tensor]:
    store = Store.at(start.run_dir)
    manifest = read_manifest(store, best(store))
    require_settings(read_run(store), manifest, store)
    found = read_tensors(store, manifest, (family,))
    return {name.removeprefix(f"{family}/"): x for name, x in found.items()}


def _check_view(view: ViewConfig, start: StartConfig) -> None:
    """Layers fit only the scans, targets and scaling they were trained on; shapes alone would not tell."""
    theirs = read_run(Store.at(start.run_dir)).view
    keys = ("window", "normalise") if start.part else ("window", "targets", "raw_targets", "normalise")
    for key in keys:
        found, expected = getattr(view, key), getattr(theirs, key)
        if found != expected:
            raise ConfigError(
                f"view.{key} of this run is {found}, that of {start.run_dir}, from which it starts, is {expected}; "
                "set it to the same"
            )


def _described(shapes: dict[str, tuple[int, ...]], name: str) -> str:
    return f"is {shapes[name]}" if name in shapes else "does not exist"
