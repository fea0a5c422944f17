"""Losses against torch's own on the whole matrix, and on several processes against one."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, normalize
from torch.utils._python_dispatch import TorchDispatchMode

from cineray.core.errors import ConfigError
from cineray.datasets.batch import Batch
from cineray.training.losses import (
    LOSSES,
    BiMixCoConfig,
    FrameContrastConfig,
    InfoNCEConfig,
    L1Config,
    MSEConfig,
    SoftCLIPConfig,
    SoftContrastConfig,
    active,
    total_loss,
)
from cineray.training.losses.tiles import SoftTargets, StimulusTargets, contrastive
from cineray.training.mixing import MixedBatch, mix
from cineray.training.world import World
from multiprocess import on_ranks

DIM = 5


def a_batch(rows=12, seed=0, rest=True, mixed=False):
    """Two subjects, some stimuli seen twice, some rows at rest."""
    chance = torch.Generator().manual_seed(seed)
    half = rows // 2
    brain = {"a": torch.randn(half, 1, 3, generator=chance), "b": torch.randn(rows - half, 1, 4, generator=chance)}
    stimulus = torch.randint(-1 if rest else 0, rows // 2, (rows,), generator=chance)
    table = torch.randn(rows, DIM, generator=chance)
    batch = Batch(brain, {"features": table[stimulus]}, torch.arange(rows), stimulus, rows)
    return mix(batch, torch.Generator().manual_seed(seed + 1)) if mixed else batch


def outputs_of(batch, seed=3):
    chance = torch.Generator().manual_seed(seed)
    return {"features": torch.randn(len(batch), DIM, generator=chance).requires_grad_()}


def naive(loss, prediction, batch):
    """The same by whole matrices, row loops and torch's cross_entropy with probabilities."""
    if isinstance(loss, MSEConfig):
        return torch.nn.functional.mse_loss(prediction, batch.targets["features"])
    if isinstance(loss, L1Config):
        return torch.nn.functional.l1_loss(prediction, batch.targets["features"])
    keep = [i for i in range(len(batch)) if batch.stimulus_row[i] >= 0]
    t = normalize(batch.targets["features"][keep], dim=1)
    if isinstance(loss, FrameContrastConfig):  # five frames of one value: unit vectors are signs
        tables = [p.sign()[:, None] * f.sign() / loss.temperature for p, f in zip(prediction[keep], t, strict=True)]
        own = torch.arange(DIM)
        return sum(cross_entropy(x, own) + cross_entropy(x.T, own) for x in tables) / 2 / len(batch)
    logits = normalize(prediction[keep], dim=1) @ t.T / loss.temperature
    numbers = batch.stimulus_row[keep].tolist()
    if isinstance(loss, SoftCLIPConfig | SoftContrastConfig):
        rows = columns = (t @ t.T / loss.temperature).softmax(1)
    else:
        rows = torch.zeros(len(keep), len(keep))
        for i, row in enumerate(keep):
            sides = [(numbers[i], 1.0)]
            if isinstance(batch, MixedBatch) and isinstance(loss, BiMixCoConfig):
                share = float(batch.kept[row])
                sides = [(numbers[i], share), (int(batch.stimulus_row[batch.partner[row]]), 1 - share)]
            for number, share in sides:
                for j in range(len(keep)):
                    rows[i, j] += share * (numbers[j] == number) / numbers.count(number)
        if isinstance(loss, InfoNCEConfig) and not loss.same_stimulus:
            rows = torch.eye(len(keep))
        columns = rows.T
    both = cross_entropy(logits, rows, reduction="sum") + cross_entropy(logits.T, columns, reduction="sum")
    return both / 2 / len(batch)


CASES = [
    MSEConfig(),
    InfoNCEConfig(),
    InfoNCEConfig(same_stimulus=False),
    SoftCLIPConfig(temperature=0.1),
    SoftCLIPConfig(),
    BiMixCoConfig(),
    BiMixCoConfig(temperature=0.3),
    L1Config(),
    SoftContrastConfig(),
    FrameContrastConfig(temperature=0.5),
]


def test_every_loss_has_a_case():
    assert {type(case) for case in CASES} == set(LOSSES)


@pytest.mark.parametrize("mixed", [False, True], ids=["plain", "mixed"])
@pytest.mark.parametrize("loss", CASES, ids=str)
def test_a_loss_is_that_of_the_whole_matrix(loss, mixed):
    batch = a_batch(mixed=mixed)
    ours, theirs = outputs_of(batch), outputs_of(batch)
    share = loss.share(ours, batch, World())
    expected = naive(loss, theirs["features"], batch)
    (3 * share).backward()
    (3 * expected).backward()
    torch.testing.assert_close(share, expected)
    torch.testing.assert_close(ours["features"].grad, theirs["features"].grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("tile", [1, 4, 100])
def test_the_tile_does_not_matter(tile):
    q, k = (normalize(torch.randn(9, DIM, generator=torch.Generator().manual_seed(i)), dim=1) for i in (0, 1))
    number = torch.tensor([0, 1, 2, 0, 4, 5, 6, 2, 8])
    for make in (
        lambda keys: StimulusTargets(number, number.flip(0), torch.linspace(0, 1, 9), World()),
        lambda keys: SoftTargets(keys, 0.2, World(), tile),
    ):
        found = []
        for size in (tile, 1000):
            queries, keys = q.clone().requires_grad_(), k.clone().requires_grad_()
            contrastive(queries, keys, make(keys), 0.2, World(), size).backward()
            found.append((queries.grad, keys.grad))
        torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)


def test_the_gradient_of_the_stimuli_is_right_too():
    q, k = (torch.randn(6, DIM, generator=torch.Generator().manual_seed(i), dtype=torch.float64) for i in (0, 1))
    number = torch.tensor([0, 1, 2, 0, 4, 5])
    targets = StimulusTargets(number, number, torch.ones(6, dtype=torch.float64), World())
    q.requires_grad_(), k.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: contrastive(a, b, targets, 0.5, World(), 4), (q, k))


def _shares(world, losses, whole, cuts, seed):
    """One rank's shares and the gradient of its rows."""
    outputs = outputs_of(whole, seed)["features"].detach()
    subjects = np.array([0] * len(whole.brain["a"]) + [1] * len(whole.brain["b"]))
    found = []
    mine = np.arange(cuts[world.rank], cuts[world.rank + 1])
    brain = {s: x[mine[subjects[mine] == i] - (subjects < i).sum()] for i, (s, x) in enumerate(whole.brain.items())}
    part = Batch(brain, {"features": whole.targets["features"][mine]}, torch.from_numpy(mine),
                 whole.stimulus_row[mine], len(whole))  # fmt: skip
    for loss in losses:
        prediction = outputs[mine].clone().requires_grad_()
        batch = part
        if isinstance(whole, MixedBatch):
            fields = {f.name: getattr(part, f.name) for f in dataclasses.fields(Batch)}
            batch = MixedBatch(**fields, partner=whole.partner[mine] - cuts[world.rank], kept=whole.kept[mine])
        share = loss.share({"features": prediction}, batch, world)
        share.backward()
        found.append((share.detach(), prediction.grad))
    return found


@pytest.mark.parametrize("cuts", [(0, 6, 12), (0, 2, 12), (0, 5, 5, 12), (0, 0, 7, 12)], ids=str)
def test_ranks_add_up_to_one_process(cuts):
    whole = a_batch()
    ranks = on_ranks(len(cuts) - 1, _shares, CASES, whole, cuts, 3)
    for number, loss in enumerate(CASES):
        outputs = outputs_of(whole)
        expected = loss.share(outputs, whole, World())
        expected.backward()
        torch.testing.assert_close(sum(rank[number][0] for rank in ranks), expected.detach())
        gradient = torch.cat([rank[number][1] for rank in ranks])
        torch.testing.assert_close(gradient, outputs["features"].grad, rtol=1e-4, atol=1e-6)


def test_a_mixed_batch_on_two_ranks_is_one_process():
    whole = a_batch(mixed=True)  # partners stay within a subject, and the cut is between the subjects
    loss, cuts = BiMixCoConfig(), (0, 6, 12)
    ranks = on_ranks(2, _shares, [loss], whole, cuts, 3)
    outputs = outputs_of(whole)
    loss.share(outputs, whole, World()).backward()
    torch.testing.assert_close(torch.cat([r[0][1] for r in ranks]), outputs["features"].grad, rtol=1e-4, atol=1e-6)


class Largest(TorchDispatchMode):
    """Number of values in the largest tensor that anything makes."""

    values = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.values = max(self.values, tensor.numel())
        return out


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_memory_does_not_grow_with_the_square_of_the_rows(soft):
    largest = {}
    for rows in (256, 1024):
        q = normalize(torch.randn(rows, DIM), dim=1).requires_grad_()
        k, number = normalize(torch.randn(rows, DIM), dim=1), torch.arange(rows) % 200
        with Largest() as mode:
            targets = (
                SoftTargets(k, 0.1, World(), tile=32) if soft
                else StimulusTargets(number, number, torch.ones(rows), World(), tile=32)
            )  # fmt: skip
            contrastive(q, k, targets, 0.1, World(), tile=32).backward()
        largest[rows] = mode.values
    assert largest[1024] <= 4 * largest[256] < 1024**2 / 16


def test_mixing_stays_within_a_subject_and_leaves_rest_alone():
    batch = a_batch(rows=400)
    mixed = mix(batch, torch.Generator().manual_seed(5))
    a, b = batch.brain["a"], batch.brain["b"]
    assert (mixed.partner[: len(a)] < len(a)).all()
    assert (mixed.partner[len(a) :] >= len(a)).all()
    assert (mixed.kept[batch.stimulus_row < 0] == 1).all()
    for i in range(len(batch)):
        x, start = (a, 0) if i < len(a) else (b, len(a))
        share, j = mixed.kept[i], mixed.partner[i]
        blended = share * x[i - start] + (1 - share) * x[j - start]
        torch.testing.assert_close(mixed.brain["a" if i < len(a) else "b"][i - start], blended)
    again = mix(batch, torch.Generator().manual_seed(5))
    assert torch.equal(again.kept, mixed.kept)
    assert torch.equal(again.partner, mixed.partner)


def test_shares_follow_the_beta_distribution():
    from scipy.stats import beta, kstest

    batch = a_batch(rows=8000, rest=False)
    kept = mix(batch, torch.Generator().manual_seed(1)).kept.numpy()
    assert abs((kept == 1).mean() - 0.5) < 0.06  # Beta(.15, .15) itself rounds to 1 now and then
    inside = kept[(kept > 0.01) & (kept < 0.99)]
    low, high = beta.cdf([0.01, 0.99], 0.15, 0.15)
    assert kstest(inside, lambda x: (beta.cdf(x, 0.15, 0.15) - low) / (high - low)).pvalue > 1e-3


def test_phases_and_temperature():
    losses = (BiMixCoConfig(phase=(0, 0.33)), SoftCLIPConfig(phase=(0.33, 1), last_temperature=0.0075))
    epochs = [active(losses, epoch, 150) for epoch in range(150)]
    assert [e[0].name for e in epochs] == ["bimixco"] * 49 + ["soft_clip"] * 101
    temperatures = [e[0].temperature for e in epochs[49:]]
    expected = [0.0075 + (0.004 - 0.0075) * (1 + math.cos(math.pi * i / 100)) / 2 for i in range(101)]
    np.testing.assert_allclose(temperatures, expected)
    with pytest.raises(ConfigError, match="no loss"):
        active((BiMixCoConfig(phase=(0, 0.5)),), 9, 10)
    with pytest.raises(ConfigError, match="two losses"):
        active((MSEConfig(), MSEConfig()), 0, 1)
    with pytest.raises(ConfigError, match="phase"):
        MSEConfig.parse({"phase": [0.5, 0.5]})


def test_losses_meet_weighted():
    batch = a_batch()
    outputs = outputs_of(batch)
    losses = (MSEConfig(weight=2), InfoNCEConfig(weight=0.5))
    total, parts = total_loss(losses, outputs, batch, World())
    torch.testing.assert_close(total, 2 * parts["mse/features"] + 0.5 * parts["info_nce/features"])


def test_sizes_that_cannot_be_compared_are_an_error():
    batch = a_batch()
    with pytest.raises(ConfigError, match=r"'embedding' of 7 values .* 'features' of 5"):
        InfoNCEConfig(output="embedding").share({"embedding": torch.randn(12, 7)}, batch, World())
