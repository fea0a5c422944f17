"""Contrastive losses over the tokens of frames and over the frames of a clip, against loops and whole matrices."""

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from cineray.core.errors import ConfigError
from cineray.datasets.batch import Batch
from cineray.training.losses import FrameContrastConfig, L1Config, SoftContrastConfig
from cineray.training.losses.soft_contrast import LikenessTargets
from cineray.training.losses.tiles import SoftTargets, contrastive
from cineray.training.world import World
from multiprocess import on_ranks

SHAPE = (3, 2, 5)
"""Frames, tokens, dim."""
SOFT = SoftContrastConfig(target="tokens", augmented="augmented")
FRAMES = FrameContrastConfig(target="tokens")


def drawn(rows, seed):
    return torch.randn(rows, *SHAPE, generator=torch.Generator().manual_seed(seed))


def a_batch(rows=6):
    stimulus = torch.tensor([0, 1, 2, -1, 3, 4])[:rows]
    targets = {"tokens": drawn(rows, 0), "augmented": drawn(rows, 0) + 0.3 * drawn(rows, 1)}
    return Batch({"a": torch.zeros(rows, 1, 2)}, targets, torch.arange(rows), stimulus, rows)


def test_tokens_are_compared_as_in_the_whole_matrix():
    batch, predicted = a_batch(), drawn(6, 2).requires_grad_()
    keep = batch.stimulus_row >= 0
    p, t, k = (
        normalize(x[keep].reshape(-1, 5), dim=1)
        for x in (predicted, batch.targets["tokens"], batch.targets["augmented"])
    )
    ours = predicted.detach().clone().requires_grad_()
    share = SOFT.share({"tokens": ours}, batch, World())
    true, found = t @ k.T / 0.2, p @ k.T / 0.2
    both = cross_entropy(found, true.softmax(1), reduction="sum") + cross_entropy(
        found.T, true.T.softmax(1), reduction="sum"
    )
    expected = both / 2 / (6 * 3 * 2)
    share.backward()
    expected.backward()
    torch.testing.assert_close(share, expected)
    torch.testing.assert_close(ours.grad, predicted.grad)


def test_without_augmentation_the_targets_are_those_of_soft_clip():
    keys, queries = (normalize(drawn(4, seed).reshape(-1, 5), dim=1) for seed in (0, 1))
    targets = (LikenessTargets(keys, keys, 0.2, World(), 5), SoftTargets(keys, 0.2, World()))
    ours, theirs = (contrastive(queries, keys, each, 0.2, World(), 7) for each in targets)
    torch.testing.assert_close(ours, theirs)


def test_frames_of_a_clip_are_told_apart_as_in_a_loop():
    batch, predicted = a_batch(), drawn(6, 2)
    expected = 0.0
    for row in range(6):
        if batch.stimulus_row[row] < 0:
            continue
        p, t = (normalize(x[row].flatten(1), dim=1) for x in (predicted, batch.targets["tokens"]))
        for i in range(3):
            there = torch.stack([p[i] @ t[j] / 0.1 for j in range(3)])
            back = torch.stack([p[j] @ t[i] / 0.1 for j in range(3)])
            expected -= float((there.log_softmax(0)[i] + back.log_softmax(0)[i]) / 2 / 3 / 6)
    assert FRAMES.share({"tokens": predicted}, batch, World()).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", [SOFT, FRAMES, L1Config(target="tokens")], ids=lambda loss: loss.name)
def test_the_truth_is_the_best_prediction(loss):
    batch = a_batch()
    best = batch.targets["tokens"].clone().requires_grad_()
    other = (batch.targets["tokens"] + 0.5 * drawn(6, 3)).requires_grad_()
    losses = [loss.share({"tokens": x}, batch, World()) for x in (best, other)]
    assert losses[0] < losses[1]


def _shares(world, losses, cuts):
    whole, predicted = a_batch(), drawn(6, 2)
    part = slice(cuts[world.rank], cuts[world.rank + 1])
    targets = {name: x[part] for name, x in whole.targets.items()}
    batch = Batch({"a": whole.brain["a"][part]}, targets, whole.example[part], whole.stimulus_row[part], 6)
    found = []
    for loss in losses:
        mine = predicted[part].clone().requires_grad_()
        share = loss.share({"tokens": mine}, batch, world)
        share.backward()
        found.append((share.detach(), mine.grad))
    return found


@pytest.mark.parametrize("cuts", [(0, 2, 6), (0, 3, 3, 6)], ids=str)
def test_ranks_add_up_to_one_process(cuts):
    losses = [SOFT, FRAMES]
    ranks = on_ranks(len(cuts) - 1, _shares, losses, cuts)
    alone = _shares(World(), losses, (0, 6))
    for number in range(len(losses)):
        torch.testing.assert_close(sum(rank[number][0] for rank in ranks), alone[number][0])
        torch.testing.assert_close(torch.cat([rank[number][1] for rank in ranks]), alone[number][1])


@pytest.mark.parametrize(("loss", "said"), [(SOFT, "30 predicted tokens of 7"), (FRAMES, "3 predicted frames of 14")])
def test_sizes_that_cannot_be_compared_are_an_error(loss, said):
    with pytest.raises(ConfigError, match=said):
        loss.share({"tokens": torch.randn(6, 3, 2, 7)}, a_batch(), World())
