"""Brain correlation: by NumPy on arrays, and on a brain whose responses are a known function of the film."""

import h5py
import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from cineray.core.errors import ConfigError, DataError
from cineray.core.storage import Store
from cineray.datasets.dataset import Dataset
from cineray.training.backbones import Backbone, LinearEncoderConfig
from cineray.training.backbones.linear_encoder import linear_encoder
from cineray.training.backbones.torchvision import TorchvisionConfig
from cineray.training.evaluate_video import EvaluateVideoConfig, evaluate_video
from cineray.training.pictures import VIDEO_METRICS
from cineray.training.pictures.bank import Bank, Pairing
from cineray.training.pictures.brain import Brain, brain_correlation, repeat_average
from cineray.training.reconstructions import Reconstructions
from cineray.training.video_brains import read_brain
from cineray.training.video_settings import EncodingConfig
from video_run import reconstruct, synthetic_films

NUM, VOXELS = 12, 40


def colours() -> Backbone:
    return Backbone("mean colour", lambda p: {"embedding": p.reshape(len(p), -1, 3).mean(1) / 128 - 1})


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("weights") / "encoder.safetensors"
    found = {"weight": rng.standard_normal((VOXELS, 3)), "bias": rng.standard_normal(VOXELS)}
    save_file({name: torch.tensor(value, dtype=torch.float32) for name, value in found.items()}, path)
    return path, found


def test_correlation_and_average_over_repeats_are_numpys():
    rng = np.random.default_rng(1)
    p, m = rng.standard_normal((2, 30))
    assert brain_correlation(p, m) == pytest.approx(np.corrcoef(p, m)[0, 1])
    assert brain_correlation(np.ones(30), m) == 0
    assert np.isnan(brain_correlation(p, np.full(30, np.nan))), "what was not measured is no 0"
    trials, shown = rng.standard_normal((7, 4)), np.array([2, 0, 2, 0, 0, 3, 2])
    found = repeat_average(trials, shown, 4)
    for k in (0, 2, 3):
        np.testing.assert_allclose(found[k], np.mean([t for t, s in zip(trials, shown, strict=True) if s == k], 0))
    assert np.isnan(found[1]).all()


def test_pictures_that_would_drive_the_brain_alike_score_high(weights):
    path, known = weights
    videos = np.random.default_rng(2).integers(0, 256, (NUM, 2, 1, 1, 3)).astype(np.uint8).repeat(4, 2).repeat(4, 3)
    shade = videos.mean((1, 2, 3)) / 128 - 1
    rng = np.random.default_rng(3)
    trials = (shade @ known["weight"].T + known["bias"]).repeat(20, 0) + 2 * rng.standard_normal((20 * NUM, VOXELS))
    measured = repeat_average(trials, np.arange(NUM).repeat(20), NUM)
    masks = {"V1": np.arange(VOXELS) < 10}
    brain = Brain(linear_encoder(colours(), str(path)), measured, masks)
    every = np.arange(NUM)
    for name, mask in (("brain_corr", np.ones(VOXELS, bool)), ("brain_corr@V1", masks["V1"])):
        pairing = Pairing(Bank(list(videos)), Bank(list(videos)), every, every, every, 3.0, brain)
        found = VIDEO_METRICS[name].values(pairing, {})
        clean = shade @ known["weight"].T + known["bias"]
        expected = [np.corrcoef(c[mask], m[mask])[0, 1] for c, m in zip(clean, measured, strict=True)]
        np.testing.assert_allclose(found, expected, atol=1e-5)
        wrong = Pairing(Bank(list(videos)), Bank(list(videos)), every, np.roll(every, 1), every, 3.0, brain)
        assert VIDEO_METRICS[name].values(wrong, {}).mean() < found.mean()


def test_a_run_is_scored_on_the_repeat_average_of_its_own_data_set(weights, tmp_path):
    films = synthetic_films(tmp_path / "films")
    run, dataset = reconstruct(tmp_path / "run", films, noise=20, num=12), Dataset.open(films)
    config = EvaluateVideoConfig(metrics=("brain_corr", "brain_corr@V1"), num_bootstrap=20, num_null=1)
    absent = evaluate_video(run, "test", config)["absent"]
    assert absent["brain_corr"] == "no encoding model is named for subject 'sub-01'; see `encoding`"
    ids = [entry.stimulus_id for entry in Reconstructions.open(Store.at(run), "test").entries[:12]]
    built = EncodingConfig.model_construct(network=Built(), masks_file=None, masks_group=None)
    brain = read_brain(dataset, "sub-02", ids, built)
    assert brain is not None
    samples = dataset.samples(["stimulus_id"])["stimulus_id"].to_pylist()
    for k, name in enumerate(ids[:3]):
        rows = [r for r, s in enumerate(samples) if s == name and dataset.subject_of(r) == "sub-02"]
        expected = dataset.gather_samples(np.array(rows)).astype(float).mean(0)
        np.testing.assert_allclose(brain.measured[k], expected, atol=1e-6)
    with h5py.File(tmp_path / "masks.hdf5", "w") as file:
        file["sub-02/V1"], file["short/V1"] = np.ones(brain.measured.shape[1], bool), np.ones(3, bool)
        file["empty/V1"] = np.zeros(brain.measured.shape[1], bool)
    for group, message in (
        ("sub-09", "has no group 'sub-09', expected one of"),
        ("short", "has 3 voxels"),
        ("empty", "'V1' of 'empty' has no voxel"),
    ):
        where = built.model_copy(update={"masks_file": str(tmp_path / "masks.hdf5"), "masks_group": group})
        with pytest.raises(DataError, match=message):
            read_brain(dataset, "sub-02", ids, where)
    where = built.model_copy(update={"masks_file": str(tmp_path / "masks.hdf5")})
    assert read_brain(dataset, "sub-02", ids, where).masks["V1"].all()  # type: ignore[union-attr]


def test_an_evaluation_with_an_encoding_model_for_each_subject(tmp_path):
    films = synthetic_films(tmp_path / "films")
    run, dataset = reconstruct(tmp_path / "run", films, noise=20, num=12), Dataset.open(films)
    torch.manual_seed(0)
    network = torchvision.models.get_model("shufflenet_v2_x0_5", weights=None, num_classes=2)
    save_file(network.state_dict(), tmp_path / "net.safetensors")
    frames = TorchvisionConfig(
        arch="shufflenet_v2_x0_5", weights_file=str(tmp_path / "net.safetensors"), node="mean", px=32, num_classes=2
    )
    encoding = {}
    for subject, num in dataset.num_voxels.items():
        save_file({"weight": torch.randn(num, 1024), "bias": torch.randn(num)}, tmp_path / f"{subject}.safetensors")
        linear = LinearEncoderConfig(frames=frames, weights_file=str(tmp_path / f"{subject}.safetensors"))
        encoding[subject] = EncodingConfig(network=linear)
    config = EvaluateVideoConfig(metrics=("brain_corr", "brain_corr@V1"), encoding=encoding, num_bootstrap=20)
    found = evaluate_video(run, "test", config)
    line = found["metrics"]["brain_corr"]
    assert found["absent"] == {"brain_corr@V1": "there is no mask of V1 for subject 'sub-01'; see `encoding`"}
    assert (line["chance"], set(found["encoding"])) == (0, set(dataset.subjects))
    entries = Reconstructions.open(Store.at(run), "test")
    entry = entries.entries[-1]
    brain = read_brain(dataset, entry.subject, [entry.stimulus_id], encoding[entry.subject])
    video = entries.read(entry.example).video[[0, 1, 3, 4, 5, 7]]
    predicted = brain.encoder(video)["embedding"].astype(float).mean(0)  # type: ignore[union-attr]
    expected = np.corrcoef(predicted, brain.measured[0])[0, 1]  # type: ignore[union-attr]
    place = found["stimuli"].index(entry.stimulus_id)
    assert found["values"]["brain_corr"][found["subjects"].index(entry.subject)][place] == pytest.approx(expected)


class Built:
    def build(self) -> Backbone:
        return colours()


def test_what_does_not_fit_is_told(weights, tmp_path):
    path, _ = weights
    save_file({"weight": torch.zeros(3, 2)}, tmp_path / "half.safetensors")
    with pytest.raises(ConfigError, match=r"expected weight \(voxels, dim\)"):
        linear_encoder(colours(), str(tmp_path / "half.safetensors"))
    wide = Backbone("wide", lambda p: {"embedding": np.zeros((len(p), 5))})
    picture = np.zeros((1, 4, 4, 3), np.uint8)
    with pytest.raises(ConfigError, match="reads 3 values, wide gives 5"):
        linear_encoder(wide, str(path))(picture)
    scores = Backbone("scores alone", lambda p: {"logits": np.zeros((len(p), 3))})
    with pytest.raises(ConfigError, match="scores alone gives logits, expected embedding"):
        linear_encoder(scores, str(path))(picture)
    brain = Brain(linear_encoder(colours(), str(path)), np.zeros((1, 7)), {})
    one = np.zeros(1, int)
    with pytest.raises(DataError, match="predicts 40 voxels, found 7 measured"):
        VIDEO_METRICS["brain_corr"].values(Pairing(Bank([picture]), Bank([picture]), one, one, one, 3.0, brain), {})
