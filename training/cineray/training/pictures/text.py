"""Caption metrics as metrics of reconstructions."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cineray.training.pictures.bank import Pairing
from cineray.training.pictures.base import Networks, VideoMetric
from cineray.training.pictures.captions import bleu1, rouge1, rouge_l

__all__ = ["TEXT_METRICS"]


def _caption(name: str, meaning: str, function: Callable[[str, str], float]) -> VideoMetric:
    def values(pairing: Pairing, networks: Networks) -> NDArray[np.float64]:
        return pairing.each(function, pairing.predicted.captions, pairing.truth.captions)

    return VideoMetric(name, f"{meaning}, decoded against true caption", "text", values, baselines=())


TEXT_METRICS = (
    _caption("caption_rouge1", "F of shared words", rouge1),
    _caption("caption_rougeL", "F of the longest common subsequence of words", rouge_l),
    _caption("caption_bleu1", "precision of words", bleu1),
)
