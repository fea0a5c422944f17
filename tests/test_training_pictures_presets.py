"""Papers' tables, on small films at the frame rates those papers use, against the functions they call."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import pytest
import torch
from skimage.color import rgb2gray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchvision.transforms import v2

from cineray.core.config import Config
from cineray.core.errors import ConfigError
from cineray.core.storage import Store
from cineray.datasets.dataset import Dataset
from cineray.datasets.ingest import ingest
from cineray.datasets.schema import TensorSpec
from cineray.datasets.sources.base import Recording, Stimulus
from cineray.training.evaluate_video import EvaluateVideoConfig, evaluate_video, format_video_table
from cineray.training.pictures import VIDEO_METRICS
from cineray.training.pictures.presets import PRESETS
from cineray.training.reconstructions import Origin, Reconstruction, Reconstructions
from cineray.training.run import Run
from conftest import REPOSITORY

TRAIN, NUM = 3, 9


class Clips(Config):
    """Nine clips of 2 s at 3 fps, 256 px, each its own film, with a caption and what a captioner says."""

    name: Literal["clips"] = "clips"

    def targets(self) -> dict[str, TensorSpec]:
        return {
            "frames": TensorSpec("uint8", (6, 256, 256, 3), "frames height width channels", "sRGB"),
            "caption_text": TensorSpec("uint8", (40,), "bytes", "utf-8"),
        }

    def stimuli(self) -> Iterator[Stimulus]:
        for k in range(NUM):
            said = np.frombuffer(f"a clip, perhaps number {k}".encode().ljust(40, b"\0"), np.uint8)
            targets = {"frames": film(k, 6), "caption_text": said}
            yield Stimulus(f"c{k}", f"c{k}", 0.0, 2.0, f"c{k}", f"a film number {k}", targets)

    def recordings(self) -> Iterator[Recording]:
        for number, (run, shown) in enumerate((("learn", range(TRAIN)), ("test", range(TRAIN, NUM)))):
            brain = np.random.default_rng(number).standard_normal((len(shown), 12)).astype(np.float16)
            ids: list[str | None] = [f"c{k}" for k in shown]
            onset_s, blank = np.arange(0.0, 2 * len(shown), 2.0), np.zeros(len(shown))
            yield Recording("sub-1", run, number, 2.0, brain, onset_s, ids, blank)

    def notes(self) -> dict[str, object]:
        return {}


def film(seed: int, frames: int) -> np.ndarray:
    """Patches that change from frame to frame, (frames, 256, 256, 3)."""
    patches = np.random.default_rng(seed).integers(0, 256, (frames, 8, 8, 3), np.uint8)
    return patches.repeat(32, 1).repeat(32, 2)


def half(k: int) -> np.ndarray:
    """The blurry video of a clip, half its size."""
    return film(200 + k, 16)[:, ::2, ::2]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Predictions of 16 frames at 8 fps with a blurry video beside each."""
    folder = tmp_path_factory.mktemp("clips")
    ingest(Clips(), folder / "data")
    dataset, store = Dataset.open(folder / "data"), Store.at(folder / "run")
    split = {"train": {"runs": ["learn"]}, "test": {"runs": ["test"]}}
    settings = {"name": "p", "view": {"dataset": dataset.store.url, "split": split}}
    store.put("run.yaml", Run.parse(settings).dump().encode())
    origin = Origin(settings="s", data=dataset.fingerprint, dataset=dataset.store.url)
    out = Reconstructions.begin(store, "test", origin)
    for k in range(TRAIN, NUM):
        video, blurry = film(100 + k, 16), half(k)
        out.write(Reconstruction(k, "sub-1", "test", f"c{k}", video, 8.0, 0, f"film {k}", blurry=blurry))
    out.finish()
    return store.url


def test_neurons_sets_every_second_frame_from_the_fifth_beside_the_truths_six(run):
    line = evaluate_video(run, "test", EvaluateVideoConfig(paper="neurons", num_bootstrap=20))["values"]
    assert set(PRESETS["neurons"].metrics) & set(line) == {"ssim@columns", "psnr"}, "no networks, no semantics"
    for k in range(TRAIN, NUM):
        truth, predicted = film(k, 6), film(100 + k, 16)[4::2]
        pairs = list(zip(predicted, truth, strict=True))
        psnr = [peak_signal_noise_ratio(t, p, data_range=255) for p, t in pairs]
        columns = [
            structural_similarity(
                rgb2gray(p), rgb2gray(t), channel_axis=-1, gaussian_weights=True, sigma=1.5,
                use_sample_covariance=False, data_range=1.0,
            )
            for p, t in pairs
        ]  # fmt: skip
        assert line["psnr"][0][k - TRAIN] == pytest.approx(np.mean(psnr), abs=1e-6)
        assert line["ssim@columns"][0][k - TRAIN] == pytest.approx(np.mean(columns), abs=1e-6)


def test_mindeye2_scores_a_blend_and_the_table_always_says_so(run):
    config = EvaluateVideoConfig(metrics=("psnr",), num_bootstrap=20, num_null=1)
    plain = evaluate_video(run, "test", config)
    assert (plain["blend"], EvaluateVideoConfig(paper="mindeye2").mixed) == ("none", "mindeye2")
    assert "blend: none" in format_video_table(plain)
    mixed = evaluate_video(run, "test", config.model_copy(update={"blend": "mindeye2"}))
    assert "blend: mindeye2" in format_video_table(mixed)
    for k in range(TRAIN, NUM):
        at = [0, 3, 5, 8, 11, 13]  # of 16 frames at 8 fps, the nearest to 0, 1/3, 2/3 … s
        low = [v2.functional.resize(torch.tensor(f).movedim(-1, 0), [256, 256], antialias=False) for f in half(k)[at]]
        both = 0.75 * film(100 + k, 16)[at] + 0.25 * torch.stack(low).movedim(1, -1).double().numpy()
        psnr = [peak_signal_noise_ratio(t, np.rint(b), data_range=255) for t, b in zip(film(k, 6), both, strict=True)]
        assert mixed["values"]["psnr"][0][k - TRAIN] == pytest.approx(np.mean(psnr), abs=0.02)
        assert mixed["values"]["psnr"][0][k - TRAIN] > plain["values"]["psnr"][0][k - TRAIN]
    with pytest.raises(ConfigError, match="of the blurry video itself"):
        EvaluateVideoConfig.parse({"part": "blurry", "blend": "mindeye2"})


def test_captions_stand_beside_what_a_captioner_says_of_the_true_film(run):
    config = EvaluateVideoConfig(metrics=("caption_rouge1", "caption_minilm"), num_bootstrap=20, num_null=1)
    found = evaluate_video(run, "test", config)
    line = found["metrics"]["caption_rouge1"]
    ours, captioner = 2 * (2 / 4) / (2 / 2 + 2 / 4), 2 * (3 / 5) * (3 / 4) / (3 / 5 + 3 / 4)
    assert line["value"] == pytest.approx(ours)
    assert line["baselines"] == {"captioner": pytest.approx(captioner)}
    assert f"{ours / captioner:.3f} of a captioner's" in format_video_table(found)
    assert found["absent"] == {"caption_minilm": "no network is named for the role 'minilm'"}
    said = evaluate_video(run, "test", config.model_copy(update={"reference": "caption_text"}))
    assert said["metrics"]["caption_rouge1"]["value"] == pytest.approx(2 * (1 / 2) * (1 / 5) / (1 / 2 + 1 / 5))
    assert said["metrics"]["caption_rouge1"]["baselines"] == {}, "the captioner is the reference itself"
    assert "captioner" not in format_video_table(said)


def test_the_page_of_metrics_names_every_one():
    page = (REPOSITORY / "docs" / "metrics.md").read_text(encoding="utf-8")
    stems = {name.partition("@")[0].removeprefix("caption_").removeprefix("retrieve_image") for name in VIDEO_METRICS}
    assert not {stem for stem in stems if stem.removeprefix("retrieve_brain") not in page}
    assert not {paper for paper in PRESETS if f"`{paper}`" not in page}
