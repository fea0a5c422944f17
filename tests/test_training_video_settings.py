"""Settings of an evaluation that contradict each other are told."""

import pytest

from cineray.core.errors import ConfigError
from cineray.core.storage import Store
from cineray.training.evaluate_video import read_evaluation
from cineray.training.video_settings import EvaluateVideoConfig

ALEXNET = {"name": "torchvision", "arch": "alexnet", "weights_file": "nowhere"}
LINEAR = {"name": "linear_encoder", "frames": ALEXNET}


def test_annotated_classes_are_never_quietly_the_classifiers():
    named = EvaluateVideoConfig.parse({"labels": "annotation", "metrics": ["nway_frame@2", "ssim"]})
    assert named.names == ("nway_frame@2@annotation", "ssim")
    again = EvaluateVideoConfig.parse({"labels": "annotation", "metrics": ["nway_frame@2@annotation"]})
    assert again.names == ("nway_frame@2@annotation",)
    for how in ({"metrics": ["nway_frame@2@top3"]}, {"paper": "mindvideo"}):
        with pytest.raises(ConfigError, match=r"@top3.* accepts classes of the classifier's"):
            EvaluateVideoConfig.parse({"labels": "annotation"} | how)


def test_evaluations_of_other_kinds_have_files_of_their_own():
    """A paper's table and a blend stand beside the plain evaluation; what is missing is told as it is written."""
    kinds = {
        "video": {},
        "keyframe": {"part": "keyframe"},
        "video-neuroclips": {"paper": "neuroclips"},
        "keyframe-mindeye2": {"part": "keyframe", "paper": "mindeye2"},
        "video-blend": {"blend": "mindeye2"},
    }
    assert [EvaluateVideoConfig.parse(changes).kind for changes in kinds.values()] == list(kinds)


@pytest.mark.parametrize(
    "uses",
    [
        lambda place: {"networks": {"clip": {"name": "tflite", "file": place}}},
        lambda place: {"networks": {"clip": {"name": "trained", "folder": place}}},
        lambda place: {"networks": {"clip": {"name": "torchvision", "arch": "alexnet", "weights_file": place}}},
        lambda place: {"networks": {"clip": {**ALEXNET, "class_names": place}}},
        lambda place: {"networks": {"vifi": {"name": "vifi_clip", "weights_file": place}}},
        lambda place: {"networks": {"fvd": {"name": "i3d", "part": {"folder": place}}}},
        lambda place: {"encoding": {"s": {"network": {**LINEAR, "weights_file": place}}}},
        lambda place: {"encoding": {"s": {"network": ALEXNET, "masks_file": place}}},
    ],
)
def test_files_count_by_content_wherever_they_lie(tmp_path, uses):
    for name, data in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(data)
    one, same, other = (EvaluateVideoConfig.parse(uses(str(tmp_path / name))).fingerprint() for name in "abc")
    assert one == same != other


def test_imagenets_names_are_no_folder_of_that_name(tmp_path, monkeypatch):
    before = EvaluateVideoConfig.parse({"networks": {"clip": {**ALEXNET, "class_names": "imagenet"}}})
    (tmp_path / "imagenet").mkdir()
    monkeypatch.chdir(tmp_path)
    assert before.by_content()["networks"]["clip"]["class_names"] == "imagenet"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("blurry", "split=val part=blurry`"),
        ("video-mindeye2", "part=video paper=mindeye2`"),
        ("video-blend", "blend=mindeye2`"),
    ],
)
def test_a_kind_that_was_not_evaluated_is_told(tmp_path, kind, words):
    with pytest.raises(ConfigError, match=words):
        read_evaluation(Store.at(tmp_path), "val", kind)
