"""The video diffusion model: a Gaussian whose answer is known, the library's sampler, and bars that move."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from scipy.ndimage import gaussian_filter1d

from cineray.core.errors import ConfigError
from cineray.training.models.base import Sizes
from cineray.training.models.prior_sampler import NUM_STEPS, alpha_bar, betas
from cineray.training.models.video_diffusion import VideoDiffusionConfig, smoothed

SHAPE = (4, 1, 8, 8)
SIZES = Sizes({"sub-a": 2}, 1, {"latents": SHAPE, "seen": (2,), "tokens": (3, 5)})
SMALL = VideoDiffusionConfig(condition="seen", dim=16, depth=1, heads=2, drop=0.5)


def built(config=SMALL, sizes=SIZES):
    torch.manual_seed(0)
    return config.build(sizes).eval()


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Gaussian(torch.nn.Module):
    """The velocity that a perfect network tells where latents are N(mean, sd²), each value for itself."""

    def __init__(self, mean, sd):
        super().__init__()
        self.mean, self.sd = mean, sd

    def forward(self, noisy, blurry, times, condition, keep, sharp):
        signal = alpha_bar().float()[times].view(-1, 1, 1, 1, 1)
        seen = signal * self.sd**2 + (1 - signal)
        clean = self.mean + signal.sqrt() * self.sd**2 / seen * (noisy - signal.sqrt() * self.mean)
        return (signal.sqrt() * noisy - clean) / (1 - signal).sqrt()


def test_a_gaussian_comes_out_as_it_is():
    """The flow without fresh noise takes a standard normal number z to mean + sd · z (arXiv 2011.13456, appendix)."""
    model = built(SMALL.model_copy(update={"mean": 10.0, "sd": 4.0}))
    model.network = Gaussian(mean=0.7, sd=0.3)
    noise = normal(3, *SHAPE)
    found = model.sample(noise, steps=NUM_STEPS)
    torch.testing.assert_close(found, 10 + 4 * (0.7 + 0.3 * noise), rtol=0, atol=0.15)


@pytest.mark.parametrize("steps", [5, 20])
def test_steps_are_those_of_the_library(steps):
    model = built()
    x = noise = normal(2, *SHAPE)
    condition = normal(2, 2, seed=1)
    scheduler = DDIMScheduler(
        num_train_timesteps=NUM_STEPS,
        trained_betas=betas().numpy(),
        clip_sample=False,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(steps)
    nobody, everybody = torch.zeros(2, dtype=torch.bool), torch.ones(2, dtype=torch.bool)
    for time in scheduler.timesteps:
        times = torch.full((2,), int(time))
        with torch.no_grad():
            told = model.network(x, torch.zeros_like(x), times, condition[:, None], everybody, ~nobody)
            untold = model.network(x, torch.zeros_like(x), times, None, everybody, ~nobody)
        x = scheduler.step(untold + 2.5 * (told - untold), int(time), x, eta=0.0, return_dict=False)[0]
    found = model.sample(noise, condition=condition, steps=steps, guidance=2.5)
    torch.testing.assert_close(found, x, rtol=1e-3, atol=1e-3)


def test_strength_acts():
    """The start keeps as much of the blurry video as the noise of its time leaves; a perfect network then keeps it."""
    model, noise = built(), normal(2, *SHAPE)
    model.network = Gaussian(mean=0.0, sd=1.0)  # for which the flow stands still
    blurry = normal(2, *SHAPE, seed=1)
    for strength in (0.25, 0.5, 0.8):
        signal = alpha_bar().float()[round(NUM_STEPS * strength) - 1]
        found = model.sample(noise, blurry=blurry, strength=strength, steps=NUM_STEPS)
        torch.testing.assert_close(found, signal.sqrt() * blurry + (1 - signal).sqrt() * noise, rtol=0, atol=0.06)
    torch.testing.assert_close(model.sample(noise, blurry=blurry, strength=0.0), blurry)
    torch.testing.assert_close(model.sample(noise, blurry=blurry, steps=NUM_STEPS), noise, rtol=0, atol=0.06)


def test_each_row_is_drawn_for_itself():
    model = built(SMALL.model_copy(update={"condition": "tokens"}))
    noise, blurry, tokens = normal(3, *SHAPE), normal(3, *SHAPE, seed=1), normal(3, 3, 5, seed=2)
    together = model.sample(noise, blurry=blurry, condition=tokens, guidance=2.0, strength=0.7)
    alone = model.sample(noise[1:2], blurry=blurry[1:2], condition=tokens[1:2], guidance=2.0, strength=0.7)
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)
    without = model.sample(noise, condition=tokens)
    assert not torch.allclose(without, model.sample(noise), atol=1e-3)
    assert not torch.allclose(without, model.sample(noise, blurry=blurry, condition=tokens), atol=1e-3)


def test_what_is_dropped_has_no_say():
    model = built()
    some = torch.tensor([True, False])
    arguments = [normal(2, *SHAPE), normal(2, *SHAPE, seed=1), torch.tensor([5, 70]), normal(2, 1, 2, seed=2)]
    first = model.network(*arguments, keep=some, sharp=~some)
    arguments[1], arguments[3] = arguments[1] + 1, arguments[3] + 1
    other = model.network(*arguments, keep=some, sharp=~some)
    assert torch.equal(first[1], other[1])
    assert not torch.allclose(first[0], other[0], atol=1e-4)


def test_every_place_has_its_own_output():
    """Squares of latents go to tokens and come back where they were."""
    model, x = built().network, normal(2, *SHAPE)
    torch.testing.assert_close(model._pixels(model._patches(x)), x)


def test_the_blur_is_a_gaussian():
    x = normal(3, 4, 2, 30, 5)
    sds = torch.tensor([0.0, 0.8, 2.0])
    found = smoothed(x, 3, sds)
    torch.testing.assert_close(found[0], x[0])
    inside = slice(10, 20)
    for row in (1, 2):
        expected = gaussian_filter1d(x[row].numpy(), float(sds[row]), axis=2, truncate=6)
        np.testing.assert_allclose(found[row][:, :, inside], expected[:, :, inside], atol=1e-3)
    torch.testing.assert_close(smoothed(torch.ones(3, 4, 2, 30, 5), 1, sds), torch.ones(3, 4, 2, 30, 5))


def test_the_degraded_truth_spans_what_is_asked_for():
    torch.manual_seed(0)
    clean = normal(500, *SHAPE)
    exact = built(SMALL.model_copy(update={"blur": 0.0, "fade": 0.0, "noise": 0.0})).degraded(clean)
    torch.testing.assert_close(exact, clean)
    faded = built(SMALL.model_copy(update={"blur": 0.0, "fade": 0.6, "noise": 0.0})).degraded(clean)
    left = (faded * clean).flatten(1).sum(1) / (clean * clean).flatten(1).sum(1)
    assert left.min() == pytest.approx(0.4, abs=0.02)
    assert left.max() == pytest.approx(1.0, abs=0.02)
    wrong = built(SMALL.model_copy(update={"blur": 0.2, "fade": 0.0, "noise": 0.5})).degraded(0 * clean)
    spread = wrong.flatten(1).std(1)
    assert spread.max() == pytest.approx(0.5, abs=0.02)
    assert spread.min() < 0.02


def test_it_estimates_the_clean_latents_it_is_trained_on():
    """With the noise that torch's generator gives, in the units of the target."""
    model = built(SMALL.model_copy(update={"mean": 3.0, "sd": 2.0}))
    model.network = Gaussian(mean=0.0, sd=1e-6)  # knows the answer: the mean
    out = model({"sub-a": torch.zeros(5, 1, 2)}, {"latents": normal(5, *SHAPE), "seen": normal(5, 2)})
    torch.testing.assert_close(out["latents"], torch.full((5, *SHAPE), 3.0), rtol=0, atol=1e-3)


def moving_bars(rows, chance):
    """A bright line, upright and going right (class 0) or lying and going down (class 1), from any of 8 places."""
    kind, start = torch.randint(2, (rows,), generator=chance), torch.randint(8, (rows,), generator=chance)
    return all_bars()[kind, start], torch.eye(2)[kind], kind


def all_bars():
    """(2 classes, 8 starts, frames, 1, 8, 8)."""
    line = torch.eye(8)[(torch.arange(8)[:, None] + torch.arange(4)) % 8]
    upright, lying = (line[:, :, None, None, :], line[:, :, None, :, None])
    return torch.stack([x.expand(8, 4, 1, 8, 8) for x in (upright, lying)]) * 2 - 1


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    chance = torch.Generator().manual_seed(0)
    config = SMALL.model_copy(update={"mean": -0.75, "sd": 0.66, "dim": 64, "depth": 2, "heads": 4, "patch": 4})
    model = config.build(SIZES)
    optimiser = torch.optim.AdamW(model.parameters(), lr=6e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, total_steps=150, pct_start=0.1)
    for _ in range(150):
        bars, seen, _ = moving_bars(48, chance)
        (
            model({"sub-a": torch.zeros(48, 1, 2)}, {"latents": bars, "seen": seen})["latents"] - bars
        ).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
    return model.eval()


def test_what_is_seen_decides_what_is_drawn(trained):
    _, seen, kind = moving_bars(64, torch.Generator().manual_seed(1))
    drawn = trained.sample(normal(64, *SHAPE, seed=2), condition=seen, steps=10)
    distance = (drawn[:, None] - all_bars().flatten(0, 1)).square().flatten(2).mean(2)
    nearest = distance.argmin(1)
    assert (nearest // 8 == kind).float().mean() > 0.85
    assert len(nearest.unique()) > 8
    assert distance.amin(1).mean() < 0.6 * distance.mean()


def test_a_blurry_video_says_where(trained):
    bars, seen, _ = moving_bars(64, torch.Generator().manual_seed(1))
    torch.manual_seed(3)
    blurry = trained.degraded((bars + 0.75) / 0.66) * 0.66 - 0.75
    noise = normal(64, *SHAPE, seed=2)
    errors = [
        float((trained.sample(noise, condition=seen, steps=10, **given) - bars).square().mean())
        for given in ({}, {"blurry": blurry}, {"blurry": blurry, "strength": 0.6})
    ]
    assert max(errors[1:]) < 0.75 * errors[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"target": "seen"}, r"'seen' is of shape \(2,\)"),
        ({"condition": "nothing"}, "'nothing' has shape None, expected a target"),
        ({"condition": "latents"}, r"'latents' has shape \(4, 1, 8, 8\)"),
        ({"patch": 3}, "expected multiples of model.patch=3"),
    ],
)
def test_what_it_cannot_be_built_for_is_an_error(changes, said):
    with pytest.raises(ConfigError, match=said):
        SMALL.model_copy(update=changes).build(SIZES)


def test_impossible_requests_are_errors():
    with pytest.raises(ConfigError, match=r"strength is 0.5 and there is no blurry video"):
        built().sample(normal(1, *SHAPE), strength=0.5)
    with pytest.raises(ConfigError, match=r"multiple of model\.heads=3"):
        VideoDiffusionConfig.parse({"dim": 16, "heads": 3})
