"""Names of a torchvision classifier's classes: none but those the settings give."""

import pytest
import torchvision
from safetensors.torch import save_file

from cineray.core.errors import ConfigError
from cineray.training.backbones.torchvision import TorchvisionConfig

ARCH = "shufflenet_v2_x0_5"


def config_of(folder, num_classes):
    """Random weights of so many classes."""
    path = folder / "weights.safetensors"
    save_file(torchvision.models.get_model(ARCH, weights=None, num_classes=num_classes).state_dict(), path)
    return TorchvisionConfig(arch=ARCH, weights_file=str(path), num_classes=num_classes)


def test_torchvision_has_the_names_of_classes_that_are_given(tmp_path):
    config = config_of(tmp_path, 7)
    assert config.build().classes == ()
    (tmp_path / "names.txt").write_text("ant\nbee\ncat\ndog\nelk\nfox\ngnu\n")
    named = config.model_copy(update={"class_names": str(tmp_path / "names.txt")})
    assert named.build().classes == ("ant", "bee", "cat", "dog", "elk", "fox", "gnu")
    with pytest.raises(ConfigError, match="imagenet gives 1000 names, expected 7"):
        config.model_copy(update={"class_names": "imagenet"}).build()
    with pytest.raises(ConfigError, match="found no file 'nowhere', expected 'imagenet' or a text file"):
        config.model_copy(update={"class_names": "nowhere"}).build()


def test_a_thousand_classes_are_imagenets_only_where_the_settings_say_so(tmp_path):
    config = config_of(tmp_path, 1000)
    assert config.build().classes == ()
    names = config.model_copy(update={"class_names": "imagenet"}).build().classes
    assert (names[0], names[207], len(set(names))) == ("tench", "golden retriever", 1000)
