"""Networks that judge: each loads what its own library saved, and sees what that library would show it."""

import json
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torchvision.transforms import v2

from cineray.core.config import Config
from cineray.core.errors import ConfigError, DataError
from cineray.datasets.dataset import Dataset
from cineray.datasets.ingest import ingest
from cineray.datasets.sources.synthetic import SyntheticConfig
from cineray.training.backbones import BackboneConfig, FramewiseConfig
from cineray.training.backbones.tflite import TFLiteConfig
from cineray.training.backbones.torchvision import TorchvisionConfig
from cineray.training.backbones.trained import ClassifierConfig, TrainedConfig, labels_of, train_classifier

PICTURES = np.random.default_rng(0).integers(0, 256, (3, 40, 48, 3), np.uint8)
VIDEOS = np.random.default_rng(1).integers(0, 256, (2, 8, 32, 32, 3), np.uint8)
SCENE = r"a \S+ (\S+ \S+) moves"
"""Colour and shape in the captions of synthetic films."""


class Holder(Config):
    backbone: BackboneConfig


@pytest.fixture(scope="module")
def shufflenet(tmp_path_factory):
    torch.manual_seed(0)
    network = torchvision.models.get_model("shufflenet_v2_x0_5", weights=None, num_classes=7).eval()
    path = tmp_path_factory.mktemp("weights") / "shufflenet.safetensors"
    save_file(network.state_dict(), path)
    torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, path.with_suffix(".pth"))
    return network, path


def test_torchvision_scores_are_the_networks_own(shufflenet):
    network, path = shufflenet
    config = TorchvisionConfig(arch="shufflenet_v2_x0_5", weights_file=str(path), px=64, num_classes=7)
    found = config.build()(PICTURES)["logits"]
    tensor = torch.from_numpy(PICTURES).permute(0, 3, 1, 2)
    resized = v2.functional.resize(tensor.float() / 255, [64, 64], antialias=True)
    ready = v2.functional.normalize(resized, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with torch.no_grad():
        np.testing.assert_allclose(found, network(ready), atol=1e-4)
    wrapped = config.model_copy(update={"weights_file": str(path.with_suffix(".pth"))})
    np.testing.assert_array_equal(wrapped.build()(PICTURES)["logits"], found)
    assert config.build().num_classes == 7


def test_a_node_needs_only_the_weights_below_it(shufflenet, tmp_path):
    network, _ = shufflenet
    save_file(
        {k: v for k, v in network.state_dict().items() if not k.startswith("fc.")}, tmp_path / "headless.safetensors"
    )
    config = TorchvisionConfig(
        arch="shufflenet_v2_x0_5",
        weights_file=str(tmp_path / "headless.safetensors"),
        node="mean",
        px=32,
        num_classes=7,
    )
    seen = []
    hook = network.conv5.register_forward_hook(lambda module, inputs, output: seen.append(output.mean((2, 3))))
    whole = TorchvisionConfig(arch="shufflenet_v2_x0_5", weights_file="unused", px=32, num_classes=7)
    from cineray.training.backbones.base import IMAGENET, as_pixels

    with torch.no_grad():
        network(as_pixels(PICTURES, whole.px, IMAGENET))
    hook.remove()
    np.testing.assert_allclose(config.build()(PICTURES)["embedding"], seen[0], atol=1e-5)
    with pytest.raises(ConfigError, match=r"lacks 'fc\.bias'"):
        config.model_copy(update={"node": None}).build()
    with pytest.raises(ConfigError, match="has no node 'nowhere'"):
        config.model_copy(update={"node": "nowhere"}).build()


def test_inception_restores_the_scale_it_was_trained_on(tmp_path):
    """Published weights come with ``transform_input``; without it the features are those of another network."""
    network = torchvision.models.get_model("inception_v3", weights=None, init_weights=False, num_classes=3)
    save_file(network.state_dict(), tmp_path / "inception.safetensors")
    config = TorchvisionConfig(
        arch="inception_v3", weights_file=str(tmp_path / "inception.safetensors"), px=96, num_classes=3, node="avgpool"
    )
    network.eval().fc = torch.nn.Identity()
    tensor = torch.from_numpy(PICTURES[:1]).permute(0, 3, 1, 2).float() / 255
    resized = v2.functional.resize(tensor, [96, 96], antialias=True)
    with torch.no_grad():
        expected = network(2 * resized - 1)  # pixels from -1 to 1
    np.testing.assert_allclose(config.build()(PICTURES[:1])["embedding"], expected, rtol=1e-3, atol=1e-4)


def test_a_vit_from_its_folder(tmp_path):
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    settings = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8,
    )  # fmt: skip
    settings.num_labels = 5
    network = ViTForImageClassification(settings).eval()
    network.save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    backbone = Holder.parse(
        {"backbone": {"name": "hf_image_classifier", "part": {"folder": str(tmp_path)}}}
    ).backbone.build()
    found = backbone(PICTURES)
    inputs = ViTImageProcessor.from_pretrained(tmp_path)(images=list(PICTURES), return_tensors="pt")
    with torch.no_grad():
        np.testing.assert_allclose(found["logits"], network(**inputs).logits, atol=1e-5)
    assert backbone.num_classes == 5


def test_dinov2_from_its_folder_gives_its_class_token(tmp_path):
    from transformers import Dinov2Config, Dinov2Model, ViTImageProcessor

    torch.manual_seed(0)
    small = Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8)
    network = Dinov2Model(small).eval()
    network.save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    found = Holder.parse({"backbone": {"name": "hf_image_encoder", "part": {"folder": str(tmp_path)}}}).backbone.build()
    inputs = ViTImageProcessor.from_pretrained(tmp_path)(images=list(PICTURES), return_tensors="pt")
    with torch.no_grad():
        expected = network(**inputs).last_hidden_state[:, 0]
    np.testing.assert_allclose(found(PICTURES)["embedding"], expected, atol=1e-5)


def test_a_videomae_from_its_folder_takes_as_many_frames_as_it_is_told(tmp_path):
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification, VideoMAEImageProcessor

    torch.manual_seed(0)
    settings = VideoMAEConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8,
        num_frames=16,
    )  # fmt: skip
    settings.num_labels = 4
    network = VideoMAEForVideoClassification(settings).eval()
    network.save_pretrained(tmp_path)
    moments = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
    prepare: Any = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}} | moments
    VideoMAEImageProcessor(**prepare).save_pretrained(tmp_path)
    holder = Holder.parse(
        {"backbone": {"name": "hf_video_classifier", "part": {"folder": str(tmp_path)}, "num_frames": 6}}
    )
    backbone = holder.backbone.build()
    found = backbone(VIDEOS)
    assert backbone.video
    again = VideoMAEForVideoClassification.from_pretrained(tmp_path, num_frames=6).eval()
    frames = VIDEOS[:, np.rint(np.linspace(0, 7, 6)).astype(int)]
    ready = torch.from_numpy(frames).permute(0, 1, 4, 2, 3).float() / 255
    mean, sd = (torch.tensor(x).view(3, 1, 1) for x in moments.values())
    with torch.no_grad():
        np.testing.assert_allclose(found["logits"], again(pixel_values=(ready - mean) / sd).logits, atol=1e-5)
    assert found["embedding"].shape == (2, 16)


def test_clip_from_transformers_and_from_open_clip(tmp_path):
    import open_clip
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    small = CLIPVisionConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8,
        projection_dim=6,
    )  # fmt: skip
    network = CLIPVisionModelWithProjection(small).eval()
    network.save_pretrained(tmp_path / "hf")
    square = PICTURES[:, :32, :32]
    mean, sd = (torch.tensor(x).view(3, 1, 1) for x in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    ready = (torch.from_numpy(square).permute(0, 3, 1, 2).float() / 255 - mean) / sd
    found = Holder.parse({"backbone": {"name": "hf_clip", "part": {"folder": str(tmp_path / "hf")}}}).backbone.build()(
        square
    )
    with torch.no_grad():
        np.testing.assert_allclose(found["embedding"], network(pixel_values=ready).image_embeds, atol=1e-4)

    model = {
        "embed_dim": 6,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 8},
        "text_cfg": {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1},
    }
    own = open_clip.CLIP(**model).eval()
    folder = tmp_path / "oc"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": {}}))
    save_file({k: v.contiguous() for k, v in own.state_dict().items()}, folder / "open_clip_model.safetensors")
    found = Holder.parse({"backbone": {"name": "open_clip", "part": {"folder": str(folder)}}}).backbone.build()(square)
    with torch.no_grad():
        np.testing.assert_allclose(found["embedding"], own.encode_image(ready), atol=1e-4)


def test_a_missing_part_is_told():
    part = {"hub_id": "nobody/nothing"}
    with pytest.raises(ConfigError, match="listed as absent"):
        Holder.parse({"backbone": {"name": "hf_clip", "part": part}}).backbone.build()
    with pytest.raises(ConfigError, match="found no weights"):
        TorchvisionConfig(arch="alexnet", weights_file="nowhere.pth").build()
    with pytest.raises(ConfigError, match="no classifier 'alexnot'"):
        TorchvisionConfig(arch="alexnot", weights_file="nowhere.pth").build()


def test_what_is_no_picture_is_refused(shufflenet):
    _, path = shufflenet
    backbone = TorchvisionConfig(arch="shufflenet_v2_x0_5", weights_file=str(path), num_classes=7).build()
    with pytest.raises(DataError, match="expected uint8 with 4 axes"):
        backbone(PICTURES.astype(np.float32))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="expected uint8 with 4 axes"):
        backbone(VIDEOS)


def test_tflite_sees_the_cat_and_the_dragonfly(data_folder):
    """Classes and raw scores as the data folder's own reading states them."""
    pytest.importorskip("ai_edge_litert")
    import cv2

    weights, images = data_folder("weights_mobilenet_tflite"), data_folder("images")
    backbone = TFLiteConfig(file=str(weights / "mobilenet_v2_1.0_224_quant.tflite")).build()
    paths = {p.stem: p for p in images.iterdir() if p.suffix in (".bmp", ".png", ".jpg", ".jpeg")}
    for name, label, score in (("cat", 286, 199), ("dragonfly", 320, 253)):
        found = cv2.imread(str(next(p for stem, p in paths.items() if name in stem)))
        picture = np.ascontiguousarray(np.asarray(found, np.uint8)[..., ::-1])
        logits = backbone(picture[None])["logits"][0]
        assert logits.argmax() == label
        assert logits.max() * 256 == pytest.approx(score, abs=6)
    assert backbone.num_classes == 1001


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    source = SyntheticConfig(num_subjects=1, minutes=6, test_minutes=3, run_minutes=6, tr_s=2, fps=4, voxels=(10, 10))
    ingest(source, folder)
    return Dataset.open(folder)


@pytest.fixture(scope="module")
def classifier(films, tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    rows = np.flatnonzero(np.array(films.stimuli()["film"].to_pylist()) == "train")
    config = ClassifierConfig(pattern=SCENE, px=32, steps=100)
    return folder, train_classifier(films, rows, folder, config), config, rows


def test_a_classifier_trained_on_training_films_knows_films_it_never_saw(films, classifier):
    folder, about, _, _ = classifier
    rows = np.flatnonzero(np.array(films.stimuli()["film"].to_pylist()) == "test")
    frames = films.gather_stimuli("frames", rows)[:, 0]
    found = TrainedConfig(folder=str(folder)).build()(frames)
    labels = labels_of([films.stimuli()["caption"].to_pylist()[row] for row in rows], SCENE)
    right = [about["classes"][k] == label for k, label in zip(found["logits"].argmax(1), labels, strict=True)]
    assert about["num_stimuli"] == 180
    assert len(about["classes"]) >= 9
    assert np.mean(right) > 4 / len(about["classes"])
    assert found["embedding"].shape == (len(rows), 128)


def test_a_classifier_is_the_same_twice_and_reads_no_other_rows(films, classifier, tmp_path):
    _, about, config, rows = classifier
    quick = config.model_copy(update={"steps": 3})
    for name in ("one", "two"):
        train_classifier(films, rows[:40], tmp_path / name, quick)
    assert (tmp_path / "one/classifier.safetensors").read_bytes() == (
        tmp_path / "two/classifier.safetensors"
    ).read_bytes()
    assert about["data"] == films.fingerprint


def test_labels_that_tell_nothing_apart_are_refused(films, tmp_path):
    with pytest.raises(DataError, match="gives 1 classes"):
        train_classifier(films, np.arange(10), tmp_path, ClassifierConfig(column="film"))
    with pytest.raises(ConfigError, match=r"no classifier\.json"):
        TrainedConfig(folder=str(tmp_path / "empty")).build()
    assert labels_of(["a small red circle moves up, fast", "rest"], SCENE) == ["red circle", None]


def test_a_picture_network_on_videos_sees_motion(shufflenet):
    _, path = shufflenet
    config = TorchvisionConfig(arch="shufflenet_v2_x0_5", weights_file=str(path), px=32, num_classes=7)
    backbone = FramewiseConfig(frames=config).build()
    frames = config.build()(VIDEOS.reshape(-1, 32, 32, 3))["logits"].reshape(2, 8, 7)
    np.testing.assert_allclose(backbone(VIDEOS)["logits"], frames.mean(1), atol=1e-5)
    pooled = FramewiseConfig(frames=config.model_copy(update={"node": "mean"})).build()
    still = np.repeat(VIDEOS[:, :1], 8, 1)
    assert not np.allclose(pooled(VIDEOS)["embedding"][:, 1024:], 0)
    np.testing.assert_allclose(pooled(still)["embedding"][:, 1024:], 0, atol=1e-5)
