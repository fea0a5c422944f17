"""Reconstructions scored: values by plain loops over the files, nulls and baselines that know nothing, paired tests."""

import json
import re
import shutil
from typing import Any

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from cineray.core.errors import ConfigError, DataError
from cineray.core.storage import Store
from cineray.datasets.dataset import Dataset
from cineray.training.backbones import FramewiseConfig
from cineray.training.backbones.trained import ClassifierConfig, TrainedConfig, labels_of, train_classifier
from cineray.training.evaluate_video import (
    EvaluateVideoConfig,
    compare_videos,
    evaluate_video,
    format_video_table,
    read_evaluation,
)
from cineray.training.pictures.resize import resized
from cineray.training.reconstructions import Reconstructions
from cineray.training.video_clips import Truths, wrong_clips
from cineray.training.video_settings import AnnotationConfig
from video_run import reconstruct, synthetic_films

SEMANTIC = ("nway_frame@2", "nway_video@2", "clip_sim", "clip_smooth", "clip", "retrieve_image@10", "video_sim", "fvd")
CHEAP = ("psnr", "caption_rouge1")
SCENE = r"a \S+ (\S+ \S+) moves"
"""Colour and shape in a caption."""


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return synthetic_films(tmp_path_factory.mktemp("films") / "data")


@pytest.fixture(scope="module")
def config(films, tmp_path_factory):
    folder, dataset = tmp_path_factory.mktemp("classifier"), Dataset.open(films)
    rows = np.flatnonzero(np.array(dataset.stimuli()["film"].to_pylist()) == "train")
    train_classifier(dataset, rows, folder, ClassifierConfig(pattern=SCENE, px=32, steps=40))
    network = TrainedConfig(folder=str(folder))
    roles: Any = {"frame_classifier": network, "clip": network, "video_classifier": FramewiseConfig(frames=network)}
    return EvaluateVideoConfig(metrics=(*CHEAP, *SEMANTIC), networks=roles, num_bootstrap=200, num_null=2)


@pytest.fixture(scope="module")
def runs(films, config, tmp_path_factory):
    """Good reconstructions, noisier ones, and those of other clips, all evaluated."""
    folder = tmp_path_factory.mktemp("runs")
    made = {
        "good": reconstruct(folder / "good", films, noise=20),
        "noisy": reconstruct(folder / "noisy", films, noise=80),
        "wrong": reconstruct(folder / "wrong", films, noise=20, wrong=True),
    }
    for run in made.values():
        evaluate_video(run, "test", config)
    return made


def found(run):
    return read_evaluation(Store.at(run), "test")


def test_psnr_and_its_baselines_by_loops_over_the_files(runs, films):
    dataset = Dataset.open(films)
    table = dataset.stimuli().to_pylist()
    row_of = {line["stimulus_id"]: row for row, line in enumerate(table)}
    folder = Reconstructions.open(Store.at(runs["good"]), "test")
    train = [row for row, line in enumerate(table) if line["film"] == "train"]
    mean = dataset.gather_stimuli("frames", np.array(train)).mean((0, 1)).round()

    def psnr(one, other):
        one, other = (np.rint(resized(x[None], 256)).astype(np.uint8) for x in (one, other))
        return min(peak_signal_noise_ratio(other, one, data_range=255), 100)

    own, still, mean_frame = {}, [], []
    for entry in folder.entries:
        clip = folder.read(entry.example)
        truth = dataset.gather_stimuli("frames", np.array([row_of[entry.stimulus_id]]))[0]
        at = [0, 1, 3, 4, 5, 7]  # of 8 frames at 4 fps, the nearest to 0, 1/3, 2/3 … s
        own.setdefault(entry.subject, []).append(np.mean([psnr(clip.video[k], truth[k]) for k in at]))
        if entry.subject == "sub-01":
            still.append(np.mean([psnr(truth[0], truth[k]) for k in at]))
            mean_frame.append(np.mean([psnr(mean.astype(np.uint8), truth[k]) for k in at]))
    line = found(runs["good"])["metrics"]["psnr"]
    for subject, values in own.items():
        assert line["per_subject"][subject]["value"] == pytest.approx(np.mean(values), abs=1e-3)
    assert line["value"] == pytest.approx(np.mean([np.mean(v) for v in own.values()]), abs=1e-3)
    assert line["baselines"]["first_frame"] == pytest.approx(np.mean(still), abs=1e-3)
    assert line["baselines"]["mean_training_frame"] == pytest.approx(np.mean(mean_frame), abs=1e-3)
    assert line["low"] < line["value"] < line["high"]
    assert line["truth"] == 100
    assert (line["num_subjects"], line["num_clips"]) == (2, 30)


@pytest.mark.parametrize("metric", ["psnr", *[m for m in SEMANTIC if m not in ("clip_smooth", "fvd")]])
def test_good_beats_null_baselines_and_noise(runs, metric):
    good, noisy, wrong = (found(runs[run])["metrics"][metric] for run in ("good", "noisy", "wrong"))
    assert good["low"] > good["null"]
    assert good["low"] > max(good["baselines"][name] for name in ("mean_training_frame", "flat_grey"))
    assert good["value"] > noisy["value"]
    assert good["truth"] >= good["high"]
    assert wrong["value"] < good["null"] + 0.3 * (good["value"] - good["null"])
    if good["level"] in ("features", "retrieval"):  # a network's few favourite classes raise the null of n-way
        assert good["null"] == pytest.approx(good["chance"], abs=0.1)
    for own in good["per_subject"].values():
        assert own["low"] <= own["value"] <= own["high"]


def test_fvd_has_an_interval_and_neither_null_nor_clips(runs):
    good, noisy = (found(runs[run])["metrics"]["fvd"] for run in ("good", "noisy"))
    assert good["value"] < noisy["value"]
    assert 0 <= good["low"] < good["value"] < good["high"]
    assert (good["null"], good["chance"], good["truth"]) == (None, None, 0.0)
    assert good["networks"] == ["classifier trained on the training stimuli, frame by frame"]
    assert "fvd" not in found(runs["good"])["values"]


def test_smoothness_stands_beside_the_films_own(runs):
    good = found(runs["good"])["metrics"]["clip_smooth"]
    assert good["baselines"]["first_frame"] == pytest.approx(1)
    assert good["truth"] < 1
    assert good["value"] == pytest.approx(good["null"]), "it does not look at the truth"


def test_what_has_no_network_is_absent_with_the_reason(films, tmp_path):
    run = reconstruct(tmp_path / "run", films, noise=20, num=12)
    named = ("psnr", "alex2", "nway_frame@2", "retrieve_image@300", "caption_rouge1")
    absent = evaluate_video(run, "test", EvaluateVideoConfig(metrics=named, num_bootstrap=10))["absent"]
    assert absent == {
        "alex2": "no network is named for the role 'alex2'",
        "nway_frame@2": "no network is named for the role 'frame_classifier'",
        "retrieve_image@300": "no network is named for the role 'clip'",
    }


def test_the_annotated_class_is_accepted_whatever_the_classifier_sees_in_the_truth(films, config, tmp_path):
    run = reconstruct(tmp_path / "run", films, noise=80, num=12)
    network = config.networks["frame_classifier"].build()
    how = {"labels": "annotation", "annotation": {"column": "caption", "pattern": SCENE}}
    config = EvaluateVideoConfig.parse(config.model_dump() | how | {"metrics": ["nway_frame@2"]})
    found = evaluate_video(run, "test", config)
    assert set(found["metrics"]) == {"nway_frame@2@annotation"}
    folder, table = Reconstructions.open(Store.at(run), "test"), Dataset.open(films).stimuli().to_pylist()
    captions = {line["stimulus_id"]: line["caption"] for line in table}
    for entry in folder.entries[:6]:
        label = " ".join(re.search(SCENE, captions[entry.stimulus_id]).groups())  # type: ignore[union-attr]
        logits = network(folder.read(entry.example).video[[0, 1, 3, 4, 5, 7]])["logits"]
        place = network.classes.index(label)
        expected = np.mean([(np.delete(row, place) < row[place]).mean() for row in logits])
        k = found["stimuli"].index(entry.stimulus_id)
        assert found["values"]["nway_frame@2@annotation"][0][k] == pytest.approx(expected)
    none = config.model_copy(update={"annotation": AnnotationConfig(pattern="nothing (at all)")})
    absent = evaluate_video(run, "test", none)["absent"]
    assert absent["nway_frame@2@annotation"] == "no stimulus has a class; see `annotation`"


def test_annotations_that_the_classifier_cannot_tell_are_named_before_anything_is_computed(films, config, tmp_path):
    run = reconstruct(tmp_path / "run", films, noise=80, num=12)
    how = {"labels": "annotation", "metrics": ["psnr", "nway_frame@2"], "annotation": {"pattern": SCENE}}
    annotated = EvaluateVideoConfig.parse(config.model_dump() | how)
    captions = annotated.model_copy(update={"annotation": AnnotationConfig()})
    began = []
    with pytest.raises(
        ConfigError, match=r"knows no class 'a .* moves .*' and 7 more, expected the names of its \d+ classes"
    ):
        evaluate_video(run, "test", captions, progress=began.append)
    trained: Any = config.networks["frame_classifier"]
    copy = shutil.copytree(trained.folder, tmp_path / "copy")
    about = json.loads((copy / "classifier.json").read_text())
    shown = [line["caption"] for line in Dataset.open(films).stimuli().to_pylist() if line["film"] == "test"][:12]
    known = [label for label in labels_of(shown, SCENE) if label]
    other = next(number for number, name in enumerate(about["classes"]) if name not in known)
    about["classes"][other] = known[0]
    (copy / "classifier.json").write_text(json.dumps(about))
    twice = annotated.model_copy(update={"networks": {"frame_classifier": TrainedConfig(folder=str(copy))}})
    with pytest.raises(ConfigError, match=f"has more than one class '{known[0]}', expected one for each"):
        evaluate_video(run, "test", twice, progress=began.append)
    assert not began


def test_too_few_classes_and_clips_are_told(films, config, tmp_path):
    run = reconstruct(tmp_path / "run", films, noise=20, num=12)
    few = config.model_copy(update={"metrics": ("psnr", "nway_frame@50", "retrieve_brain@50")})
    absent = evaluate_video(run, "test", few)["absent"]
    assert "classes, it takes 50" in absent["nway_frame@50"]
    assert absent["retrieve_brain@50"] == "a subject has 12 clips, it takes 50"


def test_a_network_in_the_wrong_role_is_refused(films, config, tmp_path):
    run = reconstruct(tmp_path / "run", films, noise=20, num=12)
    swapped = config.model_copy(update={"networks": {"clip": config.networks["video_classifier"]}})
    with pytest.raises(ConfigError, match=r"role 'clip' is .* expected one that judges single pictures"):
        evaluate_video(run, "test", swapped)


def test_paired_comparison_knows_what_is_shared(runs):
    difference = compare_videos(runs["good"], runs["noisy"])
    for metric in ("psnr", "clip_sim", "clip"):
        assert difference[metric].low > 0
        assert difference[metric].same_sign == 2
    a, b = (found(runs[run])["metrics"]["psnr"] for run in ("good", "noisy"))
    assert difference["psnr"].value == pytest.approx(a["value"] - b["value"])
    one, two = (np.array(found(runs[run])["values"]["psnr"]) for run in ("good", "noisy"))
    means = (one - two).mean(0).reshape(5, 6).mean(1)  # 30 clips in 5 blocks, the same for both people
    error = 1.96 * means.std() / np.sqrt(5)
    assert (difference["psnr"].high - difference["psnr"].low) / 2 == pytest.approx(error, rel=0.3)
    same = compare_videos(runs["good"], runs["good"])["psnr"]
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert "fvd" not in difference


def test_seeds_are_averaged_clip_by_clip(runs):
    several = compare_videos([runs["good"], runs["noisy"]], runs["wrong"])["psnr"]
    one, two = (compare_videos(runs[run], runs["wrong"])["psnr"] for run in ("good", "noisy"))
    assert several.value == pytest.approx((one.value + two.value) / 2)


def test_other_clips_or_settings_are_not_compared(runs, films, config, tmp_path):
    few = reconstruct(tmp_path / "few", films, noise=20, num=12)
    evaluate_video(few, "test", config)
    with pytest.raises(DataError, match="differ in their stimuli"):
        compare_videos(runs["good"], few)
    evaluate_video(few, "test", config.model_copy(update={"metrics": ("psnr",)}))
    with pytest.raises(DataError, match="differ in their config_fingerprint"):
        compare_videos(runs["good"], few)


def test_blurry_and_keyframe_are_judged_like_videos(films, tmp_path):
    run = reconstruct(tmp_path / "run", films, noise=20, num=12)
    config = EvaluateVideoConfig(metrics=("psnr",), num_bootstrap=10, num_null=1)
    video, blurry = (
        evaluate_video(run, "test", config.model_copy(update={"part": part}))["metrics"]["psnr"]["value"]
        for part in ("video", "blurry")
    )
    assert video > blurry
    assert Store.at(run).exists("evaluation/test-blurry.json")
    moving = config.model_copy(update={"part": "keyframe", "metrics": ("epe",)})
    epe = evaluate_video(run, "test", moving)["metrics"]["epe"]
    assert epe["value"] == pytest.approx(epe["baselines"]["zero_flow"], rel=0.1)


def test_wrong_clips_are_far_away_and_of_another_scene(films):
    dataset = Dataset.open(films)
    ids = [line["stimulus_id"] for line in dataset.stimuli().to_pylist() if line["film"] == "test"]
    truths = Truths.read(dataset, ids, EvaluateVideoConfig())
    own = np.repeat(np.arange(len(ids)), 20)
    wrong = wrong_clips(truths, own, 10.0, np.random.default_rng(0))
    assert np.abs(truths.onset_s[wrong] - truths.onset_s[own]).min() == 10.0
    assert len(set(wrong[own == 3])) > 5
    near = Truths.read(dataset, ids[:4], EvaluateVideoConfig())
    with pytest.raises(DataError, match="no wrong clip 10 s"):
        wrong_clips(near, np.arange(4), 10.0, np.random.default_rng(0))
    assert Truths.read(dataset, ids, EvaluateVideoConfig()).blocks(10)[:8] == [("test", 0)] * 6 + [("test", 1)] * 2


def test_a_papers_table_takes_its_frames_and_names():
    config = EvaluateVideoConfig(paper="neurons")
    frames = config.compared
    assert "ssim@columns" in config.names
    assert (frames.fps, frames.predicted_fps, frames.first, frames.step) == (3, 8, 4, 2)
    with pytest.raises(ConfigError, match="there is no metric 'sim'"):
        EvaluateVideoConfig.parse({"metrics": ["sim"]})


def test_the_table_in_text_says_everything(runs):
    text = format_video_table(found(runs["good"]) | {"absent": {"alex2": "no network"}})
    assert "alex2                    absent: no network" in text
    for line in found(runs["good"])["metrics"].values():
        assert f"{line['value']:.3f}" in text
    json.dumps(found(runs["good"]), allow_nan=False)
