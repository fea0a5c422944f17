"""The light generator: training pictures only, placed where the blurry video says, in the blurry video's light."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from cineray.core.errors import ConfigError, DataError
from cineray.datasets.dataset import Dataset
from cineray.serving.generators.base import Condition
from cineray.serving.generators.blend import blend, placed, places, recoloured, resized
from cineray.serving.generators.codecs import PoolCodecConfig
from cineray.serving.generators.latent_diffusion import LatentDiffusionConfig
from cineray.serving.generators.nearest import NearestConfig
from cineray.serving.library import Library
from cineray.training.models.video_diffusion import VideoDiffusionConfig
from cineray.training.run import Run
from tiny_video import tiny_video, trained


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("video")


@pytest.fixture(scope="module")
def run(folder):
    return Run.load(f"{tiny_video(folder).semantic.run_dir}/run.yaml")


@pytest.fixture(scope="module")
def library(run):
    return Library.of(Dataset.open(run.view.dataset), run.view, "features", "frames")


@pytest.fixture(scope="module")
def generator(library):
    return NearestConfig().build(library=library)


def a_square(size=32, top=12, left=12, side=6, colour=(250, 40, 40), ground=30):
    picture = np.full((size, size, 3), ground, np.uint8)
    picture[top : top + side, left : left + side] = colour
    return picture


@pytest.mark.parametrize("light", [0.0, 0.4, 1.0])
def test_a_picture_that_does_not_move_takes_only_the_light_of_the_blurry_video(light):
    """By scipy: what is left above the cutoff is the picture's own, and of what is below, the share that it keeps."""
    rng = np.random.default_rng(2)
    picture = ndimage.gaussian_filter(rng.uniform(60, 190, (24, 24, 3)), (1, 1, 0)).astype(np.uint8)
    blurry = ndimage.gaussian_filter(rng.uniform(60, 190, (3, 24, 24, 3)), (0, 4, 4, 0)).astype(np.float32)
    made = recoloured(picture, blurry, 0.1, light).astype(np.float64)
    lows = [ndimage.gaussian_filter(x.astype(np.float64), (2.4, 2.4, 0), mode="nearest") for x in (*blurry, picture)]
    for frame, low in zip(made, lows, strict=False):
        np.testing.assert_allclose(frame, picture + light * (low - lows[-1]), atol=0.6)


def test_a_true_token_brings_back_its_own_picture(library, generator):
    row = int(library.rows[3])
    tokens = torch.from_numpy(library.dataset.gather_stimuli("features", library.rows[[3]])[0])[None]
    (keyframe,) = generator.keyframes([Condition(tokens=tokens)])
    assert np.array_equal(keyframe, library.frames(row)[4])
    with pytest.raises(DataError, match="no tokens"):
        generator.keyframes([Condition()])


def test_a_picture_follows_a_blurry_video():
    """The square of the blurry video moves over other ground and in another colour; the picture's goes with it."""
    path = [(2, 3), (6, 8), (11, 13), (16, 18), (21, 22)]
    sharp = a_square().astype(np.float32)
    moving = np.stack([a_square(top=y, left=x, colour=(200, 90, 90), ground=60) for y, x in path])
    blurry = ndimage.gaussian_filter(moving.astype(np.float32), (0, 3, 3, 0))
    likely = places(sharp, blurry, 2.0, 0.001)
    assert likely.shape == (5, 64, 64)
    np.testing.assert_allclose(likely.sum((1, 2)), 1, atol=1e-5)
    best = np.stack(np.divmod(likely.reshape(5, -1).argmax(1), 64), 1)
    assert np.abs((best + 32) % 64 - 32 - (np.array(path) - 12)).max() <= 1


def test_a_fainter_video_spreads_the_picture():
    """Entropy of the places; a flat video or picture tells nothing at all."""
    sharp = a_square().astype(np.float32)
    ground = np.full_like(sharp, 30.0)
    entropy = []
    for share in (1.0, 0.3, 0.1, 0.0):
        likely = places(sharp, (ground + share * (sharp - ground))[None], 2.0, 0.01)
        entropy.append(-(likely * np.log(likely + 1e-30)).sum())
    assert entropy == sorted(entropy)
    assert entropy[-1] == pytest.approx(np.log(64 * 64), rel=1e-3)
    assert entropy[0] < 3
    flat = places(ground, sharp[None], 2.0, 0.01)
    np.testing.assert_allclose(flat, 1 / 64**2, rtol=1e-3)


def test_placed_pictures_by_a_loop():
    rng = np.random.default_rng(0)
    picture, beyond = rng.random((5, 7, 3)), rng.random((3, 5, 7, 3))
    moves = [[(0, 0, 1.0)], [(2, -3, 0.5), (-4, 1, 0.5)], [(1, 1, 0.2), (-1, 6, 0.3), (4, -6, 0.5)]]
    likely = np.zeros((3, 10, 14), np.float32)
    expected = np.zeros_like(beyond)
    for frame, here in enumerate(moves):
        for down, right, share in here:
            likely[frame, down % 10, right % 14] = share
            for y in range(5):
                for x in range(7):
                    inside = 0 <= y - down < 5 and 0 <= x - right < 7
                    expected[frame, y, x] += share * (picture[y - down, x - right] if inside else beyond[frame, y, x])
    np.testing.assert_allclose(placed(picture.astype(np.float32), likely, beyond), expected, atol=1e-5)


def test_low_frequencies_come_from_the_video_and_high_ones_from_the_picture():
    """A striped hill that stands where it stood, in other light: the light is the video's, the stripes stay."""
    y, x = np.indices((64, 64))[..., None]
    hill = 80 * np.exp(-((x - 32) ** 2 + (y - 32) ** 2) / 128) * np.ones(3)
    stripes = np.where(x // 2 % 2, 15, -15)
    picture = (75 + stripes + hill).astype(np.uint8)
    video = np.broadcast_to(60 + 0.5 * y + hill, (3, 64, 64, 3)).astype(np.float32)
    made = blend(picture, video, 0.1, 0.001).astype(float)
    inner = slice(16, 48)
    low = ndimage.gaussian_filter(made, (0, 6.4, 6.4, 0), mode="nearest")[:, inner, inner]
    wanted = ndimage.gaussian_filter(video, (0, 6.4, 6.4, 0), mode="nearest")[:, inner, inner]
    assert np.abs(low - wanted).max() < 4
    high = (made - video)[:, inner, inner].reshape(-1)
    grating = np.broadcast_to(stripes, made.shape)[:, inner, inner].reshape(-1)
    assert np.corrcoef(high, grating)[0, 1] > 0.8


def test_videos_have_the_clips_shape_and_obey_each_part(library, generator):
    frames, height, width = library.shape
    rng = np.random.default_rng(0)
    blurry = [rng.integers(0, 256, (3, height, width, 3), np.uint8) for _ in range(2)]
    keyframes = np.stack([library.frames(int(row))[0] for row in library.rows[:2]])
    conditions = [Condition(blurry=b) for b in blurry]
    videos = generator.videos(conditions, keyframes)
    assert (videos.shape, videos.dtype) == ((2, frames, height, width, 3), np.uint8)
    assert generator.fps == frames / 2.0
    alone = generator.videos(conditions[1:], keyframes[1:])
    assert np.array_equal(alone[0], videos[1])
    swapped = generator.videos(conditions, keyframes[::-1])
    assert not np.array_equal(swapped, videos)
    carried = generator.videos([replace(conditions[0], first_frame=keyframes[1])], keyframes[:1])
    assert np.array_equal(carried[0], swapped[0])
    still = generator.videos([Condition()], keyframes[:1])
    assert np.array_equal(still[0], np.repeat(keyframes[:1], frames, axis=0))


def test_a_decoded_flow_moves_the_picture(library):
    """A quarter of the width in all, from the middle; carried pictures and such of the blurry video begin there."""
    frames, height, width = library.shape
    generator = NearestConfig(moves="flow", light=0.0).build(library=library)
    flow = np.zeros((1, 2, 2, 2), np.float32)
    flow[..., 0] = 1 / width
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    blurry = np.zeros((frames, height, width, 3), np.uint8)
    tokens = torch.zeros(1, 3)
    (video,) = generator.videos([Condition(tokens=tokens, blurry=blurry, flow=flow)], picture[None])
    np.testing.assert_array_equal(video[frames // 2], picture)
    np.testing.assert_array_equal(video[frames // 2 + 1, :, 1:], picture[:, :-1])
    np.testing.assert_array_equal(video[0, :, : -frames // 2], picture[:, frames // 2 :])
    for begins in (
        Condition(blurry=blurry, flow=flow),
        Condition(tokens=tokens, blurry=blurry, flow=flow, first_frame=picture),
    ):
        (video,) = generator.videos([begins], picture[None])
        np.testing.assert_array_equal(video[0], picture)
    (still,) = generator.videos([Condition(tokens=tokens)], picture[None])
    np.testing.assert_array_equal(still, np.repeat(picture[None], frames, 0))
    with pytest.raises(DataError, match="got no flow"):
        generator.videos([Condition(tokens=tokens, blurry=blurry)], picture[None])


@pytest.mark.parametrize(
    ("settings", "idle"),
    [
        ({"faint": 0.1}, "faint=0.1 beside moves=blurry and light=1"),
        ({"moves": "flow", "doubt": 0.1}, "doubt=0.1 beside moves=flow and light=1"),
        ({"moves": "nothing", "light": 0, "cutoff": 0.1}, "cutoff=0.1 beside moves=nothing and light=0"),
    ],
)
def test_settings_of_the_generator_that_do_nothing_are_refused(settings, idle):
    with pytest.raises(ConfigError, match=f"found {idle}, where it does nothing; leave it at "):
        NearestConfig.parse(settings)
    for acting in ({"light": 0.0, "cutoff": 0.1, "doubt": 0.1}, {"moves": "flow", "faint": 0.1, "cutoff": 0.1}):
        assert NearestConfig.loads(NearestConfig.parse(acting).dump()) == NearestConfig.parse(acting)


def test_the_pool_codec_turns_small_pictures_into_frames():
    """Flat colours stay; between two squares the light rises steadily."""
    codec = PoolCodecConfig().build(size=(8, 8), device="cpu")
    flat = torch.tensor([-1.0, 0.0, 1.0])[None, :, None, None].expand(2, 3, 2, 2)
    assert np.array_equal(codec.decode(flat), np.broadcast_to([0, 128, 255], (2, 8, 8, 3)))
    ramp = torch.tensor([[-1.0, 1.0], [-1.0, 1.0]]).expand(1, 3, 2, 2)
    assert codec.decode(ramp)[0, 3, :, 0].tolist() == [0, 0, 32, 96, 159, 223, 255, 255]


def test_pictures_of_another_size_keep_their_light():
    picture = a_square(32)[None]
    assert resized(picture, 16, 16).shape == (1, 16, 16, 3)
    assert resized(picture, 16, 16).mean() == pytest.approx(picture.mean(), abs=1)
    assert resized(picture, 32, 32) is picture


POOL = PoolCodecConfig().build(size=(16, 16), device="cpu")
PARTS = {"codec": POOL, "tokens": "features", "latents": "latents", "device": "cpu"}
SMALL = VideoDiffusionConfig(condition="features", dim=8, heads=2, depth=1, steps=3)


@pytest.fixture(scope="module")
def diffusion(folder, library):
    """Trained for a moment; conditions z-scored in training, latents as they are."""
    run_dir = trained(folder, "diffusion", SMALL, ("latents", "features"), epochs=1)
    return LatentDiffusionConfig(run_dir=run_dir, steps=3).build(library=library, **PARTS)


def decoded(library, number, seed=3, tokens_of=None):
    """A condition as a perfect decoder would give it."""
    rows = library.rows[[number]], library.rows[[number if tokens_of is None else tokens_of]]
    latents = torch.from_numpy(library.dataset.gather_stimuli("latents", rows[0])[0]).float()
    tokens = torch.from_numpy(library.dataset.gather_stimuli("features", rows[1])[0]).float()[None]
    return Condition(tokens=tokens, blurry=POOL.decode(latents), latents=latents, seed=seed)


def test_diffusion_is_the_models_own_sample_in_pixels(diffusion, library):
    condition = decoded(library, 4)
    made = diffusion.videos([condition], np.zeros((1, 16, 16, 3), np.uint8))
    noise = torch.randn(diffusion.model.shape, generator=torch.Generator().manual_seed(3))
    values = library.dataset.gather_stimuli("features", library.rows)
    scaled = (condition.tokens - values.mean(0)) / np.where(values.std(0) > 0, values.std(0), 1)
    latents = diffusion.model.sample(
        noise[None], blurry=condition.latents[None], condition=scaled[None].float(), steps=3, strength=0.5
    )
    assert np.abs(made[0].astype(int) - POOL.decode(latents[0])).max() <= 1
    assert (diffusion.fps, made.shape, made.dtype) == (4.0, (1, 8, 16, 16, 3), np.uint8)


def test_diffusion_obeys_each_part_and_no_neighbour(diffusion, library):
    nothing = np.zeros((3, 16, 16, 3), np.uint8)
    one, other = decoded(library, 4), decoded(library, 5, seed=9)
    together = diffusion.videos([other, one, decoded(library, 6)], nothing)
    alone = diffusion.videos([one], nothing[:1])[0]
    assert np.abs(together[1].astype(int) - alone).max() <= 1
    for changed in (replace(one, seed=4), decoded(library, 4, tokens_of=9), replace(one, latents=other.latents)):
        assert not np.array_equal(diffusion.videos([changed], nothing[:1])[0], alone)
    still = replace(diffusion, config=diffusion.config.override({"strength": 0.0}))
    assert np.array_equal(still.videos([one], nothing[:1])[0], one.blurry)
    keyframes = diffusion.keyframes([one, replace(one, latents=other.latents, blurry=other.blurry)])
    assert keyframes.shape == (2, 16, 16, 3)
    assert np.array_equal(keyframes[0], keyframes[1])
    assert diffusion.videos([replace(one, latents=None, blurry=None)], nothing[:1]).shape == (1, 8, 16, 16, 3)
    assert diffusion.videos([replace(one, tokens=None)], nothing[:1]).shape == (1, 8, 16, 16, 3)


def test_diffusion_says_what_it_cannot_do(diffusion, library, folder, run):
    with pytest.raises(DataError, match=r"cannot go on from a frame.*link=null"):
        diffusion.videos([replace(decoded(library, 4), first_frame=np.zeros((16, 16, 3), np.uint8))], np.zeros(1))
    with pytest.raises(ConfigError, match="model 'ridge', expected 'video_diffusion'"):
        LatentDiffusionConfig(run_dir=f"{folder}/semantic").build(library=library, **PARTS)
    elsewhere = replace(library, split=run.view.split.override({"gap_s": 1.0}))
    with pytest.raises(ConfigError, match="another split"):
        diffusion.config.build(library=elsewhere, **PARTS)
    with pytest.raises(ConfigError, match=r"makes 'latents' of 'features', .* predict 'latents' and 'words'; train"):
        diffusion.config.build(library=library, **PARTS | {"tokens": "words"})
    with pytest.raises(ConfigError, match=r"the reconstructors predict 'motion' and 'features'"):
        diffusion.config.build(library=library, **PARTS | {"latents": "motion"})
