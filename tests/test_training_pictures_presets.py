"""Papers' tables, on small films at the frame rates those papers use, against the functions they call."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import pytest
from skimage.color import rgb2gray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from cineray.core.config import Config
from cineray.core.storage import Store
from cineray.datasets.dataset import Dataset
from cineray.datasets.ingest import ingest
from cineray.datasets.schema import TensorSpec
from cineray.datasets.sources.base import Recording, Stimulus
from cineray.training.evaluate_video import EvaluateVideoConfig, evaluate_video
from cineray.training.pictures.presets import PRESETS
from cineray.training.reconstructions import Origin, Reconstruction, Reconstructions
from cineray.training.run import Run

TRAIN, NUM = 3, 9


class Clips(Config):
    """Nine clips of 2 s at 3 fps, 256 px, each its own film."""

    name: Literal["clips"] = "clips"

    def targets(self) -> dict[str, TensorSpec]:
        return {"frames": TensorSpec("uint8", (6, 256, 256, 3), "frames height width channels", "sRGB")}

    def stimuli(self) -> Iterator[Stimulus]:
        for k in range(NUM):
            yield Stimulus(f"c{k}", f"c{k}", 0.0, 2.0, f"c{k}", targets={"frames": film(k, 6)})

    def recordings(self) -> Iterator[Recording]:
        for number, (run, shown) in enumerate((("learn", range(TRAIN)), ("test", range(TRAIN, NUM)))):
            brain = np.random.default_rng(number).standard_normal((len(shown), 12)).astype(np.float16)
            ids: list[str | None] = [f"c{k}" for k in shown]
            onset_s, blank = 2.0 * np.arange(len(shown)), np.zeros(len(shown))
            yield Recording("sub-1", run, number, 2.0, brain, onset_s, ids, blank)

    def notes(self) -> dict[str, object]:
        return {}


def film(seed: int, frames: int) -> np.ndarray:
    """Patches that change from frame to frame, (frames, 256, 256, 3)."""
    patches = np.random.default_rng(seed).integers(0, 256, (frames, 8, 8, 3), np.uint8)
    return patches.repeat(32, 1).repeat(32, 2)


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
        video, blurry = film(100 + k, 16), film(200 + k, 16)[:, ::2, ::2]
        out.write(Reconstruction(k, "sub-1", "test", f"c{k}", video, 8.0, 0, blurry=blurry))
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
