"""Caption metrics as metrics of reconstructions."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cineray.training.pictures.bank import Pairing
from cineray.training.pictures.base import Networks, Values, VideoMetric, rows_cosine
from cineray.training.pictures.captions import (
    bleu1,
    bleu4,
    cider,
    meteor,
    meteor_stem,
    rouge1,
    rouge_l,
    wordnet_missing,
)
from cineray.training.pictures.verbs import tagger_missing, verb_accuracy

__all__ = ["TEXT_METRICS"]

CAPTIONER = ("captioner",)
"""The baseline of captions: what a captioner says of the true stimulus, where the data set holds that."""


def _caption(name: str, meaning: str, values: Values, **settings: Any) -> VideoMetric:
    meaning = f"{meaning}, decoded against true caption"
    return VideoMetric(f"caption_{name}", meaning, "text", values, baselines=CAPTIONER, **settings)


def _words(name: str, meaning: str, function: Callable[[str, str], float], **settings: Any) -> VideoMetric:
    def values(pairing: Pairing, networks: Networks) -> NDArray[np.float64]:
        return pairing.each(function, pairing.predicted.captions, pairing.truth.captions)

    return _caption(name, meaning, values, **settings)


def _embedded(name: str, role: str, source: str) -> VideoMetric:
    def values(pairing: Pairing, networks: Networks) -> NDArray[np.float64]:
        return pairing.each(rows_cosine, *(b.by_caption(networks[role]) for b in (pairing.predicted, pairing.truth)))

    return _caption(name, f"cosine of sentence embeddings (published with {source})", values, needs=(role,))


def _cider(pairing: Pairing, networks: Networks) -> NDArray[np.float64]:
    """Rarity is counted among the true captions of what the subject saw."""
    truths = pairing.truth.captions
    pairs = list(zip(pairing.rows.tolist(), pairing.own.tolist(), strict=True))
    return cider(pairing.predicted.captions, truths, [truths[int(k)] for k in pairing.pool], pairs)


TEXT_METRICS = (
    _words("meteor", "words, stems and synonyms in order", meteor, missing=wordnet_missing),
    _words("meteor@stem", "words and stems in order, without WordNet's synonyms", meteor_stem),
    _words("rouge1", "F of shared words", rouge1),
    _words("rougeL", "F of the longest common subsequence of words", rouge_l),
    _words("bleu1", "precision of words", bleu1),
    _words("bleu4", "precision of up to four words in a row, sentence by sentence", bleu4),
    _caption("cider", "CIDEr-D, agreement of rare words, 0 to 10", _cider, min_clips=2),
    _words("verb", "share of the true caption's verbs, auxiliaries left out", verb_accuracy, missing=tagger_missing),
    _embedded("minilm", "minilm", "all-MiniLM-L6-v2"),
    _embedded("clip_b", "clip_b_text", "CLIP ViT-B/32"),
    _embedded("clip_l", "clip_l_text", "CLIP ViT-L/14"),
)
