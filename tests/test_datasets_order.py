"""The order is a bijection, well mixed, sliceable, the same for every world size, and covers an epoch exactly once."""

import hashlib
import itertools

import numpy as np
import pytest
from scipy import stats

from cineray.datasets.order import Order, Schedule, rank_slice


@pytest.mark.parametrize("num", [*range(40), 255, 256, 257, 1000, 4096, 99_991])
def test_order_is_a_bijection(num):
    assert sorted(Order(3, 1, num)[:]) == list(range(num))


def test_any_slice_is_the_slice_of_the_whole():
    order = Order(7, 2, 1009)
    whole = order[:]
    for a, b in itertools.product([0, 1, 500, 1008, 1009, 2000], repeat=2):
        np.testing.assert_array_equal(order[a:b], whole[a:b])


def test_every_permutation_of_four_is_equally_likely():
    counts = dict.fromkeys(itertools.permutations(range(4)), 0)
    for seed in range(6000):
        counts[tuple(Order(seed, 0, 4)[:])] += 1
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


def test_places_and_neighbours_are_uniform():
    num, orders = 12, [Order(5, epoch, 12)[:] for epoch in range(4000)]
    places = np.zeros((num, num))
    neighbours = np.zeros((num, num))
    for order in orders:
        places[np.arange(num), order] += 1
        neighbours[order[:-1], order[1:]] += 1
    off_diagonal = neighbours[~np.eye(num, dtype=bool)]
    # Rows and columns of places add up to the same, which leaves (n-1)² degrees of freedom.
    assert stats.chi2.sf(((places - 4000 / num) ** 2 / (4000 / num)).sum(), (num - 1) ** 2) > 1e-3
    assert stats.chisquare(off_diagonal).pvalue > 1e-3


def test_a_long_order_has_no_trend():
    order = Order(0, 0, 50_000)[:]
    drift = stats.pearsonr(np.arange(len(order)), order)
    serial = stats.pearsonr(order[:-1], order[1:])
    epochs = stats.pearsonr(order, Order(0, 1, 50_000)[:])
    assert min(drift.pvalue, serial.pvalue, epochs.pvalue) > 1e-3
    # The number of fixed points of a random permutation is Poisson with mean 1.
    assert (order == np.arange(len(order))).sum() < 8


def test_seed_and_epoch_change_the_order_and_nothing_else_does():
    base = Order(1, 1, 500)[:]
    np.testing.assert_array_equal(base, Order(1, 1, 500)[:])
    assert not np.array_equal(base, Order(1, 2, 500)[:])
    assert not np.array_equal(base, Order(2, 1, 500)[:])


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_any_world_size_sees_the_same_steps_once(size):
    schedule = Schedule(seed=0, num_examples=1003, batch_size=32)
    digest, seen = hashlib.sha256(), []
    for reference in schedule.references(epoch=4):
        parts = [rank_slice(reference, rank, size) for rank in range(size)]
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        digest.update(np.concatenate(parts).tobytes())
        seen.append(np.concatenate(parts))
    assert [len(s) for s in seen] == [32] * 31 + [11]
    assert sorted(np.concatenate(seen)) == list(range(1003))
    assert digest.hexdigest() == hashlib.sha256(Order(0, 4, 1003)[:].tobytes()).hexdigest()


@pytest.mark.parametrize("batch", [1, 32, 500, 20_000])
def test_resuming_gives_the_rest_of_the_epoch(batch):
    schedule = Schedule(seed=2, num_examples=18_001, batch_size=batch)
    whole = list(schedule.references(0))
    assert len(whole) == schedule.num_steps
    for first in {0, 1, schedule.num_steps // 2, schedule.num_steps - 1, schedule.num_steps}:
        rest = list(itertools.islice(schedule.references(0, first), 3))
        assert all(np.array_equal(a, b) for a, b in itertools.zip_longest(rest, whole[first : first + 3]))


def test_a_slice_of_a_huge_order_is_computed_at_once():
    part = Order(0, 0, 10**15)[10**14 : 10**14 + 1000]
    assert len(set(part.tolist())) == 1000
    assert part.max() > 5 * 10**14
