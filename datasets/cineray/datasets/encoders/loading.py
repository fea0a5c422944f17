"""Pretrained weights, all of them or none: the libraries fill what is missing with chance and only log it."""

from pathlib import Path
from typing import Any

from cineray.core.errors import ConfigError

__all__ = ["load_open_clip", "load_whole"]


def load_whole(kind: Any, folder: Path, **settings: Any) -> Any:
    """``kind.from_pretrained(folder)`` of diffusers or transformers, every tensor out of the folder.

    Raises:
        ConfigError: the folder lacks a tensor of the class, or holds one of another shape.
    """
    model, found = kind.from_pretrained(folder, output_loading_info=True, local_files_only=True, **settings)
    lacking = sorted(map(str, [*found["missing_keys"], *found["mismatched_keys"]]))
    if lacking:
        raise ConfigError(
            f"{folder} has no fitting weights for '{lacking[0]}' of {type(model).__name__} ({len(lacking)} such "
            "tensors), expected all of them; take a folder with the weights of this very class"
        )
    return model


def load_open_clip(folder: Path) -> Any:
    """The model of a folder in OpenCLIP's layout.

    Raises:
        ConfigError: the folder holds no weights, or other ones.
    """
    import open_clip

    try:
        return open_clip.create_model(f"local-dir:{folder}", device="cpu", require_pretrained=True)
    except RuntimeError as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"{folder} holds no whole OpenCLIP model ({text:.200}); pull it again") from error
