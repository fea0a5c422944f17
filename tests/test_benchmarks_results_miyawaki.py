"""`make results-miyawaki` on brains whose code is known: formulas, folds that see nothing held out, known baselines."""

import json

import numpy as np
import pytest
import scipy.io
from benchmarks import results_miyawaki
from benchmarks import results_miyawaki_decoders as decoders
from benchmarks.results_miyawaki_data import Plan, Study, load, permuted
from benchmarks.results_miyawaki_decoders import MatchedFilter, Nested, Ridge, identified, own_correlation
from sklearn.linear_model import Ridge as SklearnRidge

NUM, PIXELS, VOXELS = 9, 16, 30


def study(seed=0, noise=1.0):
    """Three conditions of three pictures, three or four blocks each."""
    rng = np.random.default_rng(seed)
    pictures = rng.uniform(size=(NUM, PIXELS))
    shown = rng.permutation(np.concatenate([np.arange(NUM)] * 3 + [np.arange(4)]))
    code = rng.normal(size=(PIXELS, VOXELS))
    responses = pictures[shown] @ code + noise * rng.normal(size=(len(shown), VOXELS)) + 0.3
    return Study(responses, pictures, shown, np.arange(NUM) // 3)


def test_the_filter_is_the_posterior_mean_of_its_model():
    """Every step written out in voxels and pixels: encoder, shrunk noise, Gaussian conditioning."""
    data = study()
    shrinkage, penalty, gain = setting = (0.3, 1.0, 10.0)
    plan = Plan.of(data, data.by_picture)
    found = MatchedFilter(data, plan).weights(data.pictures, setting) @ data.pictures
    for row, (fold, block) in enumerate(zip(plan.fold, plan.block, strict=True)):
        kept = [k for k in range(NUM) if k not in plan.held[fold]]
        means = np.stack([data.responses[data.shown == k].mean(0) for k in kept])
        counts = np.array([(data.shown == k).sum() for k in kept])
        residual = np.concatenate([data.responses[data.shown == k] - m for k, m in zip(kept, means, strict=True)])
        cov = residual.T @ residual / (len(residual) - len(kept))
        noise = (1 - shrinkage) * cov + shrinkage * np.trace(cov) / VOXELS * np.eye(VOXELS)
        d = data.pictures[kept] - data.pictures[kept].mean(0)
        scale = np.sqrt((d**2).sum() / len(kept))
        x, y = d / scale, means - means.mean(0)
        # Weighted ridge regression: every picture as often as it was shown.
        w = np.linalg.solve(x.T @ (counts[:, None] * x) + penalty * np.eye(PIXELS), x.T @ (counts[:, None] * y)).T
        prior = gain * x.T @ x / len(kept)
        gained = prior @ w.T @ np.linalg.inv(w @ prior @ w.T + noise) @ (data.responses[block] - means.mean(0))
        np.testing.assert_allclose(found[row], data.pictures[kept].mean(0) + scale * gained, atol=1e-8)


def test_ridge_is_that_of_another_library():
    data = study()
    plan = Plan.of(data, [(0, 1), (5, 2)])
    found = Ridge(data, plan).weights(data.pictures, 30.0) @ data.pictures
    for row, (fold, block) in enumerate(zip(plan.fold, plan.block, strict=True)):
        blocks = plan.learnt(data, fold)
        x = data.responses[blocks]
        mean, sd = x.mean(0), x.std(0)
        other = SklearnRidge(alpha=30.0).fit((x - mean) / sd, data.pictures[data.shown[blocks]])
        np.testing.assert_allclose(found[row], other.predict((data.responses[[block]] - mean) / sd)[0], atol=1e-8)


@pytest.mark.parametrize("make", [MatchedFilter, Ridge])
@pytest.mark.parametrize("units", ["by_picture", "by_condition"])
def test_a_held_out_picture_and_its_blocks_decide_nothing(make, units):
    """Change what the outer fold of a unit leaves out: its choice stays, and so does what it makes of one response."""
    data = study()
    units = getattr(data, units)
    held, rng = list(units[1]), np.random.default_rng(9)
    pictures, responses = data.pictures.copy(), data.responses.copy()
    pictures[held] = rng.uniform(size=pictures[held].shape)
    mine = np.flatnonzero(np.isin(data.shown, held))
    responses[mine[1:]] += 50 * rng.normal(size=(len(mine) - 1, VOXELS))
    other = Study(responses, pictures, data.shown, data.condition)
    for criterion in (own_correlation, identified):
        before = Nested(data, units, make).decode(data.pictures, criterion, clip=True)
        after = Nested(other, units, make).decode(pictures, criterion, clip=True)
        assert before.chosen[1] == after.chosen[1]
        np.testing.assert_allclose(before.predicted[mine[0]], after.predicted[mine[0]], atol=1e-5)
    assert np.abs(before.predicted[mine[1:]] - after.predicted[mine[1:]]).max() > 0.01


def test_settings_are_the_best_of_the_inner_folds():
    """Against a loop over outer and inner pictures, each inner fold fitted on its own."""
    data = study(noise=6.0)
    chosen = Nested(data, data.by_picture, Ridge).decode(data.pictures, own_correlation, clip=True).chosen
    for outer in (0, 3):
        best = []
        for penalty in decoders.RIDGE_PENALTIES:
            values = []
            for inner in range(NUM):
                if inner == outer:
                    continue
                plan = Plan.of(data, [(outer, inner)])
                predicted = Ridge(data, plan).weights(data.pictures, penalty) @ data.pictures
                rows = data.shown[plan.block] == inner
                values += [np.corrcoef(p, data.pictures[inner])[0, 1] for p in np.clip(predicted[rows], 0, 1)]
            best.append(np.mean(values))
        assert chosen[outer] == decoders.RIDGE_PENALTIES[int(np.argmax(best))]


def test_scores_against_numpy():
    data, rng = study(), np.random.default_rng(1)
    predicted = rng.uniform(size=(len(data.shown), PIXELS))
    scores = results_miyawaki.Scores.of(predicted, data, data.pictures)
    for block, truth in enumerate(data.shown):
        r = np.array([np.corrcoef(predicted[block], picture)[0, 1] for picture in data.pictures])
        assert scores.pixel_r[block] == pytest.approx(r[truth])
        assert scores.identification[block] == (r.argmax() == truth)
        assert scores.own_condition[block] == (r[truth] == r[data.condition == data.condition[truth]].max())


def test_permutations_stay_within_a_condition():
    data = study()
    found = [permuted(data, np.random.default_rng(seed)) for seed in range(20)]
    assert any((one != data.pictures).any() for one in found)
    for one in found:
        for members in data.by_condition:
            rows = {tuple(row) for row in one[list(members)]}
            assert rows == {tuple(row) for row in data.pictures[list(members)]}


def write(path, data):
    """In the published file's layout, runs of a condition following each other."""
    test = np.arange(len(data.shown)) % 5 == 0
    run = 21 + 4 * data.condition[data.shown] + np.arange(len(data.shown)) % 2
    parts = {"fmri": data.responses, "stim": data.pictures.round(3)[data.shown], "label": run[:, None]}
    content = {name + "Trn": x[~test] for name, x in parts.items()} | {
        name + "Test": x[test] for name, x in parts.items()
    }
    path.mkdir(parents=True)
    scipy.io.savemat(path / "miyawaki_structured_28x28.mat", content)


def test_the_whole_command(tmp_path, capsys):
    data = study(noise=0.5)
    write(tmp_path / "miyawaki2008_figures", data)
    read = load(tmp_path / "miyawaki2008_figures")
    assert {tuple(sorted(map(tuple, read.pictures[list(c)]))) for c in read.by_condition} == {
        tuple(sorted(map(tuple, data.pictures[list(c)].round(3)))) for c in data.by_condition
    }
    results_miyawaki.main(["--data", str(tmp_path), "--permutations", "30"])
    said = capsys.readouterr().out
    found = json.loads(said.splitlines()[-1])
    part = found["leave_one_stimulus_out"]
    assert (found["n_blocks"], found["n_pictures"], found["permutations"]) == (31, 9, 30)
    ours = part["rows"][results_miyawaki.OURS]
    assert ours["pixel_r"][1] < ours["pixel_r"][0] < ours["pixel_r"][2]
    assert part["null"]["pixel_r"]["p"] <= 2 / 31
    assert part["null"]["pixel_r"]["max"] < ours["pixel_r"][0]
    assert "| matched filter |" in said
    with pytest.raises(SystemExit):
        results_miyawaki.main(["--data", str(tmp_path / "else")])
    assert "there is no file" in capsys.readouterr().err


def test_published_baselines(data_folder):
    """Ridge with its penalty chosen in an inner loop, as the data's README has it: .546 / .873 and .630 / .873."""
    data = load(data_folder("miyawaki2008_figures"))
    assert np.bincount(data.condition).tolist() == [5, 5, 5, 5]
    nested = Nested(data, data.by_picture, Ridge)
    for criterion, expected in ((own_correlation, (0.546, 0.873)), (identified, (0.630, 0.873))):
        predicted = nested.decode(data.pictures, criterion, clip=False).predicted
        scores = results_miyawaki.Scores.of(predicted, data, data.pictures)
        assert scores.identification.mean() == pytest.approx(expected[0], abs=6e-4)
        assert scores.pixel_r.mean() == pytest.approx(expected[1], abs=6e-4)
    floor = own_correlation(*results_miyawaki._floor(data, data.by_picture))
    by_picture = np.bincount(data.shown, floor) / np.bincount(data.shown)
    assert by_picture.mean() == pytest.approx(0.693, abs=6e-4)


def test_ours_is_above_ridge_on_real_brains(data_folder):
    data = load(data_folder("miyawaki2008_figures"))
    decoded = Nested(data, data.by_picture, MatchedFilter).decode(data.pictures, own_correlation, clip=True)
    scores = results_miyawaki.Scores.of(decoded.predicted, data, data.pictures)
    assert scores.identification.mean() > 0.630
    assert scores.pixel_r.mean() > 0.873
