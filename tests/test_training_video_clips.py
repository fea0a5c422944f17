"""Clips beside their truths where the clips are pictures."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import pytest

from cineray.core.config import Config
from cineray.core.storage import Store
from cineray.datasets.dataset import Dataset
from cineray.datasets.ingest import ingest
from cineray.datasets.schema import TensorSpec
from cineray.datasets.sources.base import Recording, Stimulus
from cineray.training.evaluate_video import EvaluateVideoConfig, evaluate_video
from cineray.training.pictures.pixcorr import pixcorr
from cineray.training.pictures.resize import resized
from cineray.training.reconstructions import Origin, Reconstruction, Reconstructions
from cineray.training.run import Run


class Pictures(Config):
    """Sixteen pictures, each its own film, seen twice by one person."""

    name: Literal["pictures"] = "pictures"

    def targets(self) -> dict[str, TensorSpec]:
        return {"frames": TensorSpec("uint8", (1, 16, 16, 3), "frames height width channels", "sRGB")}

    def stimuli(self) -> Iterator[Stimulus]:
        for k in range(16):
            shade = np.random.default_rng(k).integers(0, 256, (1, 4, 4, 3), np.uint8)
            yield Stimulus(
                f"p{k:02d}", f"p{k:02d}", 0.0, 2.0, f"p{k:02d}", targets={"frames": shade.repeat(4, 1).repeat(4, 2)}
            )

    def recordings(self) -> Iterator[Recording]:
        runs = (("learn", range(8)), ("one", range(8, 16)), ("two", range(8, 16)))
        for number, (run, shown) in enumerate(runs):
            brain = np.random.default_rng(number).standard_normal((8, 12)).astype(np.float16)
            ids: list[str | None] = [f"p{k:02d}" for k in shown]
            yield Recording("sub-1", run, int(run == "two"), 2.0, brain, np.arange(0, 16, 2.0), ids, np.zeros(8))

    def notes(self) -> dict[str, object]:
        return {}


def test_pictures_have_no_motion_and_repeats_are_averaged(tmp_path):
    ingest(Pictures(), tmp_path / "data")
    dataset, store = Dataset.open(tmp_path / "data"), Store.at(tmp_path / "run")
    split = {"train": {"runs": ["learn"]}, "test": {"runs": ["one", "two"]}}
    store.put(
        "run.yaml", Run.parse({"name": "p", "view": {"dataset": dataset.store.url, "split": split}}).dump().encode()
    )
    origin = Origin(settings="s", data=dataset.fingerprint, dataset=dataset.store.url)
    folder, truth = Reconstructions.begin(store, "test", origin), dataset.gather_stimuli("frames", np.arange(16))
    expected = []
    for example in range(16):
        k, rng = 8 + example % 8, np.random.default_rng(example)
        video = np.clip(truth[k] + rng.normal(0, 40, truth[k].shape), 0, 255).astype(np.uint8)
        folder.write(Reconstruction(example, "sub-1", "one", f"p{k:02d}", video, 1.0, 0))
        expected.append(pixcorr(resized(video, 425), resized(truth[k], 425)))
    folder.finish()
    config = EvaluateVideoConfig(metrics=("pixcorr", "epe", "caption_rouge1"), num_bootstrap=50)
    found = evaluate_video(store.url, "test", config)
    line = found["metrics"]["pixcorr"]
    assert line["value"] == pytest.approx(np.mean(expected))
    assert found["values"]["pixcorr"][0] == pytest.approx(np.reshape(expected, (2, 8)).mean(0))
    assert set(line["baselines"]) == {"mean_training_frame", "flat_grey"}
    assert line["null"] < 0.3 < line["low"]
    assert found["absent"] == {"epe": "pictures do not move", "caption_rouge1": "captions are missing on one side"}
    assert len({tuple(block) for block in found["blocks"]}) == 8
