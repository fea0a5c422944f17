"""Protocols A to C: on brains we made (always), and on real ones against the published baselines (where they are)."""

import numpy as np
import pytest
from scipy.stats import ortho_group

from cineray.training.cuts import Scoring
from cineray.training.protocols.segments import match_all, pairs_as_recorded, pairs_in_srm, standardise
from cineray.training.protocols.sequences import own_sequence_ranks
from film_protocol import compare_film, ridge_of_mean_brain, ridge_unseen, ridge_within, score_film

QUICK = Scoring(num_bootstrap=50, num_null=3)


def rotated_brains(rng, maps, noise=1.0, rows=120):
    """One response seen through an own rotation per subject: only alignment makes the brains comparable."""
    response = rng.standard_normal((rows, 3))
    return {s: response @ w.T + noise * rng.standard_normal((rows, len(w))) for s, w in maps.items()}


def test_alignment_learned_on_one_film_carries_over_to_another():
    rng = np.random.default_rng(0)
    maps = {f"s{i}": ortho_group.rvs(10, random_state=i)[:, :3] for i in range(5)}
    one, two = rotated_brains(rng, maps, 0.3), rotated_brains(rng, maps, 0.3)
    raw = np.mean([m.top1.mean() for m in match_all(pairs_as_recorded(two), 5).values()])
    aligned = np.mean([m.top1.mean() for m in match_all(pairs_in_srm(one, two, dim=3), 5).values()])
    assert aligned > 0.8 > 0.5 > raw


def test_the_template_never_holds_the_brain_it_is_matched_to():
    """Pure noise: a template that held the query would match it."""
    rng = np.random.default_rng(1)
    noise = {f"s{i}": rng.standard_normal((600, 6)) for i in range(6)}
    matched = match_all(pairs_as_recorded(noise), 5)
    assert np.mean([m.top1.mean() for m in matched.values()]) < 0.05
    assert np.mean([m.percentile.mean() for m in matched.values()]) == pytest.approx(0.5, abs=0.06)
    aligned = match_all(pairs_in_srm(noise, {s: x[::-1] for s, x in noise.items()}, dim=3), 5)
    assert np.mean([m.top1.mean() for m in aligned.values()]) < 0.05


def made_films(rng, subjects=6, noise=20.0):
    code = rng.standard_normal((4, 15))
    films = []
    for _ in range(2):
        target = rng.standard_normal((300, 4))
        films.append(
            ({f"s{i}": standardise(target @ code + noise * rng.standard_normal((300, 15))) for i in range(subjects)},
             target)
        )  # fmt: skip
    return films


def test_films_are_decoded_and_pairs_compared():
    rng = np.random.default_rng(2)
    (train, target), (test, truth) = made_films(rng)
    within, unseen = ridge_within(train, target, test, 10.0), ridge_unseen(train, target, test, 10.0)
    scores = score_film(within, truth, tr_s=2.0, how=QUICK)
    assert scores["2afc"].low > 0.5
    assert scores["2afc"].null == pytest.approx(0.5, abs=0.05)
    assert score_film(unseen, truth, tr_s=2.0, how=QUICK)["2afc"].low > 0.5
    mean = ridge_of_mean_brain(train, target, test, 10.0)
    assert score_film(mean, truth, tr_s=2.0, how=QUICK)["2afc"].value > scores["2afc"].value
    noise = {s: rng.standard_normal(x.shape) for s, x in within.items()}
    assert compare_film(within, noise, truth, tr_s=2.0, how=QUICK)["2afc"].low > 0


def test_the_unseen_map_does_not_move_with_the_subject_it_is_for():
    rng = np.random.default_rng(3)
    (train, target), (test, _) = made_films(rng)
    before = ridge_unseen(train, target, test, 10.0)["s0"]
    changed = train | {"s0": rng.standard_normal(train["s0"].shape)}
    after = ridge_unseen(changed, target, test, 10.0)
    np.testing.assert_allclose(after["s0"], before, atol=1e-9)
    assert not np.allclose(after["s1"], ridge_unseen(train, target, test, 10.0)["s1"])


def test_own_sequences_are_found_unless_training_was_mispaired():
    rng = np.random.default_rng(4)
    code = rng.standard_normal((3, 12))
    common = rng.standard_normal((80, 3))
    sequences = {f"s{i}": common + rng.standard_normal((80, 3)) for i in range(8)}
    brains = {s: x @ code + 2 * rng.standard_normal((80, 12)) for s, x in sequences.items()}
    assert set(own_sequence_ranks(brains, sequences, penalty=1.0).values()) == {1}
    for how in (True, np.random.default_rng(5)):
        wrong = own_sequence_ranks(brains, sequences, penalty=1.0, mispair=how)
        assert np.mean(list(wrong.values())) > 2.5


def song(folder, run, drop=("sub-026",)):
    with np.load(folder / f"bold_{run}.npz") as found:
        pairs = zip(found["subjects"].tolist(), found["z"], strict=True)
        return {s: z.astype(np.float32) for s, z in pairs if s not in drop}


def song_target(folder, run):
    return standardise(np.load(folder / f"stim_{run}.npy").astype(np.float64))


def mean_of(matches, field):
    return np.mean([getattr(m, field).mean() for m in matches.values()])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "top1", "percentile"),
    [
        ("sitcomep1", 0.5848, 0.9741),
        ("sitcomep2", 0.5432, 0.9657),
        ("gradCPTscene", 0.0238, 0.5394),
        ("rest1", 0.0042, 0.5132),
    ],
)
def test_protocol_a_without_alignment_is_the_published_one(data_folder, run, top1, percentile):
    matches = match_all(pairs_as_recorded(song(data_folder("song"), run)))
    assert mean_of(matches, "top1") == pytest.approx(top1, abs=5e-4)
    assert mean_of(matches, "percentile") == pytest.approx(percentile, abs=5e-4)


@pytest.mark.slow
def test_protocol_a_with_srm_is_within_a_hundredth(data_folder):
    folder = data_folder("song")
    matches = match_all(pairs_in_srm(song(folder, "sitcomep2"), song(folder, "sitcomep1")))
    assert mean_of(matches, "top1") == pytest.approx(0.6210, abs=0.01)
    assert mean_of(matches, "percentile") == pytest.approx(0.9800, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("test", "train", "variant", "top1", "top5", "two_afc"),
    [
        ("sitcomep1", "sitcomep2", ridge_within, 0.0842, 0.2698, 0.7339),
        ("sitcomep2", "sitcomep1", ridge_within, 0.0911, 0.2993, 0.7207),
        ("sitcomep1", "sitcomep2", ridge_unseen, 0.0655, 0.2058, 0.6697),
        ("sitcomep2", "sitcomep1", ridge_unseen, 0.0522, 0.2002, 0.6684),
        ("sitcomep1", "sitcomep2", ridge_of_mean_brain, 0.1216, 0.3784, 0.8502),
        ("sitcomep2", "sitcomep1", ridge_of_mean_brain, 0.1918, 0.4110, 0.8092),
    ],
)
def test_protocol_b_is_the_published_one(data_folder, test, train, variant, top1, top5, two_afc):
    folder = data_folder("song")
    predicted = variant(song(folder, train), song_target(folder, train), song(folder, test))
    found = score_film(predicted, song_target(folder, test), tr_s=1.0, how=QUICK)
    assert found["top1"].value == pytest.approx(top1, abs=1e-3)
    assert found["top5"].value == pytest.approx(top5, abs=1e-3)
    assert found["2afc"].value == pytest.approx(two_afc, abs=1e-3)
    if len(predicted) > 1:  # one brain's null has a deviation of .03 to .04
        assert found["2afc"].null == pytest.approx(0.5, abs=0.02)


@pytest.mark.slow
def test_protocol_c_is_the_published_one(data_folder):
    folder = data_folder("song")
    brains = song(folder, "gradCPTscene", drop=())
    own = np.load(folder / "stim_gradCPTscene_per_subject.npy").astype(np.float64)
    sequences = {s: standardise(x) for s, x in zip(brains, own, strict=True)}
    ranks = list(own_sequence_ranks(brains, sequences).values())
    assert np.mean(np.array(ranks) == 1) == pytest.approx(26 / 27)
    assert np.mean(ranks) == pytest.approx(1.037, abs=1e-3)
    wrong = list(own_sequence_ranks(brains, sequences, mispair=True).values())
    assert np.mean(np.array(wrong) == 1) == 0
    assert np.mean(wrong) == pytest.approx(15.33, abs=0.01)
