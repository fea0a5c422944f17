"""The solved baselines against formulas, on brains whose code the test chose."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.stats import ortho_group
from sklearn.linear_model import Ridge

from cineray.core.errors import DataError
from cineray.training.models import MODELS
from cineray.training.models.base import ClosedForm, Sizes, Trial
from cineray.training.models.chance import ChanceConfig
from cineray.training.models.linear import align
from cineray.training.models.mean_of_others import MeanOfOthersConfig
from cineray.training.models.pooled_ridge import PooledRidgeConfig
from cineray.training.models.ridge import RidgeConfig, choose_penalty, fit_ridge
from cineray.training.models.srm import SRMConfig, fit_srm, procrustes

SUBJECTS = ("sub-a", "sub.b", "sub-c")
ROWS, SCANS, VOXELS = 60, 2, 6
SIZES = Sizes(dict.fromkeys(SUBJECTS, VOXELS), SCANS, {"features": (4,), "tokens": (2, 3)})
CLOSED_FORM = [
    m for m in MODELS if m().name in ("ridge", "srm", "mean_of_others", "pooled_ridge", "matched_filter", "chance")
]


def made_trials(subjects=SUBJECTS, noise=0.5, voxels=VOXELS):
    """A common stimulus with two targets; each brain is an own linear code of it, plus noise."""
    rng = np.random.default_rng(0)
    code = rng.standard_normal((ROWS, 10))
    targets = {"features": code[:, :4], "tokens": code[:, 4:].reshape(-1, 2, 3)}
    targets = {k: torch.tensor(v, dtype=torch.float32) for k, v in targets.items()}
    trials = []
    for i, subject in enumerate(subjects):
        own = np.random.default_rng(100 + i)
        brain = code @ own.standard_normal((10, SCANS * voxels)) + noise * own.standard_normal((ROWS, SCANS * voxels))
        brain = torch.tensor(brain, dtype=torch.float32).unflatten(1, (SCANS, voxels))
        trials.append(Trial(subject, brain, targets, torch.arange(ROWS), torch.zeros(ROWS, dtype=torch.int64)))
    return trials


def small(config):
    return config(dim=3) if config is SRMConfig else config()


def normal_equations(x, y, penalty):
    """Weights and bias by the textbook, in double precision."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    xc, yc = x - x.mean(0), y - y.mean(0)
    w = np.linalg.solve(xc.T @ xc + penalty * np.eye(x.shape[1]), xc.T @ yc).T
    return w, y.mean(0) - w @ x.mean(0)


def flat(trial):
    return trial.brain.flatten(1).numpy(), torch.cat([t.flatten(1) for t in trial.targets.values()], 1).numpy()


@pytest.mark.parametrize("config", CLOSED_FORM, ids=lambda m: m().name)
class TestEveryBaseline:
    def test_fits_and_predicts_every_target_finite_and_moving(self, config):
        model = small(config).build(SIZES)
        assert isinstance(model, ClosedForm)
        trials = made_trials()
        model.fit(trials)
        out = model({t.subject: t.brain for t in trials})
        assert {k: tuple(v.shape[1:]) for k, v in out.items()} == SIZES.targets
        assert all(len(v) == 3 * ROWS and v.isfinite().all() and (v.std(0) > 0).all() for v in out.values())

    def test_a_row_is_decoded_the_same_whoever_stands_beside_it(self, config):
        model, trials = small(config).build(SIZES), made_trials()
        model.fit(trials)
        brain = {t.subject: t.brain for t in trials}
        both = model(brain)
        alone = model({s: x if s == "sub.b" else x[:0] for s, x in brain.items()})
        for name in both:
            torch.testing.assert_close(both[name][ROWS : 2 * ROWS], alone[name])

    def test_the_state_travels_through_a_checkpoint(self, config):
        trials = made_trials()
        model, other = small(config).build(SIZES), small(config).build(SIZES)
        model.fit(trials)
        other.load_state_dict(model.state_dict())
        brain = {t.subject: t.brain for t in trials}
        for name, value in model(brain).items():
            assert torch.equal(value, other(brain)[name])

    def test_an_unseen_subject_follows_the_rule(self, config):
        model, trials = small(config).build(SIZES), made_trials()
        model.fit(trials[:2])
        brain = {t.subject: t.brain for t in trials}
        model({s: x if s != "sub-c" else x[:0] for s, x in brain.items()})
        if config().name in ("ridge", "srm", "matched_filter"):
            with pytest.raises(DataError, match=r"sub-c.*no training rows"):
                model(brain)
        else:
            assert all(v.isfinite().all() for v in model(brain).values())


@pytest.mark.parametrize("penalty", [0.1, 30.0])
def test_ridge_solves_the_normal_equations(penalty):
    model, trials = RidgeConfig(penalties=(penalty,)).build(SIZES), made_trials()
    model.fit(trials)
    out = model({t.subject: t.brain for t in trials})
    got = torch.cat([v.flatten(1) for v in out.values()], 1).detach().numpy()
    expected = []
    for trial in trials:
        x, y = flat(trial)
        w, b = normal_equations(x, y, penalty)
        expected.append(x @ w.T + b)
    np.testing.assert_allclose(got, np.concatenate(expected), atol=1e-4)


def test_the_penalty_is_the_best_of_a_loop_over_contiguous_blocks():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((50, 20))
    y = x[:, :2] + 4 * rng.standard_normal((50, 2))
    penalties = (0.01, 1.0, 100.0, 1e4)
    errors = []
    for p in penalties:
        total = 0.0
        for first in range(0, 50, 10):
            held = np.zeros(50, bool)
            held[first : first + 10] = True
            w, b = normal_equations(x[~held], y[~held], p)
            total += ((x[held] @ w.T + b - y[held]) ** 2).sum()
        errors.append(total)
    best = penalties[int(np.argmin(errors))]
    assert best not in (penalties[0], penalties[-1]), "a test at the edge would pass for a constant answer"
    assert choose_penalty(x, y, penalties) == best


def test_mean_of_others_never_sees_its_own_subject():
    model, trials = MeanOfOthersConfig(penalties=(5.0,)).build(SIZES), made_trials()
    model.fit(trials)
    brains = [flat(t)[0].astype(np.float64) for t in trials]
    mean = (brains[0] + brains[2]) / 2
    mean = (mean - mean.mean(0)) / mean.std(0)
    w, b = normal_equations(mean, flat(trials[1])[1], 5.0)
    np.testing.assert_allclose(model.read_in["sub·b"].weight.detach(), w, atol=1e-4)
    np.testing.assert_allclose(model.read_in["sub·b"].bias.detach(), b, atol=1e-4)


@pytest.mark.parametrize("own", [0.0, 0.7])
def test_pooled_ridge_is_a_ridge_on_all_rows_one_person_after_the_other(own):
    """People with unequal rows, brains and labels with a mean; scikit-learn solves each map from the rows."""
    trials = [
        Trial(
            t.subject,
            t.brain[i * 10 :] + i,
            {k: v[i * 10 :] + 2 for k, v in t.targets.items()},
            t.stimulus_row[i * 10 :],
            t.scan[i * 10 :],
        )
        for i, t in enumerate(made_trials())
    ]
    model = PooledRidgeConfig(penalty=5.0, own=own).build(SIZES)
    model.fit(trials)
    for subject in SUBJECTS:
        used = [t for t in trials if own or t.subject != subject]
        weights = np.concatenate([np.full(len(t.brain), own if t.subject == subject else 1 / 2) for t in used])
        x, y = (np.concatenate(rows).astype(np.float64) for rows in zip(*map(flat, used), strict=True))
        expected = Ridge(alpha=5.0).fit(x, y, sample_weight=weights)
        np.testing.assert_allclose(model.map_of(subject).weight.detach(), expected.coef_, atol=1e-5)
        np.testing.assert_allclose(model.map_of(subject).bias.detach(), expected.intercept_, atol=1e-5)


def test_pooled_ridge_refuses_ragged_voxels_a_lone_subject_and_one_without_own_rows():
    with pytest.raises(DataError, match="pools brains voxel by voxel"):
        PooledRidgeConfig().build(Sizes({"a": 3, "b": 4}, 1, {"features": (2,)}))
    with pytest.raises(DataError, match="sub-a is the only subject"):
        PooledRidgeConfig().build(SIZES).fit(made_trials()[:1])
    trials, model = made_trials(), PooledRidgeConfig(own=1.0).build(SIZES)
    model.fit(trials[:2])
    with pytest.raises(DataError, match=r"sub-c.*set model.own=0"):
        model({t.subject: t.brain for t in trials})


def test_mean_of_others_refuses_ragged_voxels_and_a_lone_subject():
    with pytest.raises(DataError, match="voxel by voxel"):
        MeanOfOthersConfig().build(Sizes({"a": 3, "b": 4}, 1, {"features": (2,)}))
    with pytest.raises(DataError, match="at least two"):
        MeanOfOthersConfig().build(SIZES).fit(made_trials(("sub-a",)))


def test_rows_meet_by_stimulus_and_by_turn_not_by_position():
    a, b = made_trials(("sub-a", "sub.b"))
    a = Trial("a", a.brain[:5], {}, torch.tensor([7, 7, 8, 9, 7]), a.scan[:5])
    b = Trial("b", b.brain[:4], {}, torch.tensor([9, 7, 5, 7]), b.scan[:4])
    aligned = align([a, b])
    common = aligned.common()
    pairs = set(zip(aligned.rows_at("a", common).tolist(), aligned.rows_at("b", common).tolist(), strict=True))
    assert pairs == {(0, 1), (1, 3), (3, 0)}


def test_a_person_without_the_first_scan_of_a_stimulus_stays_in_step():
    """Three scans of stimulus 7, two of 8, then 7 again; b lacks the first row of all and the second of the repeat."""
    a, b = made_trials(("sub-a", "sub.b"))
    shown = [(7, 0), (7, 1), (7, 2), (8, 0), (8, 1), (7, 0), (7, 1), (7, 2)]
    kept = [1, 2, 3, 4, 5, 7]
    parts = [
        Trial(t.subject, t.brain[: len(k)], {}, *torch.tensor([shown[i] for i in k]).T)
        for t, k in ((a, range(8)), (b, kept))
    ]
    for trials in (parts, parts[::-1]):
        aligned = align(trials)
        common = aligned.common()
        rows = (aligned.rows_at(s, common).tolist() for s in ("sub-a", "sub.b"))
        assert set(zip(*rows, strict=True)) == {(i, kept.index(i)) for i in kept}


def test_procrustes_is_the_best_of_many_orthonormal_maps():
    rng = np.random.default_rng(2)
    brain, shared = rng.standard_normal((40, 5)), rng.standard_normal((40, 3))
    w = procrustes(brain, shared)
    np.testing.assert_allclose(w.T @ w, np.eye(3), atol=1e-12)
    # ||XW - S||² is not ||X - SW'||²; Procrustes minimises the latter, which is the model of the paper.
    model_error = np.linalg.norm(brain - shared @ w.T)
    for q in ortho_group.rvs(5, size=300, random_state=3):
        assert model_error <= np.linalg.norm(brain - shared @ q[:, :3].T) + 1e-9


def test_srm_finds_the_shared_response_of_brains_with_unequal_voxels():
    """Three brains are rotations of one response plus noise: the fitted maps must bring them back together."""
    rng = np.random.default_rng(4)
    response = rng.standard_normal((200, 3))
    true = [ortho_group.rvs(v, random_state=v)[:, :3] for v in (8, 9, 12)]
    brains = [response @ w.T + 0.1 * rng.standard_normal((200, len(w))) for w in true]
    maps, shared = fit_srm(brains, 3, iterations=8)
    seen = [np.corrcoef((x @ w).ravel(), shared.ravel())[0, 1] for x, w in zip(brains, maps, strict=True)]
    assert min(seen) > 0.98
    # The space is the true one up to one common rotation.
    rotation, *_ = np.linalg.lstsq(shared, response, rcond=None)
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=0.1)
    with pytest.raises(DataError, match="lower `dim`"):
        fit_srm(brains, 9)


def test_an_enrolled_subject_joins_without_its_targets():
    trials = made_trials(noise=0.1)
    changed = [*trials[:2], Trial("sub-c", trials[2].brain, {k: v * 0 for k, v in trials[2].targets.items()},
                                  trials[2].stimulus_row, trials[2].scan)]  # fmt: skip
    models = []
    for data in (trials, changed):
        model = SRMConfig(dim=8, penalties=(1.0,), enrolled=("sub-c",)).build(SIZES)
        model.fit(data)
        models.append(model)
    for a, b in zip(*(m.parameters() for m in models), strict=True):
        assert torch.equal(a, b)
    features = models[0]({t.subject: t.brain for t in trials})["features"][2 * ROWS :].detach().numpy()
    truth = trials[2].targets["features"].numpy()
    assert np.corrcoef(features.ravel(), truth.ravel())[0, 1] > 0.6


def test_fit_ridge_agrees_with_himalaya():
    himalaya = pytest.importorskip("himalaya.ridge")
    rng = np.random.default_rng(5)
    x, y = rng.standard_normal((30, 7)), rng.standard_normal((30, 3))
    w, b = fit_ridge(x, y, 2.5)
    other = himalaya.Ridge(alpha=2.5, fit_intercept=True).fit(x, y)
    np.testing.assert_allclose(w, other.coef_.T, atol=1e-8)
    np.testing.assert_allclose(b, other.intercept_, atol=1e-8)


def test_chance_is_standard_normal_noise_independent_of_the_brain():
    """Neighbouring scans that differ in one bit must give unrelated, normally distributed predictions."""
    model = ChanceConfig().build(Sizes({"a": 4}, 1, {"features": (50,)}))
    brain = torch.ones(400, 1, 4)
    brain[:, 0, 0] += torch.arange(400) * 1.2e-7
    assert len(brain.unique(dim=0)) == 400
    noise = model({"a": brain})["features"].detach().numpy()
    assert stats.kstest(noise.ravel(), "norm").pvalue > 0.01
    r = np.corrcoef(noise) - np.eye(400)
    assert abs(r.mean()) < 0.01
    assert abs(np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1]) < 0.03
    np.testing.assert_array_equal(model({"a": brain[7:8]})["features"].detach().numpy(), noise[7:8])
    other = ChanceConfig(seed=1).build(Sizes({"a": 4}, 1, {"features": (50,)}))({"a": brain})["features"]
    assert abs(np.corrcoef(noise.ravel(), other.detach().numpy().ravel())[0, 1]) < 0.03
