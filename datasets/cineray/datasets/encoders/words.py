"""The words of a caption: a light text embedding that needs no weights."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from cineray.core.config import Config
from cineray.core.errors import DataError
from cineray.datasets.dataset import Dataset
from cineray.datasets.schema import TensorSpec

__all__ = ["Words", "WordsConfig"]


class WordsConfig(Config):
    """Settings of the hashed bag of words (Weinberger et al. 2009, arXiv 0902.2206): one token of unit length.

    Captions that share words are alike; that words are alike it does not know.
    """

    reads_frames: ClassVar[bool] = False
    version: ClassVar[int] = 1
    name: Literal["words"] = "words"
    target: str = "words"
    dim: int = Field(default=128, ge=2)
    """Places that words are hashed to; two words may share one."""

    def spec(self, dataset: Dataset) -> TensorSpec:
        """(1, dim)."""
        captions = dataset.stimuli(["caption"])["caption"].to_pylist()
        if not any(captions):
            raise DataError(f"no stimulus of {dataset.store.url} has a caption; choose an encoder that reads frames")
        return TensorSpec("float16", (1, self.dim), "tokens dim", "hashed words, unit length")

    def build(self, device: torch.device | str) -> "Words":
        """Nothing to load."""
        return Words(self.dim)


class Words:
    """Signed counts of words, scaled to unit length; zero where there is no word."""

    def __init__(self, dim: int) -> None:
        from sklearn.feature_extraction.text import HashingVectorizer  # a second of every start, for one encoder

        self._hashed = HashingVectorizer(n_features=dim, token_pattern=r"\w+")

    def encode(self, frames: NDArray[np.uint8], captions: Sequence[str]) -> NDArray[np.float16]:
        """A caption a row to (rows, 1, dim)."""
        return self._hashed.transform(captions).toarray()[:, None].astype(np.float16)
