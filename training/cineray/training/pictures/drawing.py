"""What drawing wrong candidates at random would give on average, without drawing any."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["miss_all"]


def miss_all(better: NDArray[Any], others: NDArray[Any] | int, drawn: int) -> NDArray[np.float64]:
    """Probability that ``drawn`` of ``others`` wrong candidates, drawn without replacement, are none of the ``better``.

    C(others - better, drawn) / C(others, drawn), computed as a product. 1/(drawn + 1) on average over random scores.
    """
    better, others = np.broadcast_arrays(np.asarray(better), np.asarray(others))
    k = np.arange(drawn)
    factors = (others - better)[..., None] - k
    # Whole numbers falling by one: whoever gets below zero passed zero, which keeps the product there.
    return np.prod(factors / (others[..., None] - k), axis=-1)
