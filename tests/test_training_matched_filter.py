"""The matched filter against direct formulas, scipy, and brains whose optimal decoder is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from cineray.core.errors import DataError
from cineray.training.metrics.retrieval import two_afc
from cineray.training.models.base import Sizes, Trial
from cineray.training.models.matched_filter import MatchedFilterConfig

SUBJECTS = ("sub-a", "sub.b", "sub-c", "sub-d")
ROWS, VOXELS, VALUES = 400, 12, 5
PEOPLE = ("within", "aligned", "unseen")


def sizes(scans=1, subjects=SUBJECTS):
    return Sizes(dict.fromkeys(subjects, VOXELS), scans, {"features": (VALUES,)})


class World:
    """x = y B M_s + noise of a known covariance; M_s is the identity plus an own part."""

    def __init__(self, seed=0, own=0.3, noise=3.0):
        self.rng = np.random.default_rng(seed)
        self.code = self.rng.standard_normal((VALUES, VOXELS)) * np.linspace(1.5, 0.5, VALUES)[:, None]
        mixing = self.rng.standard_normal((VOXELS, VOXELS)) / 2 + np.eye(VOXELS)
        self.mixing = noise * mixing
        self.maps = {
            s: np.eye(VOXELS) + own * self.rng.standard_normal((VOXELS, VOXELS)) / VOXELS**0.5 for s in SUBJECTS
        }

    def trials(self, rows=ROWS):
        y = self.rng.standard_normal((rows, VALUES))
        return [self._trial(s, y) for s in SUBJECTS]

    def _trial(self, subject, y):
        x = y @ self.code @ self.maps[subject] + self.rng.standard_normal((len(y), VOXELS)) @ self.mixing
        brain, target = (torch.tensor(a, dtype=torch.float32) for a in (x[:, None], y))
        rows = torch.arange(len(y))
        return Trial(subject, brain, {"features": target}, rows, torch.zeros_like(rows))


def fitted(trials, scans=1, **settings):
    model = MatchedFilterConfig(**settings).build(sizes(scans))
    model.fit(trials)
    return model


def weights(model, subject):
    return model.map_of(subject).weight.detach().numpy().astype(np.float64)


def centred(trial):
    x, y = trial.brain[:, 0].double().numpy(), trial.targets["features"].double().numpy()
    return x - x.mean(0), y - y.mean(0)


def by_the_formulas(trials, number, person, c):
    """(values, voxels): rows instead of moments, an eigendecomposition instead of a solve."""
    rows = [centred(t) for t in trials]
    others = [r for i, r in enumerate(rows) if i != number]
    x, y = rows[number][0], rows[0][1]
    mean = np.mean([r[0] for r in others], axis=0)
    seen = np.mean([r[0] for r in rows], axis=0) if person == "within" else mean
    code = np.linalg.solve(y.T @ y + c.encoder_penalty * np.eye(VALUES), y.T @ seen)
    noise = np.mean([(r[0] - y @ code).T @ (r[0] - y @ code) for r in others], axis=0)
    if person != "unseen":
        step = np.linalg.solve(mean.T @ mean + c.map_penalty * np.eye(VOXELS), mean.T @ (x - mean))
        code = code @ (np.eye(VOXELS) + step)
        left = x - y @ code
        noise = (1 - c.own_noise) * noise + c.own_noise * left.T @ left
    values, vectors = np.linalg.eigh(noise + c.noise_penalty * np.eye(VOXELS))
    half = vectors / np.sqrt(values) @ vectors.T
    white = half @ code.T
    filters = half @ (white * np.linalg.norm(white, axis=0) ** c.gain)
    fitted_on = np.concatenate([r[0] for r in others]) if person == "unseen" else x
    out = fitted_on @ filters
    factor = np.linalg.lstsq(out.reshape(-1, 1), np.tile(y, (len(out) // len(y), 1)).ravel(), rcond=None)[0]
    return (factor * filters).T


@pytest.mark.parametrize("person", PEOPLE)
@pytest.mark.parametrize("gain", [0.0, 1.5])
def test_the_weights_are_those_of_the_formulas(person, gain):
    settings = {"encoder_penalty": 20, "noise_penalty": 50, "map_penalty": 100, "own_noise": 0.3, "gain": gain}
    trials = World().trials()
    model = fitted(trials, person=person, **settings)
    for number, subject in enumerate(SUBJECTS):
        expected = by_the_formulas(trials, number, person, model.config)
        np.testing.assert_allclose(weights(model, subject), expected, atol=1e-5 * np.abs(expected).max())


def test_predictions_are_centred_on_the_training_rows():
    """Brains and labels with a mean: the mean brain must give the mean label."""
    trials = [replace(t, brain=t.brain + 5, targets={"features": t.targets["features"] + 2}) for t in World().trials()]
    model = fitted(trials, high_pass=0.0)
    out = model({t.subject: t.brain for t in trials})["features"].detach().numpy()
    for part, trial in zip(np.split(out, len(trials)), trials, strict=True):
        np.testing.assert_allclose(part.mean(0), trial.targets["features"].mean(0), atol=1e-3)


@pytest.mark.parametrize("person", PEOPLE)
def test_it_nears_the_decoder_that_knows_the_brain(person):
    """People alike and much data: the directions of Σ⁻¹ B', and its accuracy; a filter for white noise stays below."""
    world = World(own=0.0)
    weak = {"encoder_penalty": 1, "noise_penalty": 1, "map_penalty": 1e7}
    model = fitted(world.trials(6000), person=person, gain=0.0, **weak)
    covariance = world.mixing.T @ world.mixing
    test = world.trials(300)
    scores = {"ours": [], "known": [], "white": []}
    for trial in test:
        x, y = centred(trial)
        code = world.code
        best = np.linalg.solve(covariance, code.T).T
        found = weights(model, trial.subject)
        alike = (found * best).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(best, axis=1)
        assert alike.min() > 0.97
        for name, filters in (("ours", found), ("known", best), ("white", code)):
            # Likelihood of every candidate y: y'Wx less half of what the candidate alone would give.
            scale = np.trace(filters @ code.T) / np.trace(best @ code.T)
            evoked = ((y @ code) * (y @ filters / scale)).sum(1)
            scores[name].append(two_afc(x @ filters.T / scale @ y.T - evoked / 2).mean())
    ours, known, white = (np.mean(scores[name]) for name in ("ours", "known", "white"))
    assert 0.6 < known < 0.99, "neither trivial nor hopeless"
    assert ours == pytest.approx(known, abs=0.01)
    assert white < known - 0.02


def test_a_personal_map_helps_people_who_differ():
    def accuracy(person):
        world = World(own=1.0, noise=1.5)
        model = fitted(world.trials(1500), person=person, map_penalty=30, noise_penalty=30)
        hits = []
        for trial in world.trials(60):
            out = model({trial.subject: trial.brain})["features"].detach().numpy()
            hits.append(two_afc(np.corrcoef(out, trial.targets["features"])[:60, 60:]).mean())
        return np.mean(hits)

    unseen, aligned, within = (accuracy(person) for person in ("unseen", "aligned", "within"))
    assert aligned > unseen + 0.03
    assert within > unseen


def changed(trials, number, **parts):
    return [replace(t, **parts) if i == number else t for i, t in enumerate(trials)]


@pytest.mark.parametrize(
    ("person", "moved_by"), [("within", {"scans", "labels"}), ("aligned", {"scans"}), ("unseen", set())]
)
def test_what_a_map_may_use_of_its_own_person(person, moved_by):
    trials = World().trials()
    before = fitted(trials, person=person)
    rng = torch.Generator().manual_seed(1)
    other = {
        "scans": {"brain": torch.randn(ROWS, 1, VOXELS, generator=rng) + 3},
        "labels": {"targets": {"features": torch.randn(ROWS, VALUES, generator=rng) + 3}},
    }
    for what, parts in other.items():
        after = fitted(changed(trials, 1, **parts), person=person)
        same = all(
            torch.allclose(a, b, rtol=0, atol=1e-6)
            for a, b in zip(before.map_of("sub.b").parameters(), after.map_of("sub.b").parameters(), strict=True)
        )
        assert same == (what not in moved_by)
        assert not np.allclose(weights(before, "sub-a"), weights(after, "sub-a"), rtol=1e-3), "others do use them"


def test_unseen_is_the_fit_without_that_person():
    trials = World().trials()
    everybody, absent = fitted(trials, person="unseen"), fitted(trials[1:], person="unseen")
    np.testing.assert_allclose(weights(everybody, "sub-a"), weights(absent, "sub-a"), rtol=1e-4, atol=1e-9)
    with pytest.raises(DataError, match=r"sub-a.*no training rows.*model.person=unseen"):
        fitted(trials[1:], person="aligned")({"sub-a": trials[0].brain})


@pytest.mark.parametrize("amount", [0.0, 0.5])
def test_the_high_pass_is_scipys(amount):
    """Windows of 33 scans with repeated edges: 4 sd on either side, where scipy cuts the Gaussian too."""
    sd, reach, scans = 4, 16, 90
    world = World()
    trials = world.trials()
    wide = [replace(t, brain=t.brain.expand(-1, 2 * reach + 1, -1)) for t in trials]
    model = fitted(wide, scans=33, high_pass=amount, high_pass_sd_tr=sd)
    recording = world.trials(scans)[0].brain[:, 0]
    places = np.clip(np.arange(scans)[:, None] + np.arange(-reach, reach + 1), 0, scans - 1)
    out = model({"sub-a": recording[places]})["features"].detach().numpy().astype(np.float64)
    plain = recording.double().numpy() @ weights(model, "sub-a").T
    expected = plain - amount * gaussian_filter1d(plain, sd, axis=0, mode="nearest")
    np.testing.assert_allclose(out - out.mean(0), expected - expected.mean(0), atol=1e-6)  # but for the bias


def test_an_even_window_counts_from_between_its_middle_scans():
    trials = World().trials()
    spread = [replace(t, brain=torch.cat([t.brain * 7, t.brain * 0.5, t.brain * 1.5, t.brain * -3], 1)) for t in trials]
    one, four = fitted(trials, high_pass=0.0), fitted(spread, scans=4, high_pass=0.0)
    np.testing.assert_allclose(weights(one, "sub-c"), weights(four, "sub-c"), rtol=1e-4)


def test_gradient_reaches_every_parameter_of_a_solved_model():
    trials = World().trials()
    model = fitted(trials)
    model({t.subject: t.brain for t in trials})["features"].square().mean().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


@pytest.mark.parametrize("person", ["within", "aligned", "unseen"])
@pytest.mark.parametrize("value", [0.0, 0.1, -1234.5])
def test_labels_that_do_not_vary_are_refused(person, value):
    trials = World().trials()
    flat = [replace(t, targets={"features": torch.full_like(t.targets["features"], value)}) for t in trials]
    with pytest.raises(DataError, match=r"labels .* are constant") as caught:
        fitted(flat, person=person)
    assert "\n" not in str(caught.value)
    still = [replace(t, brain=torch.full_like(t.brain, 0.1)) for t in trials]
    with pytest.raises(DataError, match=r"scans .* are constant"):
        fitted(still, person=person)
    one = [replace(t, targets={"features": t.targets["features"] * torch.tensor([1.0] + [0.0] * (VALUES - 1))})
           for t in trials]  # fmt: skip
    assert np.isfinite(weights(fitted(one, person=person), "sub-a")).all()


def test_brains_that_cannot_be_averaged_are_refused():
    with pytest.raises(DataError, match="voxel by voxel, found a 3, b 4"):
        MatchedFilterConfig().build(Sizes({"a": 3, "b": 4}, 1, {"features": (2,)}))
    trials = World().trials()
    with pytest.raises(DataError, match=r"400 training rows are common to 1 subjects"):
        fitted(trials[:1])
    apart = [replace(t, stimulus_row=t.stimulus_row + ROWS * i) for i, t in enumerate(trials)]
    with pytest.raises(DataError, match=r"0 training rows are common to 4 subjects"):
        fitted(apart)
