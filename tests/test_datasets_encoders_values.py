"""What encoders compute, against the libraries called by hand and against what is known of their inputs."""

import numpy as np
import pytest
import torch
from PIL import Image

from cineray.core.pretrained import Part
from cineray.datasets.dataset import Dataset
from cineray.datasets.encoders.captions import as_bytes, as_text
from cineray.datasets.encoders.clip import HFClipConfig, OpenClipConfig
from cineray.datasets.encoders.flow import FlowConfig
from cineray.datasets.encoders.images import resized
from cineray.datasets.encoders.motion import MotionConfig, compressed, expanded
from cineray.datasets.encoders.taef2 import read_half
from cineray.datasets.encoders.tflite import TFLiteConfig
from cineray.datasets.encoders.vae import VaeConfig
from cineray.datasets.ingest import ingest
from clips import ClipSource, carried_texture
from tiny_encoders import SIDE, siglip, tiny, tiny_kl

SOURCE = ClipSource(clips=3, side=SIDE)
CAPTIONS = ["a red ring", "x", ""]
PIXELS = SOURCE.pixels()
MIDDLE = torch.from_numpy(PIXELS[:, 1]).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return tmp_path_factory.mktemp("parts")


def near(found, expected):
    return np.allclose(found.astype(np.float64), expected.detach().double().numpy(), atol=4e-3)


@pytest.fixture(scope="module")
def open_clip_model(parts):
    import open_clip

    folder = tiny("open_clip", parts / "open_clip").part.folder
    return open_clip.create_model(f"local-dir:{folder}").eval(), folder


@pytest.mark.parametrize("image_range", ["zero_one", "mindeye2"])
def test_open_clip_gives_the_tokens_of_the_library(open_clip_model, image_range):
    model, folder = open_clip_model
    how = model.visual.preprocess_cfg
    mean, sd = (torch.tensor(how[key]).view(3, 1, 1) for key in ("mean", "std"))
    pixels = MIDDLE / 255 if image_range == "zero_one" else MIDDLE / 510 + 0.5
    model.visual.output_tokens = True
    pooled, tokens = model.visual((pixels - mean) / sd)
    settings = OpenClipConfig(part=Part(folder=folder), image_range=image_range)
    found = settings.build("cpu").encode(PIXELS, CAPTIONS)
    assert near(found, tokens)
    with_class = settings.override({"output": "tokens_cls"}).build("cpu").encode(PIXELS, CAPTIONS)
    assert np.array_equal(with_class[:, 1:], found)
    projected = torch.from_numpy(with_class[:, 0]).float() @ model.visual.proj
    embedding = settings.override({"output": "pooled"}).build("cpu").encode(PIXELS, CAPTIONS)
    assert near(embedding, pooled)
    assert near(embedding, projected)  # the class token is the one the embedding is made of


def test_the_image_range_stands_in_the_unit(open_clip_model, tmp_path):
    ingest(SOURCE, tmp_path / "set")
    settings = OpenClipConfig(part=Part(folder=open_clip_model[1]), image_range="mindeye2", frame="all")
    spec = settings.spec(Dataset.open(tmp_path / "set"))
    assert (spec.unit, spec.axes, spec.shape) == ("CLIP, image range mindeye2", "frames tokens dim", (3, 16, 32))


def test_every_frame_is_encoded_as_if_it_were_the_only_one(open_clip_model):
    settings = OpenClipConfig(part=Part(folder=open_clip_model[1]), output="pooled", frame="all")
    found = settings.build("cpu").encode(PIXELS, CAPTIONS)
    for frame in range(3):
        alone = settings.override({"frame": frame}).build("cpu").encode(PIXELS, CAPTIONS)
        assert np.allclose(found[:, frame].astype(float), alone.astype(float), atol=2e-3)


def test_pictures_are_resized_as_open_clip_does_it(open_clip_model):
    """Its own transform goes through PIL, picture by picture."""
    import open_clip

    picture = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8).repeat(12, 0).repeat(12, 1)
    _, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{open_clip_model[1]}")
    how = open_clip_model[0].visual.preprocess_cfg
    expected = preprocess(Image.fromarray(picture)) * torch.tensor(how["std"]).view(3, 1, 1)
    expected = (expected + torch.tensor(how["mean"]).view(3, 1, 1)) * 255
    found = resized(torch.from_numpy(picture).permute(2, 0, 1)[None], SIDE)
    assert (found[0].float() - expected).abs().max() < 1.5  # grey levels


@pytest.mark.parametrize("output", ["tokens", "tokens_cls", "projected", "pooled"])
def test_hf_clip_gives_the_values_of_transformers(parts, output):
    from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

    settings = tiny("hf_clip", parts / "hf_clip", output=output)
    model = CLIPVisionModelWithProjection.from_pretrained(parts / "hf_clip").eval()
    processor = CLIPImageProcessor.from_pretrained(parts / "hf_clip")
    images = [Image.fromarray(clip[1]) for clip in PIXELS]
    found = model(processor(images=images, return_tensors="pt").pixel_values)
    states = found.last_hidden_state
    # By hand: the embedding is the projected class token of these.
    projected = model.visual_projection(model.vision_model.post_layernorm(states))
    assert torch.allclose(projected[:, 0], found.image_embeds, atol=1e-5)
    expected = {"tokens": states[:, 1:], "tokens_cls": states, "projected": projected, "pooled": found.image_embeds}
    assert near(settings.build("cpu").encode(PIXELS, CAPTIONS), expected[output])


def test_a_clip_without_an_image_processor_sees_pictures_as_clip_does(parts, tmp_path):
    """By torchvision, as OpenAI's own code has it; the folder of IP-Adapter's image encoder holds these two files."""
    from torchvision.transforms import v2
    from transformers import CLIPVisionModelWithProjection

    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((parts / "hf_clip" / name).read_bytes())
    prepare = v2.Compose(
        [
            v2.Resize(SIDE, v2.InterpolationMode.BICUBIC, antialias=True),
            v2.CenterCrop(SIDE),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        ]
    )
    pictures = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (2, 1, 40, 52, 3), dtype=np.uint8))
    model = CLIPVisionModelWithProjection.from_pretrained(tmp_path).eval()
    expected = model(prepare(pictures[:, 0].permute(0, 3, 1, 2))).image_embeds
    settings = HFClipConfig(part=Part(folder=str(tmp_path)), output="pooled")
    assert near(settings.build("cpu").encode(pictures.numpy(), CAPTIONS[:2]), expected)


@pytest.mark.parametrize("output", ["tokens", "pooled"])
def test_siglip_gives_the_values_of_transformers(parts, output, tmp_path):
    from transformers import SiglipVisionModel

    torch.manual_seed(0)
    siglip(tmp_path)
    found = SiglipVisionModel.from_pretrained(tmp_path).eval()(MIDDLE / 127.5 - 1)
    expected = {"tokens": found.last_hidden_state, "pooled": found.pooler_output}[output]
    settings = HFClipConfig(part=Part(folder=str(tmp_path)), output=output)
    values = settings.build("cpu").encode(PIXELS, CAPTIONS)
    assert near(values, expected)
    ingest(SOURCE, tmp_path / "set")
    assert settings.spec(Dataset.open(tmp_path / "set")).shape == values.shape[1:]


def test_text_towers_give_the_embeddings_of_their_libraries(parts, open_clip_model):
    import open_clip
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer

    model, folder = open_clip_model
    settings = tiny("open_clip_text", parts / "open_clip")
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(CAPTIONS)
    assert near(settings.build("cpu").encode(PIXELS, CAPTIONS), model.encode_text(tokens))

    settings = tiny("hf_clip_text", parts / "hf_clip_text")
    model = CLIPTextModelWithProjection.from_pretrained(parts / "hf_clip_text").eval()
    tokenizer = CLIPTokenizer.from_pretrained(parts / "hf_clip_text")
    found = settings.build("cpu").encode(PIXELS, CAPTIONS)
    for row, caption in enumerate(CAPTIONS):  # unpadded, one by one
        assert near(found[row], model(**tokenizer(caption, return_tensors="pt")).text_embeds[0])


def test_a_caption_longer_than_the_network_takes_is_cut(parts):
    encoder = tiny("hf_clip_text", parts / "hf_clip_text").build("cpu")
    found = encoder.encode(PIXELS[:2], ["a b c d e f g h i j k l m n", "a b c d e f g h i j k l m n o p q r s t"])
    assert np.array_equal(found[0], found[1])


def test_vae_gives_the_scaled_mode_of_the_posterior(parts):
    from diffusers import AutoencoderKL

    settings = tiny("vae", parts / "vae")
    model = AutoencoderKL.from_pretrained(parts / "vae").eval()
    found = settings.build("cpu").encode(PIXELS, CAPTIONS)
    for frame in range(3):
        pictures = torch.from_numpy(PIXELS[:, frame]).permute(0, 3, 1, 2) / 127.5 - 1
        mean, _ = model.quant_conv(model.encoder(pictures)).chunk(2, 1)
        assert near(found[:, frame], (mean - 0.1) * 0.18215)
    middle = settings.override({"frame": "middle"}).build("cpu").encode(PIXELS, CAPTIONS)
    assert np.allclose(middle.astype(float), found[:, 1:2].astype(float), atol=2e-3)


def test_the_tiny_vae_gives_its_latents(tmp_path):
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    tiny_kl(tmp_path)
    model = AutoencoderTiny.from_pretrained(tmp_path).eval()
    settings = VaeConfig(part=Part(folder=str(tmp_path)), frame="middle", size=16)
    expected = model.encode(resized(MIDDLE, 16) / 127.5 - 1).latents
    found = settings.build("cpu").encode(PIXELS, CAPTIONS)
    assert found.shape == (3, 1, 4, 8, 8)
    assert near(found[:, 0], expected)


def test_blip_says_what_greedy_search_by_hand_says(parts):
    """With one beam the caption is the most likely token after the most likely token."""
    from transformers import AutoTokenizer, BlipForConditionalGeneration, BlipImageProcessor

    settings = tiny("blip", parts / "blip", num_beams=1, max_tokens=6)
    model = BlipForConditionalGeneration.from_pretrained(parts / "blip").eval()
    tokenizer = AutoTokenizer.from_pretrained(parts / "blip")
    processor = BlipImageProcessor.from_pretrained(parts / "blip")
    found = as_text(settings.build("cpu").encode(PIXELS, CAPTIONS))
    for row, clip in enumerate(PIXELS):
        pixels = processor(images=Image.fromarray(clip[1]), return_tensors="pt").pixel_values
        states = model.vision_model(pixels).last_hidden_state
        tokens = [model.config.text_config.bos_token_id]
        for _ in range(6):
            logits = model.text_decoder(input_ids=torch.tensor([tokens]), encoder_hidden_states=states).logits
            tokens.append(int(logits[0, -1].argmax()))
            if tokens[-1] == model.config.text_config.sep_token_id:
                break
        assert found[row] == tokenizer.decode(tokens, skip_special_tokens=True).strip()


def test_text_is_cut_at_a_character_and_padded_with_zeros():
    values = as_bytes(["é" * 10, " ab ", ""], 5)
    assert values.tolist() == [[*"éé".encode(), 0], [97, 98, 0, 0, 0], [0] * 5]
    assert as_text(values) == ["éé", "ab", ""]


def test_flow_of_a_moving_texture_is_its_motion():
    """2 pixels right and 1 up a frame."""
    clip = carried_texture(3, 2, -1)
    flow = FlowConfig().build("cpu").encode(clip[None], [""])
    assert flow.shape == (1, 2, 64, 64, 2)
    assert np.allclose(np.median(flow[0, :, 16:48, 16:48], (1, 2)), [[2, -1], [2, -1]], atol=0.15)
    still = FlowConfig().build("cpu").encode(np.repeat(clip[None, :1], 2, 1), [""])
    assert np.abs(still[:, :, 16:48, 16:48]).max() < 0.05  # the method is not exact at the edges


def test_motion_is_the_flow_of_each_place_and_stretch():
    """2 pixels right and 1 up a frame for three steps, then none for two; a frame is 64 pixels wide."""
    clip = carried_texture(4, 2, -1)
    clip = np.concatenate([clip, clip[-1:], clip[-1:]])
    one, two = (
        expanded(MotionConfig(places=8, stretches=s).build("cpu").encode(clip[None], [""])[0].astype(np.float64)) * 64
        for s in (1, 2)
    )
    assert (one.shape, two.shape) == ((1, 2, 8, 8), (2, 2, 8, 8))
    inner = (..., slice(2, 6), slice(2, 6))
    np.testing.assert_allclose(np.median(two[0][inner], (1, 2)), [2, -1], atol=0.2)
    assert np.abs(two[1][inner]).max() < 0.02
    np.testing.assert_allclose(np.median(one[0][inner], (1, 2)), [2 * 0.6, -0.6], atol=0.15)


def test_motion_is_told_in_signed_roots():
    values = np.array([-4.0, -0.25, 0.0, 0.01, 9.0])
    np.testing.assert_allclose(compressed(values), [-2, -0.5, 0, 0.1, 3])
    np.testing.assert_allclose(expanded(compressed(values)), values)


PSNR = {
    256: {"cat": 32.7, "bird": 31.5, "sunflower": 30.2, "dragonfly": 28.1, "parrot": 27.0},
    128: {"cat": 30.5, "bird": 28.4, "sunflower": 26.8, "dragonfly": 25.4, "parrot": 23.7},
}
"""Round trips of photographs, as measured with the published weights by other code (dB)."""


@pytest.mark.parametrize("side", PSNR)
def test_taef2_brings_photographs_back(data_folder, side):
    import cv2

    images, weights = data_folder("images"), data_folder("weights_taef2")
    halves = [read_half(weights, half) for half in ("encoder", "decoder")]
    for name, expected in PSNR[side].items():
        picture = cv2.imread(str(next(images.glob(f"{name}.*"))))[..., ::-1]
        edge = min(picture.shape[:2])
        top, left = ((length - edge) // 2 for length in picture.shape[:2])
        square = cv2.resize(picture[top : top + edge, left : left + edge], (side, side), interpolation=cv2.INTER_AREA)
        pixels = torch.from_numpy(square.copy()).permute(2, 0, 1)[None] / 255
        with torch.no_grad():
            latents = halves[0](pixels)
            back = halves[1](latents).clamp(0, 1)
        assert latents.shape == (1, 32, side // 8, side // 8)
        psnr = -10 * torch.log10((back - pixels).square().mean()).item()
        assert psnr == pytest.approx(expected, abs=0.1)


CLASSES = {"cat": (286, 199), "bird": (20, 254), "dragonfly": (320, 253), "parrot": (89, 255), "sunflower": (986, 253)}
"""Photograph -> class of MobileNet v2 and its score of 255."""


def test_tflite_names_photographs(data_folder):
    import cv2

    pytest.importorskip("ai_edge_litert", reason="the optional package ai-edge-litert is not installed")
    images, weights = data_folder("images"), data_folder("weights_mobilenet_tflite")
    part = Part(folder=str(weights))
    encoder = TFLiteConfig(part=part, file="mobilenet_v2_1.0_224_quant.tflite").build("cpu")
    for name, (number, score) in CLASSES.items():
        picture = cv2.imread(str(next(images.glob(f"{name}.*"))))[None, None, ..., ::-1]
        (scores,) = encoder.encode(np.ascontiguousarray(picture), [""])
        assert (scores.argmax(), round(float(scores.max()) * 256)) == (number, score)
    features = TFLiteConfig(part=part, file="mobilenet_v1_1.0_224_quant_embedding_extractor.tflite", frame="all")
    values = features.build("cpu").encode(np.zeros((2, 3, 32, 32, 3), np.uint8), ["", ""])
    assert values.shape == (2, 3, 1024)
