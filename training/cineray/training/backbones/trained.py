"""A small picture classifier that cineray trains itself, on the training stimuli and nothing else.

With it the semantic metrics work on data made from nothing. It is a weak judge of a small world: its scores compare
methods on one data set and say nothing beside published ones.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models import ShuffleNetV2

from cineray.core.config import Config
from cineray.core.content import Local
from cineray.core.errors import ConfigError, DataError
from cineray.datasets.dataset import Dataset
from cineray.training.backbones.base import IMAGENET, Backbone, as_pixels

__all__ = ["ClassifierConfig", "TrainedConfig", "labels_of", "train_classifier"]

WIDTHS = [16, 32, 64, 128, 128]


class ClassifierConfig(Config):
    """How the classifier is trained."""

    column: Literal["caption", "group", "film", "stimulus_id"] = "caption"
    """Column of the stimulus table that the class is read from."""
    pattern: str = "(.*)"
    """Regular expression; its groups, joined, are the class. A stimulus without a match is left out."""
    px: int = Field(default=64, ge=32)
    frames: int = Field(default=3, ge=1)
    """Frames taken of each stimulus, evenly spread."""
    steps: int = Field(default=200, ge=1)
    batch_size: int = Field(default=64, ge=2)
    lr: float = 3e-3
    seed: int = 0


class TrainedConfig(Config):
    """A classifier that `train_classifier` left in a folder: class scores, and the layer below them."""

    name: Literal["trained"] = "trained"
    folder: Local

    def build(self) -> Backbone:
        """Read ``classifier.json`` and ``classifier.safetensors``."""
        folder = Path(self.folder)
        if not (folder / "classifier.json").is_file():
            raise ConfigError(f"found no classifier.json in '{folder}', expected a folder that train_classifier wrote")
        about = json.loads((folder / "classifier.json").read_text(encoding="utf-8"))
        network = _network(len(about["classes"]))
        network.load_state_dict(load_file(folder / "classifier.safetensors"))
        return _backbone(network.eval(), about["config"]["px"], tuple(about["classes"]))


def labels_of(values: Sequence[str], pattern: str) -> list[str | None]:
    """The class of each value: the groups of ``pattern`` joined by a blank; None where it does not match.

    >>> labels_of(["a small red circle moves up", "rest"], r"(red|blue) (circle|star)")
    ['red circle', None]
    """
    found = (re.search(pattern, value) for value in values)
    return [" ".join(g for g in m.groups() if g) if m else None for m in found]


def train_classifier(
    dataset: Dataset, rows: NDArray[np.int64], folder: str | Path, config: ClassifierConfig
) -> dict[str, Any]:
    """Train on the frames of stimulus ``rows`` (training rows only) and write the folder; returns what its json holds.

    The accuracy it states is on the rows of training: how well the classes can be told, not a result.
    """
    values = dataset.stimuli([config.column])[config.column].to_pylist()
    labels = labels_of([values[row] for row in rows], config.pattern)
    rows = np.array([row for row, label in zip(rows, labels, strict=True) if label], np.int64)
    known = [label for label in labels if label]
    classes = sorted(set(known))
    if len(classes) < 2:
        raise DataError(
            f"pattern '{config.pattern}' on column '{config.column}' gives {len(classes)} classes, expected at least "
            "2; change the pattern or the column"
        )
    pictures, repeats = _pictures(dataset, rows, config)
    truth = torch.tensor([classes.index(label) for label in known]).repeat_interleave(repeats)
    network = _fit(pictures, truth, len(classes), config)
    scores = _backbone(network, config.px, tuple(classes))(pictures)["logits"]
    about = {
        "classes": classes,
        "config": config.model_dump(mode="json"),
        "data": dataset.fingerprint,
        "num_stimuli": len(rows),
        "training_accuracy": float((scores.argmax(1) == truth.numpy()).mean()),
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), folder / "classifier.safetensors")
    (folder / "classifier.json").write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")
    return about


def _pictures(dataset: Dataset, rows: NDArray[np.int64], config: ClassifierConfig) -> tuple[NDArray[np.uint8], int]:
    """(rows · frames, height, width, 3), and how many of each row."""
    num = dataset.target_specs["frames"].shape[0]
    moments = np.unique(np.linspace(0, num - 1, config.frames).round().astype(int))
    parts = [dataset.gather_stimuli("frames", rows[i : i + 64])[:, moments] for i in range(0, len(rows), 64)]
    pictures = np.concatenate(parts)
    return pictures.reshape(-1, *pictures.shape[2:]), len(moments)


def _fit(pictures: NDArray[np.uint8], truth: torch.Tensor, num_classes: int, config: ClassifierConfig) -> nn.Module:
    rng = np.random.default_rng(config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = _network(num_classes).train()
    optim = torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optim, config.lr, total_steps=config.steps)
    size = min(config.batch_size, len(pictures))
    for _ in range(config.steps):
        batch = rng.choice(len(pictures), size, replace=False)
        loss = nn.functional.cross_entropy(network(as_pixels(pictures[batch], config.px, IMAGENET)), truth[batch])
        optim.zero_grad()
        loss.backward()
        optim.step()
        schedule.step()
    return network.eval()


def _network(num_classes: int) -> ShuffleNetV2:
    return ShuffleNetV2([1, 2, 1], WIDTHS, num_classes)


def _backbone(network: nn.Module, px: int, classes: tuple[str, ...]) -> Backbone:
    below: list[torch.Tensor] = []
    network.fc.register_forward_pre_hook(lambda module, inputs: below.append(inputs[0]))

    def judge(pictures: NDArray[np.uint8]) -> dict[str, Any]:
        below.clear()
        return {"logits": network(as_pixels(pictures, px, IMAGENET)), "embedding": below[0]}

    return Backbone("classifier trained on the training stimuli", judge, len(classes), classes=classes)
