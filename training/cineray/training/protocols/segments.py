"""Protocol A: find each stretch of a held-out brain's time course in the others', with or without an SRM.

Any alignment can be measured the same way: hand `match_all` its own pairs of query and template.
"""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from cineray.training.metrics.segments import SegmentMatch, match_segments
from cineray.training.models.srm import fit_srm, procrustes, shared_response

__all__ = ["match_all", "pairs_as_recorded", "pairs_in_srm", "standardise"]

Array = NDArray[np.floating]
Pair = tuple[str, Array, Array]
"""Subject, query (rows, features) and the template of the others (rows, features)."""


def standardise(x: Array) -> Array:
    """Zero mean and unit deviation over rows."""
    return (x - x.mean(0)) / x.std(0)


def match_all(pairs: Iterable[Pair], window: int = 10) -> dict[str, SegmentMatch]:
    """Each held-out subject against its template; windows in rows."""
    return {subject: match_segments(query, template, window) for subject, query, template in pairs}


def pairs_as_recorded(brains: Mapping[str, Array]) -> Iterator[Pair]:
    """Template: mean of everybody else, z-scored. ``brains``: subject -> (rows, parcels), all of one film."""
    total = np.sum(list(brains.values()), axis=0)
    for subject, brain in brains.items():
        yield subject, brain, standardise((total - brain) / (len(brains) - 1))


def pairs_in_srm(
    fit: Mapping[str, Array], test: Mapping[str, Array], *, dim: int = 50, iterations: int = 8, seed: int = 0
) -> Iterator[Pair]:
    """The SRM of everybody else on film ``fit``, the held-out subject joined by one Procrustes step on that film.

    Both sides are z-scored in the shared space on film ``test``, which no map has seen.
    """
    for subject in fit:
        others = [s for s in fit if s != subject]
        maps, shared = fit_srm([fit[s] for s in others], dim, iterations=iterations, seed=seed)
        own = procrustes(fit[subject], shared)
        template = shared_response([test[s] for s in others], maps)
        yield subject, standardise(test[subject] @ own), standardise(template)
