"""Every registered encoder: what its spec promises, row by row, through a data set; and its part by content."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from cineray.core.errors import CinerayError, ConfigError, DataError
from cineray.core.pretrained import Part
from cineray.datasets.check import check
from cineray.datasets.dataset import Dataset
from cineray.datasets.encoders import ENCODERS, EncoderConfig
from cineray.datasets.encoders.base import PretrainedSettings, chosen, frame_axes, frames_spec, identity
from cineray.datasets.encoders.clip import HFClipConfig
from cineray.datasets.encoders.flow import FlowConfig
from cineray.datasets.encoders.motion import MotionConfig
from cineray.datasets.encoders.taef2 import Taef2Config
from cineray.datasets.extraction import extract
from cineray.datasets.ingest import ingest
from cineray.datasets.schema import TensorSpec
from clips import ClipSource
from tiny_encoders import names, tiny

SOURCE = ClipSource(clips=3)
CAPTIONS = [f"picture {i}" for i in range(3)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "set"
    ingest(SOURCE, path)
    return path


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return tmp_path_factory.mktemp("parts")


@pytest.mark.parametrize("name", names())
def test_values_are_what_the_spec_says_and_those_of_each_row_alone(name, folder, parts):
    settings = tiny(name, parts / name)
    assert TypeAdapter(EncoderConfig).validate_python(settings.model_dump(mode="json")) == settings
    spec, encoder = settings.spec(Dataset.open(folder)), settings.build("cpu")
    values = encoder.encode(SOURCE.pixels(), CAPTIONS)
    assert (values.shape, values.dtype) == ((3, *spec.shape), np.dtype(spec.dtype))
    assert len(np.unique(values, axis=0)) == 3 or name == "blip"
    for row in range(3):
        alone = encoder.encode(SOURCE.pixels()[[row]], CAPTIONS[row : row + 1])
        assert np.allclose(alone[0].astype(float), values[row].astype(float), atol=2e-3)
    extract(folder, settings, replace=True)  # several share a name
    stored = Dataset.open(folder).gather_stimuli(settings.target, np.array([2, 0, 1]))
    assert np.array_equal(stored, values[[2, 0, 1]])
    assert check(folder).good


@pytest.mark.parametrize("encoder", [e for e in ENCODERS if issubclass(e, PretrainedSettings)])
def test_a_missing_part_is_one_sentence(encoder, folder):
    extra = {"file": "x.tflite"} if encoder.model_fields["name"].default == "tflite" else {}
    with pytest.raises(ConfigError, match=r"found no folder '/.*/nowhere', expected a pretrained part .*pool"):
        extract(folder, encoder(part=Part(folder="nowhere"), **extra))


def test_identity_is_of_the_settings_and_the_weights_not_of_the_place(parts, tmp_path):
    here = tiny("hf_clip", parts / "hf_clip")
    moved = tiny("hf_clip", shutil.copytree(parts / "hf_clip", tmp_path / "moved"))
    assert identity(here) == identity(moved)
    assert identity(here.override({"output": "pooled"})) != identity(here)
    weights = tmp_path / "moved" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert identity(moved) != identity(here)


def test_frames_are_chosen_by_name_or_number():
    frames = np.arange(2 * 5, dtype=np.uint8).reshape(2, 5, 1, 1, 1)
    for frame, expected in {"first": [0], "middle": [2], -1: [4], 3: [3], "all": [0, 1, 2, 3, 4]}.items():
        assert chosen(frames, frame)[0].reshape(-1).tolist() == expected
        assert chosen(frames, frame)[1].reshape(-1).tolist() == [5 + number for number in expected]
    spec = TensorSpec("uint8", (5, 8, 8, 3), "frames height width channels", "sRGB")
    assert (frame_axes(spec, "all"), frame_axes(spec, -5)) == (((5,), "frames "), ((), ""))
    with pytest.raises(ConfigError, match="found frame=5, expected one of 5"):
        frame_axes(spec, 5)


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ({}, "has targets none, expected 'frames'"),
        ({"frames": TensorSpec("uint8", (2, 8, 8), "frames height width", "grey")}, "expected uint8 .*3 channels"),
        ({"frames": TensorSpec("uint8", (2, 8, 8, 4), "frames height width channels", "sRGB")}, "3 channels"),
    ],
)
def test_frames_in_another_form_are_refused(specs, message):
    with pytest.raises(DataError, match=message):
        frames_spec(SimpleNamespace(target_specs=specs, store=SimpleNamespace(url="somewhere")))  # type: ignore[arg-type]


def test_what_does_not_suit_an_encoder_is_one_sentence(folder, parts, tmp_path):
    ingest(ClipSource(clips=2, frames=1, side=12), tmp_path / "odd")
    odd, dataset = Dataset.open(tmp_path / "odd"), Dataset.open(folder)
    siglip = tiny("hf_clip", parts / "siglip_absent")
    tries = [
        (FlowConfig(), odd, "found clips of one frame"),
        (MotionConfig(), odd, "found clips of 1 frames, expected more than stretches=1"),
        (tiny("taef2", parts / "taef2"), odd, "found frames of 12 x 12, expected multiples of 8"),
        (tiny("vae", parts / "vae", size=31), dataset, "found pictures of 31 x 31, expected multiples of 2"),
        (tiny("blip", parts / "blip", frame=7), dataset, "found frame=7"),
        (HFClipConfig(part=Part(folder=str(parts / "blip"))), dataset, "holds a 'blip' model, expected CLIP"),
        (tiny("open_clip", parts / "open_clip").model_copy(update={"part": siglip.part}), dataset, "found no .*json"),
    ]
    for settings, data, message in tries:
        with pytest.raises(CinerayError, match=message):
            settings.spec(data)
    torch.save({"0.weight": torch.zeros(1)}, tmp_path / "taef2_encoder.pth")
    with pytest.raises(ConfigError, match="are not those of taef2"):
        Taef2Config(part=Part(folder=str(tmp_path))).build("cpu")
