"""AnimateDiff's motion layers from either form they are published in: a diffusers folder, or their weights alone."""

from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from cineray.core.errors import ConfigError
from cineray.core.pretrained import Part, locate
from cineray.serving.generators.parts import PRECISIONS, Precision, load

if TYPE_CHECKING:
    from diffusers import MotionAdapter

__all__ = ["V2", "load_motion"]

V2: dict[str, Any] = {"motion_max_seq_length": 32, "use_motion_mid_block": True}
"""Shape of the second version's layers, of which the distilled ones are made that come as weights alone."""


def load_motion(part: Part, *, device: torch.device, precision: Precision) -> "MotionAdapter":
    """The motion layers of a part; weights alone (AnimateDiff-Lightning, arXiv 2403.12706) have the shape `V2`.

    Raises:
        ConfigError: The part is missing, holds neither form, or weights of another shape.
    """
    from diffusers import MotionAdapter

    folder = locate(part)
    files = sorted(folder.glob("*.safetensors"))
    if (folder / "config.json").is_file() or len(files) != 1:
        return load(MotionAdapter, part, device=device, precision=precision)
    with torch.device("meta"):
        layers: Any = MotionAdapter(**V2)
    try:
        layers.load_state_dict(load_file(files[0]), assign=True)
    except RuntimeError as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"{files[0]} does not fit AnimateDiff's motion layers, version 2: {text:.200}") from error
    return layers.to(device=device, dtype=PRECISIONS[precision]).eval().requires_grad_(False)
