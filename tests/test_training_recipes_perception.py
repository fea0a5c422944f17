"""The perception reconstructor's recipe and the video diffusion model, trained through the loop on small films."""

import json

import numpy as np
import pytest
import torch

from cineray.core.storage import Store
from cineray.datasets.encoders.pool import PoolConfig
from cineray.datasets.extraction import extract
from cineray.datasets.ingest import ingest
from cineray.datasets.sources.synthetic import SyntheticConfig
from cineray.training.feed import open_feed
from cineray.training.loop import train
from cineray.training.models.video_diffusion import VideoDiffusion
from cineray.training.predict import predict, restore
from cineray.training.recipes import find_recipe
from cineray.training.world import World


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    source = SyntheticConfig(num_subjects=1, minutes=4, test_minutes=2, run_minutes=2, tr_s=4, fps=2, frame_px=16)
    ingest(source, folder)
    extract(folder, PoolConfig(factor=4))
    return str(folder)


def trained(run, folder):
    store = Store.at(folder)
    store.put("run.yaml", run.dump().encode())
    train(run, World(), lambda normaliser: open_feed(run, normaliser), store)
    return [json.loads(line) for line in store.get("metrics.jsonl").decode().splitlines()]


def small(films, **changes):
    run = find_recipe("neuroclips:perception")(dataset=films, subjects=("sub-01",))
    blocks = {
        "view.window": {"first": -1, "last": 3},
        "view.split.train": {"films": ["train"], "blocks": {"num": 5, "take": [0, 1, 2, 3]}},
        "view.split.val": {"films": ["train"], "blocks": {"num": 5, "take": [4]}},
        "view.split.test": {"films": ["test"]},
        "optim.batch_size": 16,
        "optim.epochs": 2,
        "strategy.precision": "fp32",
    }
    return run.override(blocks | changes)


def test_the_perception_recipe_trains_and_predicts(films, tmp_path):
    run = small(films, **{"model.dim": 8, "model.hidden": 16, "model.channels": 8, "model.widths": [8, 8]})
    metrics = trained(run, tmp_path)
    for line in metrics:
        if "loss" in line:
            parts = 0.5 * line["l1/latents"] + 0.05 * line["frame_contrast/latents"]
            assert line["loss"] == pytest.approx(parts, rel=1e-5)
    assert predict(tmp_path, "test").predicted["latents"].shape[1:] == (8, 3, 4, 4)


def test_the_video_diffusion_model_trains_through_the_loop(films, tmp_path):
    model = {"name": "video_diffusion", "condition": "features", "dim": 8, "depth": 1, "heads": 2, "steps": 3}
    run = small(films).override(
        {
            "view.targets": ["latents", "features"],
            "view.split.val": None,
            "model": model,
            "losses": [{"name": "mse", "target": "latents"}],
        }
    )
    trained(run, tmp_path)
    restored = restore(Store.at(tmp_path))
    assert isinstance(restored.model, VideoDiffusion)
    noise = torch.randn(2, *restored.model.shape, generator=torch.Generator().manual_seed(0))
    found = restored.model.sample(noise, condition=torch.zeros(2, 80))
    assert np.ptp(found.numpy()) > 0
    assert torch.isfinite(found).all()
