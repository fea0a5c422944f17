"""What drawing wrong candidates at random would give on average, without drawing any."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["miss_all"]


def miss_all(better: NDArray[Any], others: NDArray[Any] | int, drawn: int) -> NDArray[np.float64]:
    """Probability that ``drawn`` of ``others`` wrong candidates, drawn without replacement, are none of the ``better``.

    C(others - better, drawn) / C(others, drawn), computed as a product. 1/(drawn + 1) on average over random scores.
    Where there are fewer others than are to be drawn, as beside wrong clips of which some occur twice, all are.
    """
    better, others = np.broadcast_arrays(np.asarray(better)[..., None], np.asarray(others)[..., None])
    k = np.arange(drawn)
    # Whole numbers falling by one: whoever gets below zero passed zero, which keeps the product there.
    return np.where(k < others, (others - better - k) / np.maximum(others - k, 1), 1.0).prod(-1)
