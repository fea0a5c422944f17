"""Protocol C: which of the image sequences did this unseen person see? Nothing can be copied from other brains.

Every subject saw an own order. For each held-out subject the mean sequence of the others is taken out, a ridge is
fitted on the others, and the held-out prediction is compared with everybody's residual sequence.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from cineray.training.metrics.similarity import pearson_matrix
from cineray.training.models.ridge import fit_ridge

__all__ = ["own_sequence_ranks"]

Array = NDArray[np.floating]


def own_sequence_ranks(
    brains: Mapping[str, Array],
    sequences: Mapping[str, Array],
    *,
    penalty: float = 10_000.0,
    mispair: bool | np.random.Generator = False,
) -> dict[str, int]:
    """Subject -> rank of the own sequence (1 is right; chance (n + 1) / 2).

    ``brains``: (rows, parcels); ``sequences``: (rows, features), z-scored over rows. ``mispair``, the control, trains
    each brain with the next subject's sequence, or round a circle drawn for each held-out subject.
    """
    names = list(brains)
    return {s: _rank(s, [o for o in names if o != s], brains, sequences, penalty, mispair) for s in names}


def _partners(others: list[str], mispair: bool | np.random.Generator) -> list[str]:
    """Whose sequence each of ``others`` is trained with; never the own one if mispaired."""
    if not mispair:
        return others
    circle = list(mispair.permutation(others)) if isinstance(mispair, np.random.Generator) else others
    following = dict(zip(circle, [*circle[1:], circle[0]], strict=True))
    return [following[o] for o in others]


def _rank(
    held: str,
    others: list[str],
    brains: Mapping[str, Array],
    sequences: Mapping[str, Array],
    penalty: float,
    mispair: bool | np.random.Generator,
) -> int:
    common = np.mean([sequences[s] for s in others], axis=0)
    residual = {s: sequences[s] - common for s in [held, *others]}
    seen = _partners(others, mispair)
    brain, target = (np.concatenate(x) for x in ([brains[s] for s in others], [residual[s] for s in seen]))
    weights, bias = fit_ridge(brain, target, penalty)
    prediction = brains[held] @ weights.T + bias
    r = pearson_matrix(prediction[None], np.stack(list(residual.values())))[0]
    return int((r >= r[0]).sum())
