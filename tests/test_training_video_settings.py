"""Settings of an evaluation that contradict each other are told."""

import pytest

from cineray.core.errors import ConfigError
from cineray.training.video_settings import EvaluateVideoConfig


def test_annotated_classes_are_never_quietly_the_classifiers():
    named = EvaluateVideoConfig.parse({"labels": "annotation", "metrics": ["nway_frame@2", "ssim"]})
    assert named.names == ("nway_frame@2@annotation", "ssim")
    again = EvaluateVideoConfig.parse({"labels": "annotation", "metrics": ["nway_frame@2@annotation"]})
    assert again.names == ("nway_frame@2@annotation",)
    for how in ({"metrics": ["nway_frame@2@top3"]}, {"paper": "mindvideo"}):
        with pytest.raises(ConfigError, match=r"@top3.* accepts classes of the classifier's"):
            EvaluateVideoConfig.parse({"labels": "annotation"} | how)
