"""The scene link learns what it is shown, keeps its precision on validation, and chains are what the rules say."""

import numpy as np
import pytest
import torch

from cineray.core.errors import DataError, IntegrityError
from cineray.serving.link import Link, LinkConfig, Pairs, chains, crossfade, embedding, fit_link, threshold_of

QUICK = LinkConfig(steps=150, hidden=32)


def pairs(seed, num=400, dim=12, noise=0.15):
    """Scenes are directions; neighbours of one scene share it, up to noise; lengths mean nothing."""
    rng = np.random.default_rng(seed)
    same = rng.random(num) < 0.2
    first, second = rng.standard_normal((2, num, dim))
    second = np.where(same[:, None], first, second)
    seen = [scene + noise * rng.standard_normal((num, dim)) for scene in (first, second)]
    scaled = [torch.from_numpy(x * rng.uniform(0.5, 2, (num, 1))).float() for x in seen]
    return Pairs(*scaled, torch.from_numpy(same))


@pytest.fixture(scope="module")
def link():
    return fit_link(QUICK, pairs(0), pairs(1))


def test_the_input_is_what_the_design_says():
    """First layer by hand: [e1, e2, |e1 - e2|, e1 * e2] of vectors of length 1."""
    link = fit_link(LinkConfig(steps=1, hidden=5), pairs(0, dim=3), pairs(1, dim=3))
    a, b = torch.tensor([[3.0, 0.0, 4.0]]), torch.tensor([[0.0, -2.0, 0.0]])
    given = torch.tensor([0.6, 0, 0.8, 0, -1, 0, 0.6, 1, 0.8, 0, 0, 0])
    first, last = link.network.body[0], link.network.body[3]
    hidden = torch.nn.functional.gelu(first.weight @ given + first.bias)
    expected = 1 / (1 + torch.exp(-(last.weight @ hidden + last.bias)))
    torch.testing.assert_close(link(a, b), expected)
    assert sum(p.numel() for p in link.network.parameters()) == 4 * 3 * 5 + 5 + 5 + 1


def test_unseen_pairs_are_told_apart_at_the_precision_asked_for(link):
    fresh = pairs(2, num=2000)
    linked = link(fresh.first, fresh.second).numpy() >= link.threshold
    same = fresh.same.numpy()
    assert same[linked].mean() > 0.85
    assert linked[same].mean() > 0.5
    assert linked[~same].mean() < 0.05


def test_training_is_repeatable_and_leaves_the_global_generator_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = fit_link(LinkConfig(steps=3), pairs(0), pairs(1))
    assert torch.equal(torch.rand(3), expected)
    assert fit_link(LinkConfig(steps=3), pairs(0), pairs(1)).dumps() == first.dumps()


def test_stored_and_read_back(link):
    again = Link.loads(link.dumps(), "here")
    fresh = pairs(3)
    assert torch.equal(again(fresh.first, fresh.second), link(fresh.first, fresh.second))
    assert (again.threshold, again.config) == (link.threshold, link.config)
    for damaged in (b"", link.dumps()[:200], b"\0" * 500):
        with pytest.raises(IntegrityError, match="here is not a scene link"):
            Link.loads(damaged, "here")


@pytest.mark.parametrize("which", [True, False])
def test_pairs_of_one_kind_teach_nothing(which):
    found = pairs(0)
    one = Pairs(found.first, found.second, torch.full_like(found.same, which))
    for train, val, name in ((one, found, "training"), (found, one, "judging")):
        with pytest.raises(DataError, match=rf"neighbouring {name} clips.*link=null"):
            fit_link(QUICK, train, val)


def test_the_threshold_is_the_lowest_that_is_precise_enough():
    rng = np.random.default_rng(0)
    for _ in range(50):
        probability = np.round(rng.random(30), 1)
        same = rng.random(30) < probability
        found = threshold_of(probability, same, 0.8)
        good = [t for t in np.unique(probability) if same[probability >= t].mean() >= 0.8]
        assert found == (min(good) if good else 2.0)


def test_nothing_is_linked_where_no_threshold_is_precise_enough(link):
    strict = Link(link.config, link.network, threshold_of(np.array([0.9, 0.8]), np.array([False, True]), 0.9))
    embeddings = torch.ones(4, 12)
    assert strict.chains(embeddings, [False, True, True, True]) == [[0], [1], [2], [3]]


def test_chains_by_hand():
    assert chains([False, True, True, True, True, False, True], 3) == [[0, 1, 2], [3, 4], [5, 6]]
    assert chains([True, True], 1) == [[0], [1]]
    assert chains([], 3) == []


def test_only_neighbours_are_chained(link):
    """Equal embeddings, but the third clip begins somewhere else."""
    embeddings = torch.randn(1, 12, generator=torch.Generator().manual_seed(0)).expand(5, 12)
    assert link(embeddings[:1], embeddings[:1]) > link.threshold
    assert link.chains(embeddings, [False, True, False, True, True]) == [[0, 1], [2, 3, 4]]
    assert link.chains(embeddings[:1], [False]) == [[0]]


def test_an_embedding_is_the_mean_token_at_length_one():
    tokens = torch.tensor([[[3.0, 0.0], [0.0, 1.0], [0.0, 11.0]]])
    torch.testing.assert_close(embedding(tokens), torch.tensor([[3.0, 12.0]]) / np.hypot(3, 12))


def test_a_crossfade_by_hand():
    last, video = np.full((1, 1, 3), 100, np.uint8), np.full((4, 1, 1, 3), 40, np.uint8)
    assert crossfade(last, video, 2)[:, 0, 0, 0].tolist() == [80, 60, 40, 40]
    assert np.array_equal(crossfade(last, video, 0), video)
