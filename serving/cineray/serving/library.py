"""The stimuli a run was trained on: the only ones whose pictures and captions a reconstruction may use."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cineray.core.errors import ConfigError, DataError
from cineray.datasets.dataset import Dataset
from cineray.datasets.examples import Examples
from cineray.datasets.split import SplitConfig, make_split
from cineray.datasets.view import ViewConfig

__all__ = ["Library"]

AXES = "frames height width channels"

CHUNK = 512
"""Stimuli whose tokens are compared together: at CLIP's 256 x 1664 this is under a gigabyte."""


@dataclass(frozen=True)
class Library:
    """Training stimuli with their tokens, in memory as they are stored; frames are read when asked for."""

    dataset: Dataset
    split: SplitConfig
    """Whose training set this is."""
    target: str
    """Target of the data set that holds the frames."""
    rows: NDArray[np.int64]
    """(clips,) stimulus rows, ascending: shown in training, and never in validation or test."""
    tokens: NDArray[np.floating]
    """(clips, tokens, dim)."""
    mean: Tensor
    """(tokens · dim,) of ``tokens``."""

    @classmethod
    def of(cls, dataset: Dataset, view: ViewConfig, tokens: str, frames: str) -> Self:
        """The training stimuli of a run's view, with a target ``tokens`` (dim or tokens x dim) and a target of frames.

        Raises:
            ConfigError: the data set lacks one of the two targets.
        """
        specs = dataset.target_specs
        for name in (tokens, frames):
            if name not in specs:
                raise ConfigError(
                    f"{dataset.store.url} has no target '{name}', it has {', '.join(specs) or 'none'}; "
                    "ingest it with its frames, or compute the target with `cineray features`"
                )
        if specs[frames].axes != AXES:
            raise ConfigError(f"target '{frames}' has axes '{specs[frames].axes}', expected '{AXES}'; name another")
        split = make_split(dataset, view.split, view.subjects, view.window)
        held_out = _stimuli(dataset, split.val) | _stimuli(dataset, split.test)
        rows = np.array(sorted(_stimuli(dataset, split.train) - held_out), np.int64)
        if not len(rows):
            raise DataError("every training stimulus is also a validation or test stimulus; keep some for training")
        values = dataset.gather_stimuli(tokens, rows)
        values = values.reshape(len(rows), -1, values.shape[-1])
        mean = torch.from_numpy(values.reshape(len(rows), -1).mean(0, dtype=np.float64)).float()
        return cls(dataset, view.split, frames, rows, values, mean)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, height and width of a clip."""
        frames, height, width, _ = self.dataset.target_specs[self.target].shape
        return frames, height, width

    @property
    def fps(self) -> float:
        """Frames per second of the clips."""
        return self.shape[0] / float(self.dataset.stimuli(["length_s"])["length_s"].to_numpy()[self.rows[0]])

    def nearest(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(queries, tokens, dim) to the stimulus row most alike and its similarity, both (queries,).

        Alike is the cosine after the training mean is taken from both sides: raw CLIP tokens all point one way.
        """
        query = torch.nn.functional.normalize(tokens.flatten(1).cpu().float() - self.mean, dim=1)
        parts = [self._centred(first) @ query.T for first in range(0, len(self.rows), CHUNK)]
        similarity, at = torch.cat(parts).max(0)
        return torch.from_numpy(self.rows)[at], similarity

    def frames(self, row: int) -> NDArray[np.uint8]:
        """(frames, height, width, 3) of one stimulus row."""
        self._check(row)
        return self.dataset.gather_stimuli(self.target, np.array([row]))[0]

    def caption(self, row: int) -> str:
        """What the data set says of one stimulus row."""
        self._check(row)
        return self.dataset.stimuli(["caption"])["caption"][row].as_py()

    def _centred(self, first: int) -> Tensor:
        part = torch.from_numpy(self.tokens[first : first + CHUNK]).flatten(1).float()
        return torch.nn.functional.normalize(part - self.mean, dim=1)

    def _check(self, row: int) -> None:
        assert self.rows[np.searchsorted(self.rows, row) % len(self.rows)] == row, "not a training stimulus"


def _stimuli(dataset: Dataset, examples: Examples) -> set[int]:
    return {int(row) for part in examples.chunks() for row in dataset.gather_stimulus_rows(examples.rows(part))}
