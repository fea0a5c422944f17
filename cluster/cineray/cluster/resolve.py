"""Words of the command line to a whole run: ``RECIPE|run.yaml [key=value …]``."""

import inspect
from collections.abc import Mapping
from typing import Any

from cineray.core.errors import ConfigError
from cineray.core.storage import Store
from cineray.training.recipes import Recipe, find_recipe
from cineray.training.run import Run

__all__ = ["resolve"]


def resolve(what: str, changes: Mapping[str, Any]) -> Run:
    """The run that a recipe or a ``run.yaml`` makes, with dotted ``changes``.

    A key that is an argument of the recipe goes to it (``from`` to ``from_``); every other key overrides a setting.

    Raises:
        ConfigError: an unknown recipe, a missing argument, an unknown setting or a wrong value.
    """
    if what.endswith((".yaml", ".yml")):
        folder, _, name = what.rpartition("/")
        store = Store.at(folder or ".")
        if not store.exists(name):
            raise ConfigError(f"found no file {what}, expected the run.yaml of a run, or a recipe")
        return Run.loads(store.get(name), origin=what).override(changes)
    recipe = find_recipe(what)
    arguments = {
        name: changes[name.rstrip("_")] for name in inspect.signature(recipe).parameters if name.rstrip("_") in changes
    }
    _refuse_missing(what, recipe, arguments)
    taken = {name.rstrip("_") for name in arguments}
    return recipe(**arguments).override({key: value for key, value in changes.items() if key not in taken})


def _refuse_missing(what: str, recipe: Recipe, arguments: Mapping[str, Any]) -> None:
    parameters = inspect.signature(recipe).parameters
    wanted = [n for n, p in parameters.items() if p.default is p.empty and n not in arguments]
    if wanted:
        names = " ".join(f"{name.rstrip('_')}=…" for name in wanted)
        raise ConfigError(
            f"recipe {what} needs {names}; its arguments are {', '.join(n.rstrip('_') for n in parameters)}"
        )
