"""How the prior draws: against its equations written out, and against Gaussians whose answer is known."""

import math

import numpy as np
import pytest
import torch

from cineray.training.models.prior_network import PriorNetwork
from cineray.training.models.prior_sampler import alpha_bar, legacy_times, noised, sample


def test_the_schedule_is_the_squared_cosine():
    found = alpha_bar().numpy()
    turn = [math.cos(((step + 1) / 100 + 0.008) / 1.008 * math.pi / 2) ** 2 for step in range(100)]
    np.testing.assert_allclose(found[:98], np.array(turn[:98]) / math.cos(0.008 / 1.008 * math.pi / 2) ** 2)
    assert found[99] / found[98] == pytest.approx(1e-3)  # the last step takes .999 of what is left
    clean, noise = torch.randn(2, 3, 4, 5)
    times = torch.tensor([0, 50, 99])
    rows = zip(times.tolist(), clean, noise, strict=True)
    expected = torch.stack([math.sqrt(found[t]) * c + math.sqrt(1 - found[t]) * n for t, c, n in rows])
    torch.testing.assert_close(noised(clean, times, noise), expected)


MEAN, SPREAD = torch.tensor([1.5, -0.5, 0.0]), torch.tensor([0.3, 0.5, 1.0])


def posterior_mean(x, times):
    """E[x0 | xt] of x0 ~ N(MEAN, SPREAD²)."""
    signal = alpha_bar().float()[times][:, None]
    gain = signal.sqrt() * SPREAD**2 / (signal * SPREAD**2 + 1 - signal)
    return MEAN + gain * (x - signal.sqrt() * MEAN)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_exact_estimate_of_a_gaussian_makes_that_gaussian(eta):
    noise = torch.randn(101, 20000, 3, generator=torch.Generator().manual_seed(0))
    drawn = sample(posterior_mean, noise, sampler="ddim", eta=eta)
    torch.testing.assert_close(drawn.mean(0), MEAN, atol=0.025, rtol=0)
    torch.testing.assert_close(drawn.std(0), SPREAD, atol=0, rtol=0.06)
    few = sample(posterior_mean, noise[:21], sampler="ddim", eta=eta)
    torch.testing.assert_close(few.mean(0), MEAN, atol=0.025, rtol=0)
    assert (few.std(0) < drawn.std(0)).all()  # fewer steps, less spread


def test_a_trained_prior_draws_from_the_gaussian_that_its_condition_names():
    """Two of sixteen dimensions vary: N(A c, .8²), c standard normal; nothing may be drawn in the other fourteen."""
    torch.manual_seed(0)
    spread, scale = 0.8, 2.0
    places, seen, turn = (torch.linalg.qr(torch.randn(size, 2))[0] for size in (16, 16, 2))
    network = PriorNetwork(tokens=1, dim=16, depth=2, heads=2, head_dim=16)

    def estimate(x, times, c):
        return network(x[:, None], times, scale * (c @ seen.T)[:, None])[:, 0]

    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, 1000)
    for _ in range(1000):
        c = torch.randn(64, 2)
        clean = scale * (c @ turn.T + spread * torch.randn(64, 2)) @ places.T
        times = torch.randint(100, (64,))
        loss = (estimate(noised(clean, times, torch.randn_like(clean)), times, c) - clean).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()

    c = torch.randn(40, 2).repeat_interleave(100, 0)
    with torch.no_grad():
        drawn = sample(lambda x, t: estimate(x, t, c), torch.randn(51, 4000, 16), sampler="ddim", eta=0.0) / scale
    inside = (drawn @ places).unflatten(0, (40, 100))
    error = inside.mean(1) - c[::100] @ turn.T
    assert error.square().mean().sqrt() < 0.25  # of means that vary by 1; .08 of it is chance
    assert inside.std(1).square().mean().sqrt() == pytest.approx(spread, rel=0.15)
    assert (drawn - drawn @ places @ places.T).square().mean().sqrt() < 0.02


def test_the_legacy_grid_and_what_each_of_its_steps_does():
    assert legacy_times(20) == [*range(94, 0, -5), -1]
    noise = torch.randn(21, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    seen = []

    def denoise(x, times):
        seen.append(int(times[0]))
        return 0.9 * torch.tanh(x)

    found = sample(denoise, noise, sampler="dalle2-legacy", eta=0.7)
    assert seen == list(range(94, 0, -5))
    bar = [1.0, *alpha_bar().tolist()]  # bar[t] is the step before t
    x = noise[0].numpy()
    for number, time in enumerate(range(94, 4, -5)):
        clean = 0.9 * np.tanh(x)
        error = (x - math.sqrt(bar[time + 1]) * clean) / math.sqrt(1 - bar[time + 1])
        now, then = bar[time], bar[time - 5]
        drawn = 0.7 * math.sqrt((1 - now / then) * (1 - then) / (1 - now))
        x = math.sqrt(then) * clean + drawn * noise[number + 1].numpy() + math.sqrt(1 - then - drawn**2) * error
    np.testing.assert_allclose(found.numpy(), 0.9 * np.tanh(x), rtol=1e-6)


@pytest.mark.parametrize("sampler", ["ddim", "dalle2-legacy"])
def test_what_is_drawn_is_the_last_estimate(sampler):
    answer = torch.randn(2, 3)
    found = sample(lambda x, times: answer, torch.randn(5, 2, 3), sampler=sampler, eta=0.0)
    torch.testing.assert_close(found, answer)
