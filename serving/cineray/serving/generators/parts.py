"""Loading pretrained parts into diffusers and transformers classes, from local folders and safetensors only."""

import json
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from cineray.core.errors import ConfigError
from cineray.core.pretrained import Part, locate
from cineray.datasets.encoders.loading import load_whole

__all__ = ["PRECISIONS", "Precision", "class_name", "load", "part_folder"]

T = TypeVar("T")

Precision = Literal["float32", "float16", "bfloat16"]
PRECISIONS: dict[str, torch.dtype] = {n: getattr(torch, n) for n in ("float32", "float16", "bfloat16")}


def part_folder(part: Part, subfolder: str = "", *, wanted: str = "config.json") -> Path:
    """The folder of a component; the error names the part, the component and the file that is not there."""
    folder = locate(part) / subfolder
    if not (folder / wanted).is_file():
        inside = f"{subfolder}/{wanted}" if subfolder else wanted
        raise ConfigError(
            f"the pretrained part {part.label} holds no {inside}, expected a folder as `save_pretrained` writes it; "
            "verify it with `cineray models verify`"
        )
    return folder


def class_name(folder: Path) -> str:
    """The class that a diffusers folder's weights belong to."""
    return str(json.loads((folder / "config.json").read_text(encoding="utf-8")).get("_class_name", ""))


def load(cls: type[T], part: Part, subfolder: str = "", *, device: torch.device, precision: Precision = "float32") -> T:
    """A frozen model of class ``cls`` in evaluation mode, on its device.

    Raises:
        ConfigError: The part is missing, of another class, or its weights do not fit it.
    """
    from diffusers import ModelMixin

    folder = part_folder(part, subfolder)
    found = class_name(folder)
    if found and found != cls.__name__:
        raise ConfigError(f"the pretrained part {part.label} ({folder}) is a {found}, expected a {cls.__name__}")
    settings: dict[str, Any] = {"use_safetensors": True}
    if issubclass(cls, ModelMixin):  # of diffusers; its other way of loading needs a library more
        settings |= {"torch_dtype": PRECISIONS[precision], "low_cpu_mem_usage": False}
    else:
        settings["dtype"] = PRECISIONS[precision]
    try:
        model = load_whole(cls, folder, **settings)
    except (OSError, ValueError, RuntimeError) as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"the pretrained part {part.label} ({folder}) does not load: {text:.200}") from error
    return model.to(device=device).eval().requires_grad_(False)
