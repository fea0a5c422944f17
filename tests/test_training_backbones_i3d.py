"""I3D as TorchScript: a tiny script of the published signature, its features and their distance computed by hand."""

import hashlib
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from scipy.linalg import sqrtm
from torch import nn

from cineray.core.errors import ConfigError
from cineray.core.storage import Store
from cineray.training.backbones import BackboneConfig
from cineray.training.backbones.i3d import I3DConfig
from cineray.training.evaluate_video import EvaluateVideoConfig, evaluate_video
from cineray.training.reconstructions import Reconstructions
from cineray.training.video_settings import fvd_role
from video_run import reconstruct, synthetic_films

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
PX, DIM = 8, 3


class Tiny(nn.Module):
    """Takes what the published script takes; its features tell frames, colours and halves of the picture apart."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(DIM, 3 * 2 * PX, generator=torch.Generator().manual_seed(0)))

    def forward(self, x, rescale: bool = False, resize: bool = False, return_features: bool = False):
        if resize:
            x = nn.functional.interpolate(x, (x.shape[2], 8, 8), mode="trilinear", align_corners=False)
        if rescale:
            x = x * 2 / 255 - 1
        half = x.shape[2] // 2
        two = torch.stack([x[:, :, :half].mean(2), x[:, :, half:].mean(2)], 1).mean(3)
        found = two.flatten(1) @ self.weight.T
        return found if return_features else found.softmax(1)


@pytest.fixture(scope="module")
def part(tmp_path_factory):
    folder = tmp_path_factory.mktemp("i3d")
    torch.jit.script(Tiny()).save(str(folder / "i3d_torchscript.pt"))
    return {"folder": str(folder)}


def by_hand(video):
    """(frames, height, width, 3), of the size that the script resizes to."""
    at = [round(k * (len(video) - 1) / 15) for k in range(16)]
    x = video[at].astype(float) / 127.5 - 1
    two = np.stack([x[:8].mean(0), x[8:].mean(0)]).mean(1)  # halves, width, colours
    return Tiny().weight.detach().numpy() @ two.transpose(0, 2, 1).reshape(-1)


def test_features_are_those_before_the_classes_of_frames_evenly_spread(part):
    videos = np.random.default_rng(0).integers(0, 256, (6, 9, PX, PX, 3), np.uint8)
    config: Any = TypeAdapter(BackboneConfig).validate_python({"name": "i3d", "part": part})
    network = config.build()
    found = network(videos)["embedding"]
    np.testing.assert_allclose(found, [by_hand(video) for video in videos], atol=1e-4)
    script = f"{part['folder']}/i3d_torchscript.pt"
    with open(script, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    assert network.name == f"I3D i3d_torchscript.pt sha256 {digest[:12]}, 16 frames"
    assert network.reads == "videos"


def test_what_is_no_such_script_is_named(tmp_path):
    with pytest.raises(ConfigError, match="expected I3D as TorchScript"):
        I3DConfig.parse({"part": {"folder": str(tmp_path)}}).build()
    (tmp_path / "i3d_torchscript.pt").write_bytes(b"no script")
    with pytest.raises(ConfigError, match="is no TorchScript"):
        I3DConfig.parse({"part": {"folder": str(tmp_path)}}).build()
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "other.pt"))
    with pytest.raises(ConfigError, match="no 'rescale' among the arguments"):
        I3DConfig.parse({"part": {"folder": str(tmp_path)}, "file": "other.pt"}).build()


def test_fvd_is_the_distance_of_its_features_and_names_it(part, tmp_path):
    films = synthetic_films(tmp_path / "data")
    run = reconstruct(tmp_path / "run", films, noise=40)
    config = EvaluateVideoConfig.parse({"metrics": ["fvd"], "networks": {"fvd": {"name": "i3d", "part": part}}})
    line = evaluate_video(run, "test", config)["metrics"]["fvd"]
    assert line["networks"][0].startswith("I3D i3d_torchscript.pt sha256 ")
    folder = Reconstructions.open(Store.at(run), "test")
    truth = reconstruct(tmp_path / "truth", films, noise=0)
    scores = []
    for subject in ("sub-01", "sub-02"):
        sides = []
        for side in (folder, Reconstructions.open(Store.at(truth), "test")):
            clips = [side.read(entry.example).video for entry in side.entries if entry.subject == subject]
            network = I3DConfig.parse({"part": part}).build()
            at = [0, 1, 3, 4, 5, 7]  # of 8 frames at 4 fps, the nearest to 0, 1/3, 2/3 … s
            sides.append(network(np.stack([clip[at] for clip in clips]))["embedding"].astype(float))
        (x, y), (cx, cy) = sides, (np.cov(side.T) for side in sides)
        scores.append(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cx + cy - 2 * np.real(sqrtm(cx @ cy))))
    assert line["value"] == pytest.approx(np.mean(scores), rel=1e-3)


def test_fvd_takes_its_own_network_before_the_classifiers():
    assert fvd_role({"video_classifier", "clip"}) == "video_classifier"
    assert fvd_role({"video_classifier", "fvd"}) == "fvd"
    assert fvd_role({"clip"}) == "fvd"
