"""Named runs: each recipe is a function that returns a whole `Run`; its docstring states what it costs and scores.

``find_recipe("synthetic:tiny")`` gives the function; its keyword arguments are those of
``cineray train synthetic:tiny key=value …``.
"""

from collections.abc import Callable

from cineray.core.errors import ConfigError
from cineray.training.recipes import neuroclips, song, synthetic
from cineray.training.run import Run

__all__ = ["RECIPES", "Recipe", "find_recipe"]

Recipe = Callable[..., Run]

RECIPES: dict[str, Recipe] = {
    "neuroclips:perception": neuroclips.perception,
    "neuroclips:prior": neuroclips.prior,
    "neuroclips:semantic": neuroclips.semantic,
    "song:ridge": song.ridge_within,
    "song:mean_of_others": song.ridge_unseen,
    "song:pooled_ridge": song.pooled_ridge,
    "song:matched_filter": song.matched_filter,
    "song:matched_filter_aligned": song.matched_filter_aligned,
    "song:matched_filter_unseen": song.matched_filter_unseen,
    "synthetic:adapt": synthetic.adapt,
    "synthetic:motion": synthetic.motion,
    "synthetic:perception": synthetic.perception,
    "synthetic:ridge": synthetic.ridge,
    "synthetic:scratch": synthetic.scratch,
    "synthetic:semantic": synthetic.semantic,
    "synthetic:shared": synthetic.shared,
    "synthetic:tiny": synthetic.tiny,
    "synthetic:video_diffusion": synthetic.video_diffusion,
}


def find_recipe(name: str) -> Recipe:
    """The recipe of this name; an unknown one is a `ConfigError` that lists those there are."""
    if name not in RECIPES:
        raise ConfigError(f"found '{name}', expected a recipe ({', '.join(RECIPES)}) or the path of a run.yaml")
    return RECIPES[name]
