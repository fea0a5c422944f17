"""The recipes of NeuroClips: what they split and how long they train; and both in a row on a small film set."""

import json

import numpy as np
import pytest
import torch

from cineray.core.errors import ConfigError
from cineray.core.storage import Store
from cineray.datasets.encoders.gradients import GradientsConfig
from cineray.datasets.extraction import extract
from cineray.datasets.ingest import ingest
from cineray.datasets.sources.synthetic import SyntheticConfig
from cineray.training.losses import active
from cineray.training.models.prior import PriorConfig
from cineray.training.optim import learning_rate
from cineray.training.predict import predict, restore
from cineray.training.recipes.neuroclips import prior, semantic
from cineray.training.run import Run
from tiny_run import trained_in


def test_the_split_holds_two_segments_out_and_no_test_film_trains():
    split = semantic().view.split
    assert split.val is not None
    assert set(split.train.films) | set(split.val.films) == {f"seg{n}" for n in range(1, 19)}
    assert len(split.train.films) == 16
    assert split.test.films == ("test1", "test2", "test3", "test4", "test5")


def test_losses_and_their_phases():
    def labels(run, epoch):
        return {loss.label: loss.weight for loss in active(run.losses, epoch, run.optim.epochs)}

    assert labels(semantic(), 14) == {"bimixco/clip_tokens": 1.0, "info_nce/clip_text": 0.25}
    assert labels(semantic(mixco=0.4), 5)["bimixco/clip_tokens"] == 1.0
    assert set(labels(semantic(mixco=0.4), 6)) == {"soft_clip/clip_tokens", "info_nce/clip_text"}
    soft = semantic(mixco=0.4).losses[1]
    assert [round(loss.temperature, 4) for e in (6, 14) if (loss := soft.at(e, 15))] == [0.004, 0.0075]
    with pytest.raises(ConfigError, match="found mixco=2, expected a fraction"):
        semantic(mixco=2)


def test_the_cycle_is_that_of_torch_with_the_published_settings():
    optim, steps = semantic().optim, 15 * 32
    parameter = torch.zeros(1, requires_grad=True)
    torch_optim = torch.optim.AdamW([parameter], lr=3e-4)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        torch_optim, 3e-4, total_steps=steps, pct_start=2 / 30, div_factor=25, final_div_factor=1000
    )
    expected = []
    for _ in range(steps):
        expected.append(cycle.get_last_lr()[0])
        torch_optim.step()
        if len(expected) < steps:
            cycle.step()
    np.testing.assert_allclose([learning_rate(optim, step, steps) for step in range(steps)], expected, rtol=1e-9)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A small film set of one person with light image tokens; in place of captions, what the source knows of a clip."""
    folder = tmp_path_factory.mktemp("films")
    ingest(SyntheticConfig(num_subjects=1, minutes=12, test_minutes=4, run_minutes=4, tr_s=4, frame_px=16), folder)
    extract(folder, GradientsConfig(target="clip_tokens", cells=2))
    return str(folder)


SMALL = {
    "view.subjects": ["sub-01"],
    "view.window": {"first": -1, "last": 3},
    "view.targets": ["clip_tokens", "features"],
    "view.raw_targets": ["clip_tokens"],
    "view.split.train": {"films": ["train"], "blocks": {"num": 5, "take": [0, 1, 2, 3]}},
    "view.split.val": {"films": ["train"], "blocks": {"num": 5, "take": [4]}},
    "view.split.test": {"films": ["test"]},
    "model.dim": 32,
    "model.text_target": "features",
    "losses.1.target": "features",
    "optim.batch_size": 32,
    "strategy.precision": "fp32",
}


@pytest.fixture(scope="module")
def reconstructor(films, tmp_path_factory):
    return trained_in(tmp_path_factory.mktemp("semantic"), semantic(dataset=films).override(SMALL))


def test_a_prior_trains_on_a_finished_reconstructor_and_leaves_it_as_it_is(reconstructor, tmp_path):
    run = prior(from_=reconstructor).override(
        {
            "model.depth": 1,
            "model.heads": 2,
            "model.head_dim": 16,
            "model.steps": 4,
            "optim.epochs": 3,
            "optim.lr": 2e-3,
        }
    )
    below, whole = restore(Store.at(reconstructor)), restore(Store.at(trained_in(tmp_path / "prior", run)))
    assert isinstance(run.model, PriorConfig)
    weights = whole.model.state_dict()
    for name, tensor in below.model.state_dict().items():
        assert torch.equal(weights[f"semantic.{name}"], tensor)
    lines = [json.loads(line) for line in (tmp_path / "prior" / "metrics.jsonl").read_text().splitlines()]
    denoising = [line["val/mse/clip_tokens"] for line in lines if "val/loss" in line]
    assert denoising[-1] < denoising[0]  # samples would come out worse, the more they vary
    found = predict(tmp_path / "prior", "test").predicted["clip_tokens"]
    assert found.shape[1:] == (5, 12)
    assert np.isfinite(found).all()


def test_a_prior_stands_on_nothing_but_a_semantic_reconstructor(films, tmp_path):
    run = Run.parse({"name": "x", "view": {"dataset": films, "split": {"test": {"films": ["test"]}}}})
    Store.at(tmp_path).put("run.yaml", run.dump().encode())
    with pytest.raises(ConfigError, match=r"is a run of the model 'shared', a prior stands on 'semantic'; train"):
        prior(from_=str(tmp_path))
