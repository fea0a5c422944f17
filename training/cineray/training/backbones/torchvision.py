"""Any classifier of torchvision, from a local file of weights."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torchvision
from numpy.typing import NDArray
from torchvision.models.feature_extraction import create_feature_extractor

from cineray.core.config import Config
from cineray.core.content import Local
from cineray.core.errors import ConfigError
from cineray.training.backbones.base import IMAGENET, Backbone, as_pixels, read_weights

__all__ = ["TorchvisionConfig"]

OPTIONS: dict[str, dict[str, Any]] = {
    # The published weights were trained with inputs in -1 ... 1, which the class restores from ImageNet's moments.
    "inception_v3": {"transform_input": True, "init_weights": False},
    "googlenet": {"transform_input": True, "init_weights": False},
}


class TorchvisionConfig(Config):
    """Class scores, or the values at one node of the graph, such as ``features.4`` of ``alexnet``."""

    name: Literal["torchvision"] = "torchvision"
    arch: str
    """As `torchvision.models.get_model` calls it."""
    weights_file: Local
    """``.safetensors`` or ``.pth``."""
    node: str | None = None
    """Where the embedding is taken; None gives class scores."""
    px: int = 224
    num_classes: int = 1000
    class_names: Literal["imagenet"] | Local | None = None
    """``imagenet`` for weights trained on it, or a text file, one name a line in the order of the scores. None leaves
    the classes without names, which they need only beside annotated ones."""

    def build(self) -> Backbone:
        """Load the weights; all that the node needs must be there."""
        if self.arch not in torchvision.models.list_models(module=torchvision.models):
            raise ConfigError(f"torchvision has no classifier '{self.arch}'; see torchvision.models.list_models()")
        options = OPTIONS.get(self.arch, {})
        network = torchvision.models.get_model(self.arch, weights=None, num_classes=self.num_classes, **options).eval()
        weights, classes = read_weights(self.weights_file), self._classes()
        fitting = network.load_state_dict(weights, strict=False)
        if self.node is not None:
            try:
                network = create_feature_extractor(network, {self.node: "embedding"}).eval()
            except ValueError:
                raise ConfigError(f"{self.arch} has no node '{self.node}'; see get_graph_node_names") from None
        needed = set(network.state_dict())
        if missing := sorted(needed & set(fitting.missing_keys)):
            raise ConfigError(f"{self.weights_file} lacks '{missing[0]}' of {self.arch} ({len(missing)} missing)")
        embedding = self.node is not None

        def judge(pictures: NDArray[np.uint8]) -> dict[str, Any]:
            found = network(as_pixels(pictures, self.px, IMAGENET))
            return {"embedding": found["embedding"].flatten(1)} if embedding else {"logits": found}

        if embedding:
            return Backbone(f"torchvision {self.arch} {self.node}", judge)
        return Backbone(f"torchvision {self.arch}", judge, self.num_classes, classes=classes)

    def _classes(self) -> tuple[str, ...]:
        if self.class_names is None:
            return ()
        if self.class_names == "imagenet":
            names = torchvision.models.AlexNet_Weights.IMAGENET1K_V1.meta["categories"]
        elif Path(self.class_names).is_file():
            names = Path(self.class_names).read_text(encoding="utf-8").splitlines()
        else:
            raise ConfigError(
                f"found no file '{self.class_names}', expected 'imagenet' or a text file of names, one class a line"
            )
        if len(names) != self.num_classes:
            raise ConfigError(
                f"class_names={self.class_names} gives {len(names)} names, expected {self.num_classes}, one a class; "
                "correct it or num_classes"
            )
        return tuple(names)
