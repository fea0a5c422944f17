"""Image classifiers and embedding extractors in TensorFlow Lite's format, run by ai-edge-litert (group ``tflite``)."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from cineray.core.errors import ConfigError
from cineray.datasets.dataset import Dataset
from cineray.datasets.encoders.base import FrameChoice, PretrainedSettings, chosen, frame_axes, frames_spec
from cineray.datasets.schema import TensorSpec

__all__ = ["TFLite", "TFLiteConfig"]


class TFLiteConfig(PretrainedSettings):
    """Settings of a network that takes one uint8 picture (1, height, width, 3) of plain pixels."""

    reads_frames: ClassVar[bool] = True
    name: Literal["tflite"] = "tflite"
    target: str = "image_features"
    file: str
    """Name of the ``.tflite`` file in ``part``."""
    frame: FrameChoice = "middle"

    def spec(self, dataset: Dataset) -> TensorSpec:
        """(dim,), behind ``frames`` where all are encoded."""
        first, words = frame_axes(frames_spec(dataset), self.frame)
        return TensorSpec("float16", (*first, self.build("cpu").dim), f"{words}dim", "network output")

    def build(self, device: torch.device | str) -> "TFLite":
        """Load the network; it runs on the CPU whatever the device."""
        if find_spec("ai_edge_litert") is None:
            raise ConfigError("the package ai-edge-litert is not installed; pip install 'cineray[tflite]'")
        from ai_edge_litert.interpreter import Interpreter

        path = self.folder / self.file
        if not path.is_file():
            raise ConfigError(f"found no {path}, expected a .tflite file there; set file=…")
        return TFLite(self, Interpreter(model_path=str(path), num_threads=torch.get_num_threads()))


class TFLite:
    """A network with quantised or float output, brought to real numbers."""

    def __init__(self, config: TFLiteConfig, interpreter: Any) -> None:
        interpreter.allocate_tensors()
        self._config, self._interpreter = config, interpreter
        self._input, self._output = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        shape, dtype = self._input["shape"].tolist(), self._input["dtype"]
        if dtype != np.uint8 or len(shape) != 4 or (shape[0], shape[3]) != (1, 3):
            raise ConfigError(f"{config.file} takes {dtype.__name__} {shape}, expected uint8 [1, height, width, 3]")
        self._size = (shape[2], shape[1])

    @property
    def dim(self) -> int:
        """Numbers a picture becomes."""
        return int(np.prod(self._output["shape"][1:]))

    def encode(self, frames: NDArray[np.uint8], captions: Sequence[str]) -> NDArray[np.float16]:
        """(rows, frames, height, width, 3) to (rows, dim) or (rows, frames, dim); pictures are area-resized, uncut."""
        picked = chosen(frames, self._config.frame)
        values = np.stack([self._one(picture) for clip in picked for picture in clip]).astype(np.float16)
        return values.reshape(*picked.shape[:2], -1) if self._config.frame == "all" else values

    def _one(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        import cv2

        resized = cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA)
        self._interpreter.set_tensor(self._input["index"], resized[None])
        self._interpreter.invoke()
        found = self._interpreter.get_tensor(self._output["index"]).reshape(-1).astype(np.float32)
        scale, zero = self._output["quantization"]
        return (found - zero) * scale if scale else found
