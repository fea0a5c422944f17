"""The tiny autoencoder of FLUX.2's latents (taef2): 8 times smaller each way, 32 channels.

The published weights (MIT) are two state dicts whose keys are places in a sequence of layers; the same sequences stand
here. Pictures are in [0, 1], latents have a deviation of about 0.85.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from cineray.core.errors import ConfigError
from cineray.datasets.dataset import Dataset
from cineray.datasets.encoders.base import PretrainedSettings, frames_spec
from cineray.datasets.encoders.images import by_frame
from cineray.datasets.schema import TensorSpec

__all__ = ["FACTOR", "LATENT_CHANNELS", "UNIT", "Taef2", "Taef2Config", "make_decoder", "make_encoder", "read_half"]

UNIT = "taef2 latent"
LATENT_CHANNELS = 32
FACTOR = 8
WIDTH = 64
NUM_GROUPS = 4
"""Of the pooled blocks' normalisation; another number costs 1 to 10 dB."""
PICTURES_TOGETHER = 16


class Block(nn.Module):
    """Three convolutions with the input added; ``pooled`` ones first add what a wide, normalised layer makes of it."""

    def __init__(self, *, pooled: bool = False) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(), nn.ReLU(), _conv(), nn.ReLU(), _conv())
        if pooled:
            self.pool = nn.Sequential(
                nn.Conv2d(WIDTH, 4 * WIDTH, 1, bias=False),
                nn.GroupNorm(NUM_GROUPS, 4 * WIDTH),
                nn.ReLU(),
                nn.Conv2d(4 * WIDTH, WIDTH, 1, bias=False),
            )

    def forward(self, x: Tensor) -> Tensor:
        """(n, 64, height, width) to the same shape."""
        if hasattr(self, "pool"):
            x = x + self.pool(x)
        return F.relu(self.conv(x) + x)


class SoftClamp(nn.Module):
    """Keeps latents within -3 and 3."""

    def forward(self, x: Tensor) -> Tensor:
        """3 tanh(x / 3)."""
        return 3 * torch.tanh(x / 3)


def make_encoder() -> nn.Sequential:
    """(n, 3, height, width) in [0, 1] to (n, 32, height / 8, width / 8)."""
    halve = (_conv(stride=2, bias=False), *_blocks(3))
    return nn.Sequential(
        _conv(3), Block(), *halve, _conv(stride=2, bias=False), *_blocks(3), _conv(stride=2, bias=False),
        *_blocks(3, pooled=True), _conv(out=LATENT_CHANNELS),
    )  # fmt: skip


def make_decoder() -> nn.Sequential:
    """(n, 32, height, width) to (n, 3, 8 height, 8 width), about [0, 1]; clip it."""
    return nn.Sequential(
        SoftClamp(), _conv(LATENT_CHANNELS), nn.ReLU(), *_blocks(3, pooled=True),
        nn.Upsample(scale_factor=2), _conv(bias=False), *_blocks(3),
        nn.Upsample(scale_factor=2), _conv(bias=False), *_blocks(3),
        nn.Upsample(scale_factor=2), _conv(bias=False), Block(), _conv(out=3),
    )  # fmt: skip


def read_half(folder: Path, half: Literal["encoder", "decoder"]) -> nn.Sequential:
    """One half with its weights from ``taef2_<half>.safetensors`` or ``.pth``, in float32, frozen.

    Raises:
        ConfigError: neither file is there, or it holds other tensors.
    """
    from safetensors.torch import load_file

    model = make_encoder() if half == "encoder" else make_decoder()
    safe, plain = (folder / f"taef2_{half}.{ending}" for ending in ("safetensors", "pth"))
    if safe.is_file():
        state = load_file(safe)
    elif plain.is_file():
        state = torch.load(plain, map_location="cpu", weights_only=True)
    else:
        raise ConfigError(
            f"found neither {safe.name} nor {plain.name} in {folder}, expected the tiny autoencoder there"
        )
    expected = model.state_dict()
    if {k: v.shape for k, v in state.items()} != {k: v.shape for k, v in expected.items()}:
        raise ConfigError(f"the weights in {folder} are not those of taef2; download them again")
    model.load_state_dict({name: value.float() for name, value in state.items()})
    return model.eval().requires_grad_(False)


class Taef2Config(PretrainedSettings):
    """Settings of the tiny autoencoder; ``part`` holds ``taef2_encoder.pth`` or ``.safetensors``."""

    reads_frames: ClassVar[bool] = True
    name: Literal["taef2"] = "taef2"
    target: str = "latents"

    def spec(self, dataset: Dataset) -> TensorSpec:
        """(frames, 32, height / 8, width / 8)."""
        num_frames, height, width, _ = frames_spec(dataset).shape
        if height % FACTOR or width % FACTOR:
            raise ConfigError(f"found frames of {height} x {width}, expected multiples of {FACTOR}; ingest them so")
        shape = (num_frames, LATENT_CHANNELS, height // FACTOR, width // FACTOR)
        return TensorSpec("float16", shape, "frames channels height width", UNIT)

    def build(self, device: torch.device | str) -> "Taef2":
        """Load the encoder half."""
        return Taef2(read_half(self.folder, "encoder").to(device, self.dtype), torch.device(device), self.dtype)


class Taef2:
    """The encoder half, frame by frame."""

    def __init__(self, model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        self._model, self._device, self._dtype = model, device, dtype

    def encode(self, frames: NDArray[np.uint8], captions: Sequence[str]) -> NDArray[np.float16]:
        """(rows, frames, height, width, 3) to (rows, frames, 32, height / 8, width / 8)."""
        return by_frame(frames, "all", self._encoded, self._device, together=PICTURES_TOGETHER)

    def _encoded(self, pictures: Tensor) -> Tensor:
        return self._model((pictures.float() / 255).to(self._dtype))


def _conv(into: int = WIDTH, out: int = WIDTH, *, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(into, out, 3, stride, padding=1, bias=bias)


def _blocks(number: int, *, pooled: bool = False) -> list[Block]:
    return [Block(pooled=pooled) for _ in range(number)]
