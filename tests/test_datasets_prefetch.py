"""Staging memory is aligned and used again; prefetching keeps order, is bounded, and hides no error."""

import threading

import pytest

from cineray.core.errors import ConfigError
from cineray.datasets.prefetch import prefetched
from cineray.datasets.staging import Staging


def test_staging_is_aligned_and_used_again():
    staging = Staging()
    staging.reset(1000, 3)
    first, second = staging.take(3, 10), staging.take(7, 8)
    assert (first.shape, second.shape) == ((3, 10), (7, 8))
    assert first.ctypes.data % 64 == second.ctypes.data % 64 == 0
    first[:] = 1
    second[:] = 2
    assert (first == 1).all()
    staging.reset(1000, 3)
    assert staging.take(3, 10).ctypes.data == first.ctypes.data
    with pytest.raises(AssertionError, match="more taken"):
        staging.take(1, 5000)


def test_prefetching_keeps_order_and_is_bounded():
    made = []
    taken = prefetched((made.append(i) or i for i in range(20)), depth=2)
    assert next(taken) == 0
    deadline = threading.Event()
    deadline.wait(0.3)
    assert len(made) <= 4  # one used, two ready, one waiting for room
    assert list(taken) == list(range(1, 20))


def test_an_error_arrives_where_its_item_was_due():
    def items():
        yield 1
        raise ConfigError("broken")

    taken = prefetched(items(), depth=2)
    assert next(taken) == 1
    with pytest.raises(ConfigError, match="broken"):
        next(taken)
