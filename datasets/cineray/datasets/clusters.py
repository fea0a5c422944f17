"""Stimuli that are alike, in clusters: a split by them keeps close relatives of test stimuli out of training.

Training and test pictures of NSD share semantic clusters, and high scores partly say that a category was recognised
(Shirakawa et al., arXiv 2405.10078).
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from cineray.core.config import Config
from cineray.core.errors import DataError

if TYPE_CHECKING:
    from cineray.datasets.dataset import Dataset

__all__ = ["Clusters", "clusters_of"]

FITTED = 10_000
"""Centres are fitted to so many stimuli at most, evenly spread; all are then assigned."""
TOGETHER = 4096
"""Stimuli read at once."""


class Clusters(Config):
    """Cut all stimuli into ``num`` clusters of alike ones by k-means and take some of them.

    A stimulus group stays whole: it belongs to the cluster of its first stimulus. Clusters are numbered in the order in
    which their first stimuli stand in the data set.
    """

    target: str
    """What makes stimuli alike, as the CLIP text or image tokens of `cineray features`; its mean over all axes but the
    last, at unit length."""
    num: int = Field(ge=2)
    take: tuple[int, ...]
    seed: int = Field(default=0, ge=0)


def clusters_of(dataset: "Dataset", groups: NDArray[np.int64], config: Clusters) -> NDArray[np.int64]:
    """(stimuli,) cluster of each stimulus; ``groups`` (stimuli,) are the numbers of their groups.

    Raises:
        DataError: there are fewer different stimuli than clusters, or no such target.
    """
    from sklearn.cluster import KMeans  # a second, which only those pay who ask for clusters

    vectors = np.concatenate(
        [_vectors(dataset, config.target, first, len(groups)) for first in range(0, len(groups), TOGETHER)]
    )
    fitted = np.unique(vectors[:: -(-len(vectors) // FITTED)], axis=0)
    if len(fitted) < config.num:
        raise DataError(
            f"found {len(fitted)} different stimuli by '{config.target}', expected more than clusters.num "
            f"({config.num}); lower it"
        )
    nearest = KMeans(config.num, n_init="auto", random_state=config.seed).fit(fitted).predict(vectors)
    _, first, member = np.unique(groups, return_index=True, return_inverse=True)
    whole = nearest[first][member]
    names, first, number = np.unique(whole, return_index=True, return_inverse=True)
    rank = np.empty(len(names), np.int64)
    rank[np.argsort(first)] = np.arange(len(names))
    return rank[number]


def _vectors(dataset: "Dataset", target: str, first: int, num: int) -> NDArray[np.float64]:
    """(stimuli, dim) of unit length."""
    values = dataset.gather_stimuli(target, np.arange(first, min(first + TOGETHER, num))).astype(np.float64)
    means = values.reshape(len(values), -1, values.shape[-1]).mean(1)
    return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), np.finfo(np.float64).tiny)
