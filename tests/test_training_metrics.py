"""Every metric against a loop, a hand-made matrix, scipy or a Monte Carlo of the protocol it stands for."""

import itertools

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import r2_score

from cineray.core.errors import DataError
from cineray.training.bootstrap import draw, interval, of_values, weighted_centre
from cineray.training.metrics import FEATURE_METRICS, RETRIEVAL_METRICS, retrieve
from cineray.training.metrics.features import Moments, mse, pearson, r2
from cineray.training.metrics.nulls import circular_shift, far_pairs
from cineray.training.metrics.retrieval import expected_top1, ranks, top_k, two_afc
from cineray.training.metrics.segments import match_segments, window_correlations
from cineray.training.metrics.similarity import clips_of, cosine_matrix, pearson_matrix


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# Rows are queries. Row answers: 0 right, 1 wrong, 2 right. Column answers: 0 right, 1 wrong, 2 wrong.
BY_HAND = np.array([[0.9, 0.2, 0.1], [0.5, 0.4, 0.8], [0.3, 0.6, 0.7]])


def test_directions_by_meaning_on_a_matrix_with_different_row_and_column_answers():
    assert retrieve("image", 3).values(BY_HAND).tolist() == [1, 0, 1]
    assert retrieve("brain", 3).values(BY_HAND).tolist() == [1, 0, 0]
    assert ranks(BY_HAND).tolist() == [1, 3, 1]
    assert ranks(BY_HAND.T).tolist() == [1, 2, 2]
    assert two_afc(BY_HAND).tolist() == [1, 0, 1]
    assert top_k(BY_HAND.T, 2).tolist() == [1, 1, 1]


def test_ties_fail():
    tied = np.full((4, 4), 0.3)
    assert ranks(tied).tolist() == [4] * 4
    assert two_afc(tied).sum() == top_k(tied, 1).sum() == expected_top1(tied, 2).sum() == 0


def test_identical_is_perfect_and_noise_is_at_chance(rng):
    truth = rng.standard_normal((200, 30))
    perfect, noise = pearson_matrix(truth, truth), pearson_matrix(rng.standard_normal((200, 30)), truth)
    for metric in RETRIEVAL_METRICS.values():
        if metric.min_candidates > 200:
            continue
        assert metric.values(perfect).mean() == 1, metric.name
        values = metric.values(noise)
        error = values.std() / np.sqrt(len(values))
        assert abs(values.mean() - metric.chance(200)) < 4 * error + 1e-3, metric.name


@pytest.mark.parametrize("pool", [2, 5, 12])
def test_expected_top1_is_the_mean_over_all_pools(pool, rng):
    """Enumerate every pool of the query's wrong candidates: the exact probability, no sampling."""
    s = rng.standard_normal((12, 12)) + 0.8 * np.eye(12)
    expected = []
    for q in range(12):
        wrong = [c for c in range(12) if c != q]
        pools = list(itertools.combinations(wrong, pool - 1))
        expected.append(np.mean([s[q, q] > s[q, list(p)].max() for p in pools]))
    np.testing.assert_allclose(expected_top1(s, pool), expected, atol=1e-12)


def test_expected_top1_agrees_with_both_published_protocols(rng):
    s = rng.standard_normal((60, 60)) + 1.5 * np.eye(60)
    shared, per_query = [], []
    for _ in range(3000):
        pool = rng.choice(60, 20, replace=False)
        part = s[np.ix_(pool, pool)]
        shared.append(np.mean(part.argmax(1) == np.arange(20)))
        q = rng.integers(60)
        others = rng.choice(np.delete(np.arange(60), q), 19, replace=False)
        per_query.append(s[q, q] > s[q, others].max())
    exact = expected_top1(s, 20).mean()
    for drawn in (shared, per_query):
        assert abs(np.mean(drawn) - exact) < 4 * np.std(drawn) / np.sqrt(len(drawn))


def test_clips_and_similarity_against_a_loop(rng):
    rows, truth = rng.standard_normal((23, 2, 3)), rng.standard_normal((23, 2, 3))
    a, b = clips_of(rows, 5), clips_of(truth, 5)
    assert a.shape == (4, 5, 6)
    r = pearson_matrix(a, b)
    for i, j in itertools.product(range(4), range(4)):
        x, y = rows[5 * i : 5 * i + 5].ravel(), truth[5 * j : 5 * j + 5].ravel()
        assert r[i, j] == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
        cosine = x @ y / np.linalg.norm(x) / np.linalg.norm(y)
        assert cosine_matrix(a, b)[i, j] == pytest.approx(cosine, abs=1e-12)


def test_a_constant_prediction_correlates_with_nothing_and_nan_is_refused(rng):
    truth = rng.standard_normal((5, 4))
    assert not pearson_matrix(np.full((5, 4), 0.1), truth).any()
    with pytest.raises(DataError, match="NaN"):
        pearson_matrix(np.full((5, 4), np.nan), truth)
    with pytest.raises(DataError, match="values"):
        pearson_matrix(truth[:, :2], truth)


def test_feature_metrics_against_scipy_and_sklearn(rng):
    t = rng.standard_normal((6, 10, 4)) + 50
    p = 0.5 * t + rng.standard_normal(t.shape)
    p[..., 3] = 7.0
    m = Moments.of(p, t).weighted(np.ones((1, 6)))
    flat_p, flat_t = p.reshape(-1, 4), t.reshape(-1, 4)
    expected = [stats.pearsonr(flat_p[:, i], flat_t[:, i]).statistic for i in range(3)]
    np.testing.assert_allclose(pearson(m)[0], [*expected, 0.0], atol=1e-10)
    np.testing.assert_allclose(r2(m)[0], r2_score(flat_t, flat_p, multioutput="raw_values"), atol=1e-9)
    np.testing.assert_allclose(mse(m)[0], ((flat_p - flat_t) ** 2).mean(0), atol=1e-9)
    np.testing.assert_allclose(FEATURE_METRICS["mse"].chance(m)[0], flat_t.var(0), atol=1e-9)
    np.testing.assert_allclose(FEATURE_METRICS["r2"].values(Moments.of(t, t).weighted(np.ones((1, 6)))), 1)


def test_weighted_moments_are_those_of_repeated_clips(rng):
    p, t = rng.standard_normal((2, 5, 7, 3))
    t -= t.mean((0, 1))
    weights = np.array([[2.0, 0, 1, 3, 0]])
    taken = np.repeat(np.arange(5), weights[0].astype(int))
    again = pearson(Moments.of(p, t).weighted(weights))[0]
    expected = [stats.pearsonr(p[taken, :, i].ravel(), t[taken, :, i].ravel()).statistic for i in range(3)]
    np.testing.assert_allclose(again, expected, atol=1e-10)


def test_window_correlations_against_a_loop(rng):
    a, b = rng.standard_normal((2, 15, 3)) + 4
    r = window_correlations(a, b, 4)
    assert r.shape == (12, 12)
    for i, j in itertools.product(range(12), range(12)):
        expected = stats.pearsonr(a[i : i + 4].ravel(), b[j : j + 4].ravel()).statistic
        assert r[i, j] == pytest.approx(expected, abs=1e-9)


def test_segment_matching_against_a_loop_with_overlap_excluded(rng):
    query = np.cumsum(rng.standard_normal((40, 3)), axis=0)
    template = query + 2.0 * rng.standard_normal((40, 3))
    found = match_segments(query, template, 5)
    r = window_correlations(query, template, 5)
    for i in range(36):
        wrong = [r[i, j] for j in range(36) if abs(i - j) >= 5]
        assert found.top1[i] == (r[i, i] > max(wrong))
        assert found.percentile[i] == pytest.approx(np.mean(np.array(wrong) < r[i, i]))
        assert found.chance[i] == pytest.approx(1 / (len(wrong) + 1))
    assert 0 < found.top1.mean() < 1, "a test at the edge proves little"
    with pytest.raises(DataError, match="without overlap"):
        match_segments(query[:9], template[:9], 5)


def test_nulls_keep_their_distance():
    rng = np.random.default_rng(1)
    shifts = {circular_shift(25, 10, rng) for _ in range(300)}
    assert shifts == set(range(10, 16))
    with pytest.raises(DataError, match="both ways"):
        circular_shift(20, 10, rng)
    time_s = np.arange(30) * 4.0
    stimulus = np.arange(30) % 12
    for _ in range(20):
        partner = far_pairs(time_s, stimulus, 10.0, rng)
        assert (np.abs(time_s - time_s[partner]) >= 10).all()
        assert (stimulus != stimulus[partner]).all()
    with pytest.raises(DataError, match="without a wrong clip"):
        far_pairs(np.arange(3) * 1.0, np.arange(3), 10.0, rng)


@pytest.mark.parametrize("centre", ["mean", "median"])
def test_weighted_centre_is_that_of_repeated_values(centre, rng):
    values = rng.standard_normal(9)
    values[4] = np.nan
    weights = rng.integers(0, 4, (20, 9)).astype(float)
    weights[3] = 0
    got = weighted_centre(values, weights, centre)
    for w, found in zip(weights, got, strict=True):
        taken = np.repeat(values, w.astype(int))
        taken = taken[~np.isnan(taken)]
        assert found == pytest.approx(getattr(np, centre)(taken)) if len(taken) else np.isnan(found)


def test_bootstrap_takes_whole_blocks_and_agrees_with_scipy(rng):
    values = rng.standard_normal((1, 40))
    blocks = np.repeat(np.arange(8), 5)
    draws = draw(1, blocks.tolist(), num=500, seed=0)
    assert np.ptp(draws.clips.reshape(500, 8, 5), axis=2).max() == 0
    assert (draws.clips.sum(1) == 40).all()
    draws = draw(1, list(range(40)), num=20_000, seed=0)
    single = interval(of_values(values, draws.weights), draws)
    other = stats.bootstrap((values[0],), np.mean, n_resamples=20_000, method="percentile", rng=1).confidence_interval
    assert single.value == pytest.approx(values.mean())
    assert single.low == pytest.approx(other.low, abs=0.02)
    assert single.high == pytest.approx(other.high, abs=0.02)


def test_the_interval_covers_the_truth_where_subjects_and_clips_both_vary():
    """Crossed random effects: the 95 % interval must hold the true mean about as often as it says."""
    rng, covered = np.random.default_rng(2), 0
    for seed in range(200):
        subject, clip = rng.standard_normal((20, 1)), rng.standard_normal((1, 30))
        values = subject + clip + rng.standard_normal((20, 30))
        draws = draw(20, list(range(30)), num=400, seed=seed)
        found = interval(of_values(values, draws.weights), draws)
        covered += found.low <= 0 <= found.high
    assert 0.88 <= covered / 200 <= 0.99
