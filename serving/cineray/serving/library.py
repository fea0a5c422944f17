"""The stimuli a run was trained on: the only ones whose pictures and captions a reconstruction may use."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
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

__all__ = ["Index", "Library"]

AXES = "frames height width channels"

CHUNK = 512
"""Stimuli whose tokens are compared together: at CLIP's 256 x 1664 this is under a gigabyte."""

EQUAL = 1e-6
"""Similarities closer than this differ by rounding."""


@dataclass(frozen=True)
class Index:
    """Vectors of the training stimuli, as they are stored, and how alike others are to them."""

    read: Callable[[], NDArray[np.floating]]
    """(clips, ...); called when something is first compared, for not every generator compares, and CLIP's tokens of
    27,000 pictures are 23 GB."""

    @cached_property
    def values(self) -> NDArray[np.floating]:
        """(clips, dim)."""
        values = self.read()
        return values.reshape(len(values), -1)

    @cached_property
    def mean(self) -> Tensor:
        """(dim,) of the different vectors among them: what half of the clips have in common must not become the origin,
        from where a prediction that falls short of it looks like all the others."""
        rows = {hashlib.sha256(row.tobytes()).digest(): number for number, row in enumerate(self.values)}
        once = np.zeros(len(self.values), bool)
        once[list(rows.values())] = True
        return torch.from_numpy(self.values.mean(0, np.float64, where=once[:, None])).float()

    def similarity(self, queries: Tensor) -> Tensor:
        """(queries, ...) to (clips, queries): the cosine after the mean is taken from both sides.

        Raw CLIP tokens all point one way, and so do latents of one film.
        """
        query = self._unit(queries.flatten(1).cpu().float())
        parts = (torch.from_numpy(self.values[first : first + CHUNK]) for first in range(0, len(self.values), CHUNK))
        return torch.cat([self._unit(part.float()) @ query.T for part in parts])

    def _unit(self, values: Tensor) -> Tensor:
        return torch.nn.functional.normalize(values - self.mean, dim=1)


@dataclass(frozen=True)
class Library:
    """Training stimuli; everything of them is read when it is asked for, tokens and latents once."""

    dataset: Dataset
    split: SplitConfig
    """Whose training set this is."""
    target: str
    """Target of the data set that holds the frames."""
    rows: NDArray[np.int64]
    """(clips,) stimulus rows, ascending: shown in training, and never in validation or test."""
    tokens: Index
    """What is seen in each."""
    latents: Index | None = None
    """Where it is; None where nobody compares it."""

    @classmethod
    def of(cls, dataset: Dataset, view: ViewConfig, tokens: str, frames: str, latents: str | None = None) -> Self:
        """The training stimuli of a run's view, by its targets ``tokens``, ``frames`` and ``latents``.

        Raises:
            ConfigError: the data set lacks one of the targets.
        """
        specs = dataset.target_specs
        for name in (tokens, frames, *([latents] if latents else [])):
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
        indices = [Index(partial(dataset.gather_stimuli, name, rows)) for name in (tokens, latents) if name]
        return cls(dataset, view.split, frames, rows, *indices)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, height and width of a clip."""
        frames, height, width, _ = self.dataset.target_specs[self.target].shape
        return frames, height, width

    @property
    def fps(self) -> float:
        """Frames per second of the clips."""
        return self.shape[0] / float(self.dataset.stimuli(["length_s"])["length_s"].to_numpy()[self.rows[0]])

    def nearest(
        self, tokens: Tensor, latents: Tensor | None = None, weight: float = 1.0, seeds: Sequence[int] = ()
    ) -> tuple[Tensor, Tensor]:
        """(queries, tokens, dim) to the stimulus row most alike and its similarity, both (queries,).

        ``latents`` (queries, frames, channels, height, width) have a say of ``weight`` beside the tokens' 1; the
        similarity is then the weighted mean of the two. Of stimuli that are equally alike (clips of one caption have
        the same words) the query's seed draws one, or the first is taken where there are no ``seeds``: that is how a
        film begins, and so no fair sample of it.
        """
        similarity = self.tokens.similarity(tokens)
        if latents is not None:
            if self.latents is None:
                raise DataError("the training stimuli were read without latents, expected Library.of(..., latents=…)")
            similarity = (similarity + weight * self.latents.similarity(latents)) / (1 + weight)
        best, at = similarity.max(0)
        for query, seed in enumerate(seeds):
            equal = torch.nonzero(similarity[:, query] >= best[query] - EQUAL)[:, 0]
            at[query] = equal[np.random.default_rng(seed).integers(len(equal))]
        return torch.from_numpy(self.rows)[at], best

    def frames(self, row: int) -> NDArray[np.uint8]:
        """(frames, height, width, 3) of one stimulus row."""
        self._check(row)
        return self.dataset.gather_stimuli(self.target, np.array([row]))[0]

    def caption(self, row: int) -> str:
        """What the data set says of one stimulus row."""
        self._check(row)
        return self.dataset.stimuli(["caption"])["caption"][row].as_py()

    def _check(self, row: int) -> None:
        assert self.rows[np.searchsorted(self.rows, row) % len(self.rows)] == row, "not a training stimulus"


def _stimuli(dataset: Dataset, examples: Examples) -> set[int]:
    return {int(row) for part in examples.chunks() for row in dataset.gather_stimulus_rows(examples.rows(part))}
