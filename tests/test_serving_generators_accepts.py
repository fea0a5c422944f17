"""What codecs and keyframe engines say they read is what the encoders made for them store, and nothing beside it."""

import re

import pytest
import torch

import tiny_diffusers
import tiny_encoders
from cineray.core.errors import ConfigError
from cineray.core.pretrained import Part
from cineray.datasets.dataset import Dataset
from cineray.datasets.encoders.clip import HFClipConfig, OpenClipConfig
from cineray.datasets.encoders.gradients import GradientsConfig
from cineray.datasets.encoders.motion import MotionConfig
from cineray.datasets.encoders.pool import PoolConfig
from cineray.datasets.encoders.taef2 import Taef2Config, make_decoder, make_encoder
from cineray.datasets.encoders.vae import VaeConfig
from cineray.datasets.ingest import ingest
from cineray.datasets.schema import TensorSpec
from cineray.serving.generators.codecs import AutoencoderCodecConfig, PoolCodecConfig, Taef2CodecConfig
from cineray.serving.generators.ip_adapter import IPAdapterConfig
from cineray.serving.generators.unclip import UnclipConfig
from clips import ClipSource


@pytest.fixture(scope="module")
def specs(tmp_path_factory):
    """What each encoder stores of films of 32 x 32 pixels, and what a table of the user's own would."""
    folder = tmp_path_factory.mktemp("accepts")
    ingest(ClipSource(clips=3, side=32), folder / "data")
    dataset = Dataset.open(folder / "data")
    tiny_diffusers.save_animatediff(folder / "parts")
    for name, width in (("bigg", tiny_diffusers.DIM), ("wide", 32)):
        (folder / name).mkdir()
        tiny_encoders.open_clip(folder / name, width)
    (folder / "hf").mkdir()
    tiny_encoders.hf_clip(folder / "hf")
    (folder / "taef2").mkdir()
    for half, made in (("encoder", make_encoder()), ("decoder", make_decoder())):
        torch.save(made.state_dict(), folder / "taef2" / f"taef2_{half}.pth")
    bigg, wide, hf, taef2, vae = (
        Part(folder=str(folder / name)) for name in ("bigg", "wide", "hf", "taef2", "parts/base/vae")
    )
    encoders = {
        "pool": PoolConfig(),
        "vae": VaeConfig(part=vae),
        "taef2": Taef2Config(part=taef2),
        "motion": MotionConfig(),
        "tokens mindeye2": OpenClipConfig(part=bigg, image_range="mindeye2"),
        "tokens zero_one": OpenClipConfig(part=bigg),
        "wide tokens mindeye2": OpenClipConfig(part=wide, image_range="mindeye2"),
        "frames' tokens mindeye2": OpenClipConfig(part=bigg, image_range="mindeye2", frame="all"),
        "gradients": GradientsConfig(cells=2, orientations=tiny_diffusers.DIM - 3),
        "pooled": HFClipConfig(part=hf, output="pooled"),
        "pooled zero_one": OpenClipConfig(part=bigg, output="pooled"),
        "pooled mindeye2": OpenClipConfig(part=bigg, output="pooled", image_range="mindeye2"),
        "hf tokens": HFClipConfig(part=hf),
    }
    found = {name: encoder.spec(dataset) for name, encoder in encoders.items()}
    own = {"own tokens": (256, tiny_diffusers.DIM), "own latents": (8, 4, 8, 8), "own embedding": (8,)}
    given = {
        name: TensorSpec("float16", shape, " ".join("abcd"[: len(shape)]), "as given") for name, shape in own.items()
    }
    return folder, {**found, **given, "vector": TensorSpec("float32", (32,), "dim", "activation")}


@pytest.fixture(scope="module")
def parts(specs):
    """Every codec and engine, loaded."""
    folder, where = specs[0], {"size": (32, 32), "device": "cpu"}
    unclip = UnclipConfig.parse(tiny_diffusers.save_unclip(folder))
    adapter = tiny_diffusers.save_adapter(folder / "adapter", folder / "parts" / "base" / "unet", dim=8)
    return {
        "pool": PoolCodecConfig().build(**where),
        "autoencoder": AutoencoderCodecConfig(part=Part(folder=str(folder / "parts/base/vae"))).build(**where),
        "taef2": Taef2CodecConfig(part=Part(folder=str(folder / "taef2"))).build(**where),
        "unclip": unclip.build(device=torch.device("cpu")),
        "ip_adapter": IPAdapterConfig.parse(adapter).build(device=torch.device("cpu")),
    }


FITS = {
    "pool": {"pool"},
    "autoencoder": {"vae", "own latents"},
    "taef2": {"taef2"},
    "unclip": {"tokens mindeye2", "own tokens"},
    "ip_adapter": {"pooled", "pooled zero_one", "own embedding"},
}


@pytest.mark.parametrize("name", FITS)
def test_a_part_reads_its_own_targets_and_refuses_all_others(specs, parts, name):
    assert FITS[name] <= set(specs[1])
    for target, spec in specs[1].items():
        if target in FITS[name]:
            parts[name].accepts.require(target, spec)
            continue
        found = re.escape(f"'{target}' is {spec.shape} in {spec.unit}, expected (")
        with pytest.raises(ConfigError, match=rf"{found}.* for .*name={name}; .*`cineray features DATA"):
            parts[name].accepts.require(target, spec)
