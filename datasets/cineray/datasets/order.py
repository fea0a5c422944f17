"""The order of an epoch: a permutation of (seed, epoch) computed for any slice and never stored.

A Feistel network whose halves are numbers modulo ``a`` and ``b`` with ``a b`` just above the number of examples
(Black & Rogaway 2002, "Ciphers with arbitrary finite domains", generalised Feistel): every round adds a hash of one
half to the other, which can be undone, so the whole is a bijection; a value that falls outside is sent round again.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Order", "Schedule", "rank_slice"]

NUM_ROUNDS = 8
"""Four for each half: below three a distinguisher is trivial, and the cost is 0.1 µs an example."""

CHUNK_EXAMPLES = 8192
"""Examples whose places are computed together: large enough to hide numpy's calls, 64 KiB of memory."""


class Order:
    """Permutation of ``num_examples`` numbers, decided by ``seed`` and ``epoch`` alone."""

    def __init__(self, seed: int, epoch: int, num_examples: int) -> None:
        self.num_examples = num_examples
        self._a = math.isqrt(max(num_examples - 1, 0)) + 1
        self._b = -(-num_examples // self._a) or 1
        self._keys = np.random.SeedSequence([seed, epoch]).generate_state(NUM_ROUNDS, np.uint64)

    def __len__(self) -> int:
        return self.num_examples

    def __getitem__(self, part: slice) -> NDArray[np.int64]:
        """Examples at the places of ``part``, as a Python list would cut it."""
        out = np.arange(*part.indices(self.num_examples), dtype=np.uint64)
        todo = np.arange(len(out))
        while len(todo):  # cycle walking: a bijection of the larger domain, restricted to the first num_examples
            out[todo] = self._permute(out[todo])
            todo = todo[out[todo] >= self.num_examples]
        return out.astype(np.int64)

    def _permute(self, x: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """A bijection of 0 … a b - 1."""
        a, b = np.uint64(self._a), np.uint64(self._b)
        left, right = x // b, x % b
        for first, second in self._keys.reshape(-1, 2):
            left = (left + _hash(right, first) % a) % a
            right = (right + _hash(left, second) % b) % b
        return left * b + right


@dataclass(frozen=True)
class Schedule:
    """The global steps of a run: step k of an epoch is ``order[k·B : (k+1)·B]``, the last one may be short."""

    seed: int
    num_examples: int
    batch_size: int
    """Rows of one step over all ranks."""

    @property
    def num_steps(self) -> int:
        """Steps in an epoch."""
        return -(-self.num_examples // self.batch_size)

    def references(self, epoch: int, first_step: int = 0) -> Iterator[NDArray[np.int64]]:
        """Example numbers of each step from ``first_step`` on; starting late costs nothing."""
        order, size = Order(self.seed, epoch, self.num_examples), self.batch_size
        per_chunk = max(1, CHUNK_EXAMPLES // size)
        for step in range(first_step, self.num_steps, per_chunk):
            chunk = order[step * size : (step + per_chunk) * size]
            for at in range(0, len(chunk), size):
                yield chunk[at : at + size]


def rank_slice(reference: NDArray[np.int64], rank: int, size: int) -> NDArray[np.int64]:
    """The fixed part of a step that rank ``rank`` of ``size`` takes; the parts differ by at most one row."""
    return reference[rank * len(reference) // size : (rank + 1) * len(reference) // size]


def _hash(x: NDArray[np.uint64], key: np.uint64) -> NDArray[np.uint64]:
    """Finaliser of SplitMix64 (Steele, Lea & Flood 2014) over ``x`` and a key."""
    x = (x + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) ^ key
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
