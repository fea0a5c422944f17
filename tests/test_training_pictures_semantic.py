"""Metrics through a network's eyes: closed forms against draws, retrieval against matrices made by hand."""

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.special import comb

from cineray.core.errors import ConfigError, DataError
from cineray.training.backbones import Backbone
from cineray.training.backbones.framewise import framewise
from cineray.training.metrics.retrieval import expected_top1, two_afc
from cineray.training.pictures import DEFAULT, VIDEO_METRICS
from cineray.training.pictures.bank import Bank, Pairing
from cineray.training.pictures.drawing import miss_all
from cineray.training.pictures.frechet import frechet_distance
from cineray.training.pictures.identify import rivals
from cineray.training.pictures.nway import nway, nway_chance, nway_monte_carlo
from cineray.training.pictures.presets import PRESETS
from cineray.training.pictures.smooth import adjacent, all_pairs, gated


def test_drawing_is_the_ratio_of_binomials():
    for better, others, drawn in [(0, 9, 3), (2, 9, 3), (7, 9, 3), (9, 9, 1), (3, 399, 49)]:
        expected = comb(others - better, drawn, exact=True) / comb(others, drawn, exact=True)
        assert miss_all(np.array([better]), others, drawn)[0] == pytest.approx(expected)


def test_where_fewer_are_left_than_are_drawn_all_are_drawn():
    np.testing.assert_array_equal(miss_all(np.array([0, 0, 1, 2]), np.array([3, 2, 2, 2]), 3), [1, 1, 0, 0])


@pytest.mark.parametrize(("n", "accepted"), [(2, 1), (10, 1), (2, 3), (50, 3)])
def test_nway_is_what_draws_converge_to(n, accepted):
    rng = np.random.default_rng(n)
    truth, predicted = rng.standard_normal((6, 60)), rng.standard_normal((6, 60))
    predicted += 0.8 * truth
    exact = nway(predicted, truth, n=n, num_accepted=accepted)
    drawn = []
    for p, t in zip(predicted, truth, strict=True):
        top = np.argsort(-t)[:accepted]
        rest = np.setdiff1d(np.arange(60), top)
        wins = [p[top].max() > p[rng.choice(rest, n - 1, replace=False)].max() for _ in range(4000)]
        drawn.append(np.mean(wins))
    np.testing.assert_allclose(exact, drawn, atol=0.035)
    estimated = nway_monte_carlo(predicted, truth, n=n, num_accepted=accepted, trials=4000)
    np.testing.assert_allclose(exact, estimated, atol=0.035)


@pytest.mark.parametrize("n", [2, 10, 50])
def test_nway_of_random_scores_is_its_chance(n):
    rng = np.random.default_rng(0)
    truth, predicted = rng.standard_normal((2, 6000, 60))
    assert nway_chance(n, 3) == pytest.approx(3 / (n + 2))
    assert nway_chance(n) == 1 / n
    for accepted in (1, 3):
        found = nway(predicted, truth, n=n, num_accepted=accepted)
        assert found.mean() == pytest.approx(nway_chance(n, accepted), abs=4 * found.std() / np.sqrt(len(found)))


def test_nway_ties_fail_and_the_truth_itself_wins():
    truth = np.random.default_rng(0).standard_normal((3, 20))
    assert nway(truth, truth, n=20).tolist() == [1.0] * 3
    assert nway(np.zeros((3, 20)), truth, n=2).tolist() == [0.0] * 3


S = np.array([[0.9, 0.95, 0.1], [0.3, 0.8, 0.2], [0.5, 0.1, 0.4]])
"""Brains (rows) against images: row 0 and row 2 miss, columns 1 and no other miss."""
THREE = np.arange(3)


def test_the_two_directions_of_retrieval_by_hand():
    image = rivals(S, THREE, THREE, THREE, "image")
    brain = rivals(S, THREE, THREE, THREE, "brain")
    assert image.better.tolist() == [1, 0, 1]
    assert brain.better.tolist() == [0, 1, 0]
    assert image.two_way.tolist() == [0.5, 1.0, 0.5]
    np.testing.assert_array_equal(image.two_way, two_afc(S))
    np.testing.assert_array_equal(miss_all(image.better, image.others, 1), expected_top1(S, 2))
    np.testing.assert_array_equal(miss_all(brain.better, brain.others, 1), expected_top1(S.T, 2))


def test_repeats_of_a_clip_are_not_each_others_wrong_candidates():
    """Two predictions of clip 0: the second fits clip 0 better, which does not make the first wrong."""
    similarity = np.array([[0.5, 0.1], [0.9, 0.2], [0.3, 0.4]])
    found = rivals(similarity, np.arange(3), np.array([0, 0, 1]), np.arange(2), "brain")
    assert found.others.tolist() == [1, 1, 2]
    assert found.better.tolist() == [0, 0, 0]


def test_expected_retrieval_agrees_with_both_sampling_protocols():
    rng = np.random.default_rng(1)
    similarity = rng.standard_normal((40, 40)) + 1.2 * np.eye(40)
    every = np.arange(40)
    found = rivals(similarity, every, every, every, "image")
    exact = miss_all(found.better, found.others, 9).mean()
    shared = []
    for _ in range(1500):
        pool = rng.choice(40, 10, replace=False)
        shared.append((similarity[np.ix_(pool, pool)].argmax(1) == np.arange(10)).mean())
    own = []
    for _ in range(60):
        for q in range(40):
            wrong = rng.choice(np.setdiff1d(every, q), 9, replace=False)
            own.append(similarity[q, q] > similarity[q, wrong].max())
    assert exact == pytest.approx(np.mean(shared), abs=0.02)
    assert exact == pytest.approx(np.mean(own), abs=0.03)


REPEATS = {"even": [0, 1, 2, 3, 4, 5], "repeated": [0, 0, 0, 0, 1, 1, 2, 3, 4, 4]}


@pytest.mark.parametrize("name", ["retrieve_image", "retrieve_brain", "retrieve_brain_top5", "retrieve_brain_rank"])
@pytest.mark.parametrize("own", REPEATS.values(), ids=REPEATS.keys())
def test_chance_of_retrieval_is_what_guessing_scores(name, own):
    """Also where clips were shown several times, which makes a clip's own predictions few among many."""
    own, rng, num = np.array(own), np.random.default_rng(0), 4000
    every, pool = np.arange(len(own)), np.unique(own)
    metric = VIDEO_METRICS[name]
    assert metric.chance is not None
    guess = Backbone("guess", lambda pictures: {"embedding": rng.standard_normal((len(pictures), 12))})
    blank = np.zeros((1, 4, 4, 3), np.uint8)
    found, chance = [], metric.chance(Pairing(Bank([]), Bank([]), every, own, pool, 3.0))
    for _ in range(num // len(own)):
        banks = (Bank([blank] * len(own)), Bank([blank] * len(pool)))
        found.append(metric.values(Pairing(*banks, every, own, pool, 3.0), {"clip": guess}))
    error = np.std(found, axis=0) / np.sqrt(len(found))
    np.testing.assert_array_less(np.abs(np.mean(found, axis=0) - chance), 4.5 * error + 1e-9)
    if name == "retrieve_brain" and len(own) == 10:
        np.testing.assert_allclose(chance[[0, 4, 6]], [1 / 7, 1 / 9, 1 / 10])


def test_top5_and_rank_by_sorting(clips):
    predicted, truth = clips
    every = np.arange(NUM)
    pairing = Pairing(predicted, truth, every, (every + 1) % NUM, every, 3.0)
    p, t = (np.stack([v.mean(0) for v in b.by_frame(networks()["clip"], "embedding")]) for b in clips)
    cosine = (p / np.linalg.norm(p, axis=1, keepdims=True)) @ (t / np.linalg.norm(t, axis=1, keepdims=True)).T
    for k in range(NUM):
        own = (k + 1) % NUM
        for direction, candidates in (("image", cosine[k]), ("brain", cosine[:, own])):
            rank = 1 + sorted(candidates, reverse=True).index(cosine[k, own])
            assert VIDEO_METRICS[f"retrieve_{direction}_rank"].values(pairing, networks())[k] == rank
            assert VIDEO_METRICS[f"retrieve_{direction}_top5"].values(pairing, networks())[k] == (rank <= 5)


def test_permuted_features_identify_at_chance():
    rng = np.random.default_rng(2)
    every = np.arange(300)
    found = rivals(rng.standard_normal((300, 300)), every, every, every, "image")
    assert found.two_way.mean() == pytest.approx(0.5, abs=0.06)
    assert rivals(np.ones((300, 300)), every, every, every, "image").two_way.max() == 0.0


def test_smoothness_by_loops():
    frames = np.random.default_rng(0).standard_normal((4, 6))
    unit = [f / np.linalg.norm(f) for f in frames]
    assert adjacent(frames) == pytest.approx(np.mean([unit[i] @ unit[i + 1] for i in range(3)]))
    pairs = [unit[i] @ unit[j] for i in range(4) for j in range(4) if i != j]
    assert all_pairs(frames) == pytest.approx(np.mean(pairs))
    assert gated(frames, 0.6) == 0.0, "the gate is shut at .6 exactly"
    assert gated(frames, 0.61) == adjacent(frames)
    assert adjacent(np.ones((3, 5))) == pytest.approx(1)


@pytest.mark.parametrize("shape", [(30, 5), (8, 20)])
def test_frechet_distance_by_a_matrix_root(shape):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(shape), 1.5 * rng.standard_normal((shape[0] + 3, shape[1])) + 0.3
    cx, cy = np.cov(x.T), np.cov(y.T)
    root = np.real(sqrtm(cx @ cy + 1e-12 * np.eye(shape[1])))
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cx + cy - 2 * root)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=2e-4)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(x, x + 2) == pytest.approx(4 * shape[1])
    with pytest.raises(DataError, match="at least 2 rows"):
        frechet_distance(x[:1], y)


NUM = 8


def colour_network() -> Backbone:
    """Embedding: mean colour; logits: its distance from fixed colours."""
    anchors = np.random.default_rng(0).uniform(0, 255, (60, 3))

    def judge(pictures):
        mean = pictures.reshape(len(pictures), -1, 3).mean(1)
        return {"embedding": mean - 128, "logits": -np.linalg.norm(mean[:, None] - anchors, axis=2)}

    return Backbone("mean colour", judge, 60, classes=tuple(map(str, range(60))))


@pytest.fixture(scope="module")
def clips():
    rng = np.random.default_rng(0)
    shade = rng.uniform(40, 215, (NUM, 1, 1, 1, 3)) + rng.normal(0, 8, (NUM, 2, 1, 1, 3))
    videos = np.clip(shade + rng.normal(0, 20, (NUM, 2, 32, 32, 3)), 0, 255).astype(np.uint8)
    labels = [str(k) for k in colour_network()(videos[:, 0])["logits"].argmax(1)]
    truth = Bank(list(videos), labels=labels)
    noisy = np.clip(videos + rng.normal(0, 30, videos.shape), 0, 255).astype(np.uint8)
    return Bank(list(noisy)), truth


def networks() -> dict[str, Backbone]:
    picture, video = colour_network(), framewise(colour_network())
    roles: tuple[str, ...] = (
        "frame_classifier",
        "clip",
        "clip_b32",
        "dino",
        "alex2",
        "alex5",
        "incep",
        "effnet",
        "swav",
    )
    return dict.fromkeys(roles, picture) | {"video_classifier": video, "vifi": video}


SLOW = {"ssim@rgb512", "psnr@animator", "hue@animator", "epe@animator"}


@pytest.mark.parametrize(
    "name", sorted(n for n, m in VIDEO_METRICS.items() if n not in SLOW and m.level not in ("text", "brain"))
)
def test_every_metric_prefers_the_true_pairing(name, clips):
    """Own clips against wrong ones, on truths told apart by colour; none may be undefined but a direction."""
    metric = VIDEO_METRICS[name]
    predicted, truth = clips
    every = np.arange(NUM)
    if metric.min_clips > NUM:
        pytest.skip(f"{name} needs {metric.min_clips} clips")
    own, wrong, itself = (
        metric.values(Pairing(p, truth, every, o, every, 3.0), networks())
        for p, o in ((predicted, every), (predicted, (every + 4) % NUM), (truth, every))
    )
    sign = 1 if metric.higher_is_better else -1
    assert own.shape == (NUM,)
    if metric.level in ("smoothness", "motion"):
        return
    assert sign * (own.mean() - wrong.mean()) > 0
    # The classifier may be wrong about the truth itself, of which an annotation knows nothing.
    assert metric.annotated or sign * (itself.mean() - own.mean()) >= -1e-9


def test_a_pair_is_computed_once_and_a_network_runs_once(clips):
    calls = []
    network = Backbone("counting", lambda pictures: calls.append(len(pictures)) or colour_network().judge(pictures), 60)
    bank = Bank(clips[1].videos)
    for output in ("embedding", "logits"):
        bank.by_frame(network, output)
    assert sum(calls) == 2 * NUM
    pairing = Pairing(bank, bank, np.zeros(50, int), np.ones(50, int), np.arange(NUM), 3.0)
    seen = []
    assert pairing.each(lambda a, b: seen.append(1) or 0.0, bank.videos, bank.videos).shape == (50,)
    assert len(seen) == 1


def test_a_network_without_the_output_that_is_needed_is_named(clips):
    network = Backbone("scores alone", lambda pictures: {"logits": np.zeros((len(pictures), 3))}, 3)
    with pytest.raises(ConfigError, match="scores alone gives logits, expected embedding"):
        Bank(clips[1].videos).by_frame(network, "embedding")


def test_names_of_presets_and_defaults_are_registered():
    known = set(VIDEO_METRICS) | {"fvd"}
    assert set(DEFAULT) <= known
    assert {name for preset in PRESETS.values() for name in preset.metrics} <= known
    assert {n for n in DEFAULT if "@" in n and not n.partition("@")[2].isdigit()} == {"caption_meteor@stem"}
