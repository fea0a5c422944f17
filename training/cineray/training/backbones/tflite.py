"""Quantised classifiers as TensorFlow Lite files, through the optional package ``ai-edge-litert``."""

from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from cineray.core.config import Config
from cineray.core.content import Local
from cineray.core.errors import ConfigError
from cineray.training.backbones.base import Backbone

__all__ = ["TFLiteConfig"]


class TFLiteConfig(Config):
    """One picture at a time, resized by area averaging without cropping.

    A network whose inputs and outputs are 8-bit numbers; several classes share a score, and ties fail.
    """

    name: Literal["tflite"] = "tflite"
    file: Local
    output: Literal["logits", "embedding"] = "logits"

    def build(self) -> Backbone:
        """Load the file."""
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            raise ConfigError("the package ai-edge-litert is not installed; `pip install ai-edge-litert`") from None
        if not Path(self.file).is_file():
            raise ConfigError(f"found no network at '{self.file}', expected a .tflite file")
        network = Interpreter(model_path=self.file)
        network.allocate_tensors()
        source, sink = network.get_input_details()[0], network.get_output_details()[0]
        px = int(source["shape"][1])
        if source["dtype"] != np.uint8:
            raise ConfigError(f"{self.file} takes {source['dtype'].__name__}, expected a network quantised to uint8")
        scale, zero = sink["quantization"]

        def one(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
            network.set_tensor(source["index"], cv2.resize(picture, (px, px), interpolation=cv2.INTER_AREA)[None])
            network.invoke()
            return (network.get_tensor(sink["index"]).reshape(-1).astype(np.float32) - zero) * scale

        def judge(pictures: NDArray[np.uint8]) -> dict[str, Any]:
            return {self.output: np.stack([one(picture) for picture in pictures])}

        num_classes = int(sink["shape"][-1]) if self.output == "logits" else None
        return Backbone(f"tflite {Path(self.file).name}", judge, num_classes)
