"""What the results on real brains choose on the training film, against loops over blocks of rows."""

from functools import partial
from itertools import product

import numpy as np
import pytest
from benchmarks.results_song_choice import OWN_GRID, Choice, blocks
from scipy.ndimage import gaussian_filter1d
from sklearn.linear_model import Ridge

from cineray.training.models.matched_filter import MatchedFilterConfig
from cineray.training.protocols.segments import standardise

PARCELS, COMPONENTS, ROWS = 12, 5, 240


@pytest.fixture(scope="module")
def film():
    """Brains and labels of four people who saw one slow stimulus; codes differ, and noise is shared by parcels."""
    rng = np.random.default_rng(0)
    white = rng.standard_normal((ROWS + 4, COMPONENTS))
    y = standardise(np.apply_along_axis(np.convolve, 0, white, np.ones(5), "valid"))
    code = rng.standard_normal((COMPONENTS, PARCELS))
    brains = {}
    for subject in "abcd":
        own = code + rng.standard_normal(code.shape)
        noise = rng.standard_normal((ROWS, PARCELS)) @ rng.standard_normal((PARCELS, PARCELS))
        brains[subject] = standardise(y @ own + 4 * noise)
    return brains, dict.fromkeys(brains, y)


def test_the_choice_is_the_best_of_a_loop_over_blocks(film):
    brains, labels = film
    choice = Choice(brains, labels, tr_s=1.0, clip_s=20.0)
    assert choice.ridge_within() in (scores := loop_over_penalties(brains, labels))
    assert scores[choice.ridge_within()] == max(scores.values())


def test_the_pooled_choice_is_the_best_of_a_loop_over_blocks(film):
    brains, labels = film
    choice = Choice(brains, labels, tr_s=1.0, clip_s=20.0)
    for own_weights in ((0.0,), OWN_GRID):
        scores = loop_over_pools(brains, labels, own_weights)
        plain, filtered = (tuple(c.values()) for c in choice.pooled(own_weights))
        assert np.ptp(list(scores.values())) > 0.02, "a test in which all settings are alike would pass for any"
        assert scores[plain] == pytest.approx(max(v for k, v in scores.items() if k[2] == 0))
        assert scores[filtered] == pytest.approx(max(scores.values()))


def loop_over_pools(brains, labels, own_weights):
    """(own, penalty, high-pass) -> 2AFC, by scikit-learn on the pooled rows."""
    wins = {}
    for own, penalty, s in product(own_weights, (100.0, 300.0, 1000.0, 3000.0, 10_000.0, 30_000.0, 100_000.0), brains):
        predicted, others = np.zeros_like(labels[s]), len(brains) - 1
        for first in range(0, 240, 48):
            kept = np.array([t for t in range(240) if t < first - 30 or t >= first + 48 + 30])
            pool, seen = (np.concatenate([rows[o][kept] for o in brains]) for rows in (brains, labels))
            weights = np.repeat([own if o == s else 1 / others for o in brains], len(kept))
            fit = Ridge(alpha=penalty).fit(pool.astype(float), seen, sample_weight=weights)
            predicted[first : first + 48] = brains[s][first : first + 48] @ fit.coef_.T
        running = gaussian_filter1d(predicted, 4, axis=0, mode="nearest")
        for amount in (0.0, 0.25, 0.5, 0.75, 1.0):
            wins.setdefault((own, penalty, amount), []).append(mean_2afc(predicted - amount * running, labels[s]))
    return {key: np.mean(found) for key, found in wins.items()}


def mean_2afc(predicted, y):
    cut = [slice(k, k + 20) for k in range(0, 240, 20)]
    r = np.corrcoef([predicted[c].ravel() for c in cut], [y[c].ravel() for c in cut])[: len(cut), len(cut) :]
    return np.mean([np.mean(row[i] > np.delete(row, i)) for i, row in enumerate(r)])


def loop_over_penalties(brains, labels):
    scores = {}
    for penalty in (100.0, 300.0, 1000.0, 3000.0, 10_000.0, 30_000.0, 100_000.0):
        wins = []
        for s, x in brains.items():
            y, predicted = labels[s], np.zeros_like(labels[s])
            for first in range(0, 240, 48):
                kept = np.array([t for t in range(240) if t < first - 30 or t >= first + 48 + 30])
                xc, yc = x[kept] - x[kept].mean(0), y[kept] - y[kept].mean(0)
                w = np.linalg.solve(xc.T @ xc + penalty * np.eye(PARCELS), xc.T @ yc)
                predicted[first : first + 48] = x[first : first + 48] @ w
            clips = [slice(k, k + 20) for k in range(0, 240, 20)]
            for a in clips:
                r = [np.corrcoef(predicted[a].ravel(), y[c].ravel())[0, 1] for c in clips]
                wins.append(np.mean([r[clips.index(a)] > other for c, other in zip(clips, r, strict=True) if c != a]))
        scores[penalty] = np.mean(wins)
    return scores


def test_ablations_are_the_best_of_what_is_left(film):
    """The best with one thing at 0 can only be as good as the best of all, and is it where that has the thing at 0."""
    brains, labels = film
    choice = Choice(brains, labels, tr_s=1.0, clip_s=20.0)
    found = choice.matched_filter()

    def score(c):
        config = MatchedFilterConfig(person="unseen").model_copy(update=c)
        return choice._scores(partial(choice._filter, config), (c["high_pass"],))[c["high_pass"]]

    for name, thing in (("unseen_no_gain", "gain"), ("unseen_no_high_pass", "high_pass")):
        assert found[name][thing] == 0
        assert score(found["unseen"] | {thing: 0.0}) <= score(found[name]) <= score(found["unseen"])


def test_blocks_cover_the_film_and_keep_their_distance():
    parts = list(blocks(103, 7))
    assert np.concatenate([held for _, held in parts]).tolist() == list(range(103))
    for kept, held in parts:
        assert np.abs(np.subtract.outer(kept, held)).min() == 8
        assert len(kept) >= 103 - len(held) - 14
