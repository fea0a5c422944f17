"""Retrieval out of a similarity matrix whose entry [q, q] is the true pair. Ties fail.

Rows are queries and columns are candidates. *Image retrieval* has the brain (prediction) as query and images (truths)
as candidates, *brain retrieval* the reverse; the MedARC code base publishes the two with their names swapped.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cineray.core.errors import DataError

__all__ = ["expected_top1", "ranks", "top_k", "two_afc"]


def ranks(similarity: NDArray[np.float64]) -> NDArray[np.int64]:
    """(n, n) to (n,): 1 + number of wrong candidates at least as similar as the true one."""
    num, columns = similarity.shape
    if num != columns or num < 2:
        raise DataError(f"found {num} queries and {columns} candidates, expected one each for at least 2 clips")
    return (similarity >= np.diagonal(similarity)[:, None]).sum(1)


def top_k(similarity: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """(n,): 1 where the true candidate is among the first ``k``; chance is k/n."""
    return (ranks(similarity) <= k).astype(np.float64)


def two_afc(similarity: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,): share of wrong candidates strictly below the true one; chance is .5."""
    return (len(similarity) - ranks(similarity)) / (len(similarity) - 1)


def expected_top1(similarity: NDArray[Any], pool: int) -> NDArray[np.float64]:
    """(n,): exact probability of a hit among ``pool`` candidates, the true one and ``pool - 1`` drawn from the others.

    With b better candidates among N, P = prod_{k=0}^{pool-2} (N - 1 - b - k) / (N - 1 - k); chance is 1/pool. The mean
    over queries is the expectation of shared draws (MindEye2) and of draws per query (Lite-Mind) alike.
    """
    num = len(similarity)
    if not 2 <= pool <= num:
        raise DataError(f"found a pool of {pool} with {num} clips, expected between 2 and the number of clips")
    better = ranks(similarity) - 1
    k = np.arange(pool - 1)
    # The first factor that reaches zero keeps the product at zero, whatever follows.
    return np.prod((num - 1 - better[:, None] - k) / (num - 1 - k), axis=1)
