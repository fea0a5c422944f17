"""One reusable block of memory that rows are gathered into before they are scaled or sent to a GPU."""

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Staging"]

ALIGNMENT_BYTES = 64
"""A cache line, and more than any dtype needs: page payloads are unaligned, staged rows are not."""


class Staging:
    """Hands out arrays from one block; pinned where there is CUDA, so that copies to the GPU do not wait.

    Arrays of the last `reset` share memory with those of the next. They are numpy's: after a large copy every cache
    is cold, and a torch view then costs a hundredth of the copy itself.
    """

    def __init__(self) -> None:
        self._used = 0
        self._allocate(0)

    @property
    def num_bytes(self) -> int:
        """Bytes held."""
        return len(self._raw)

    def reset(self, num_bytes: int, num_arrays: int) -> None:
        """Forget what was handed out and make room for arrays of so many bytes together."""
        needed = num_bytes + ALIGNMENT_BYTES * num_arrays
        if needed > len(self._raw):
            self._allocate(needed)
        self._used = 0

    def take(self, num_rows: int, row_bytes: int) -> NDArray[np.uint8]:
        """The next aligned array (num_rows, row_bytes) of the block."""
        first, end = self._used, self._used + num_rows * row_bytes
        assert end <= len(self._raw), "more taken than was asked for in reset"
        self._used = end + -end % ALIGNMENT_BYTES
        return self._raw[first:end].reshape(num_rows, row_bytes)

    def _allocate(self, num_bytes: int) -> None:
        # Torch's allocation is aligned as ours must be; the array keeps it alive.
        self._raw = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=torch.cuda.is_available()).numpy()
