"""What an encoder is: frozen settings, and a pure function of frames and captions that they build."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from cineray.core.config import Config
from cineray.core.errors import ConfigError, DataError
from cineray.core.pretrained import Part, PartRecord, locate
from cineray.datasets.dataset import Dataset
from cineray.datasets.schema import TensorSpec

__all__ = [
    "FRAMES",
    "Encoder",
    "EncoderSettings",
    "FrameChoice",
    "PretrainedSettings",
    "chosen",
    "frame_axes",
    "frames_spec",
    "identity",
]

FRAMES = "frames"
"""The target that image encoders read: uint8 (frames, height, width, 3), sRGB."""

FRAME_AXES = "frames height width channels"

INSTEAD = "or choose an encoder that needs no pretrained part: pool, gradients, words, flow, motion"

FrameChoice = int | Literal["first", "middle", "all"]
"""Which frames of a clip are encoded: one of them (by number, from the end if negative), or every one by itself."""


class Encoder(Protocol):
    """Built settings."""

    def encode(self, frames: NDArray[np.uint8], captions: Sequence[str]) -> NDArray[Any]:
        """Frames (rows, frames, height, width, 3) and a caption a row to (rows, ...) as the settings' spec says.

        Equal rows give equal values, whoever stands beside them. Where the settings read no frames, they may be empty.
        The frames are the caller's memory, which holds others after the call.
        """
        ...


class EncoderSettings(Protocol):
    """What each member of the registry has."""

    reads_frames: ClassVar[bool]
    """Whether `Encoder.encode` looks at the frames."""
    version: ClassVar[int]
    """1, and one more with every change of the code that changes the values."""

    @property
    def name(self) -> str:
        """The encoder's name in the registry."""
        ...

    @property
    def target(self) -> str:
        """What the data set calls the values."""
        ...

    def spec(self, dataset: Dataset) -> TensorSpec:
        """Shape, dtype, axes and unit of the values of one stimulus of a data set."""
        ...

    def build(self, device: torch.device | str) -> Encoder:
        """Load what it needs."""
        ...

    def model_dump(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Plain values (of `Config`)."""
        ...


class PretrainedSettings(Config):
    """Settings of an encoder whose weights come from elsewhere."""

    version: ClassVar[int] = 1
    part: Part
    precision: Literal["float32", "float16", "bfloat16"] = "float32"
    """What the network computes in."""

    @property
    def folder(self) -> Path:
        """Where the part lies.

        Raises:
            ConfigError: It is not there; says how to get it.
        """
        return locate(self.part, instead=INSTEAD)

    @property
    def dtype(self) -> torch.dtype:
        """`precision` in torch's terms."""
        return getattr(torch, self.precision)


def identity(settings: EncoderSettings) -> str:
    """First 16 hex digits of a sha256 over settings, version and every pretrained file, wherever those lie."""
    values = settings.model_dump(mode="json", exclude={"part"})
    if settings.version > 1:  # the first one is not named: features that were stored without a version are of it
        values["version"] = settings.version
    if isinstance(settings, PretrainedSettings):
        values["part"] = _digests(settings.folder)
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def frames_spec(dataset: Dataset) -> TensorSpec:
    """The data set's frames.

    Raises:
        DataError: It has none, or holds them in another form.
    """
    spec = dataset.target_specs.get(FRAMES)
    if spec is None:
        known = ", ".join(dataset.target_specs) or "none"
        raise DataError(f"{dataset.store.url} has targets {known}, expected '{FRAMES}'; ingest the films with frames")
    if (spec.axes, spec.dtype) != (FRAME_AXES, "uint8") or spec.shape[-1] != 3:
        raise DataError(
            f"'{FRAMES}' of {dataset.store.url} is {spec.dtype} {spec.shape} ({spec.axes}), expected uint8 "
            f"({FRAME_AXES}) with 3 channels; ingest the films again"
        )
    return spec


def chosen(frames: NDArray[np.uint8], frame: FrameChoice) -> NDArray[np.uint8]:
    """(rows, frames, ...) to (rows, chosen, ...)."""
    num_frames = frames.shape[1]
    if frame == "all":
        return frames
    number = {"first": 0, "middle": num_frames // 2}[frame] if isinstance(frame, str) else frame
    return frames[:, [number]]


def frame_axes(frames: TensorSpec, frame: FrameChoice) -> tuple[tuple[int, ...], str]:
    """Leading axes of what is computed frame by frame: ``frames`` where all are chosen, none where it is one.

    Raises:
        ConfigError: There is no such frame.
    """
    num_frames = frames.shape[0]
    if isinstance(frame, int) and not -num_frames <= frame < num_frames:
        raise ConfigError(f"found frame={frame}, expected one of {num_frames}, 'first', 'middle' or 'all'")
    return ((num_frames,), "frames ") if frame == "all" else ((), "")


def _digests(folder: Path) -> dict[str, str]:
    """File below the folder -> sha256; from the record of a pulled part where there is one."""
    record = PartRecord.of(folder)
    if record is not None:
        return {name: file.sha256 for name, file in sorted(record.files.items())}
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with open(path, "rb") as file:
            found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
