"""Agreement of words: ROUGE and BLEU through torchmetrics, METEOR through nltk, CIDEr-D by its formula."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import nltk
import numpy as np
from nltk.stem.porter import PorterStemmer
from nltk.tokenize import NLTKWordTokenizer
from nltk.translate.meteor_score import single_meteor_score
from numpy.typing import NDArray
from torchmetrics.functional.text import bleu_score, rouge_score

__all__ = ["NO_WORDNET", "bleu1", "bleu4", "cider", "meteor", "meteor_stem", "rouge1", "rouge_l", "wordnet_missing"]

NO_WORDNET = "nltk finds no WordNet here; fetch it with `python -m nltk.downloader wordnet`, or read @stem beside it"
CIDER_SIGMA = 6.0
"""Words by which lengths may differ before the agreement falls."""
MAX_NGRAM = 4


def rouge1(predicted: str, truth: str) -> float:
    """F-measure of shared words (Lin 2004)."""
    return float(rouge_score(predicted, truth, rouge_keys="rouge1")["rouge1_fmeasure"])


def rouge_l(predicted: str, truth: str) -> float:
    """F-measure of the longest common subsequence of words (Lin 2004)."""
    return float(rouge_score(predicted, truth, rouge_keys="rougeL")["rougeL_fmeasure"])


def bleu1(predicted: str, truth: str) -> float:
    """Precision of words with a penalty for short sentences (Papineni et al. 2002), one sentence at a time."""
    return float(bleu_score([predicted], [[truth]], n_gram=1))


def bleu4(predicted: str, truth: str) -> float:
    """The same of runs of up to four words, geometric mean, not smoothed: 0 where no four words in a row agree."""
    return float(bleu_score([predicted], [[truth]], n_gram=4))


def meteor(predicted: str, truth: str, synonyms: Any = None) -> float:
    """Aligned words, equal, of one stem or synonyms, with a penalty for fragments (Lavie & Agarwal 2007).

    Weights .9, 3 and .5 as in the package ``evaluate``, which MindEye2 uses. Like that one, nltk asks WordNet for the
    stems of words that are left, so that some synonyms are missed.

    Args:
        predicted: one sentence.
        truth: one sentence.
        synonyms: has ``synsets(word)`` as nltk's reader of WordNet, which is taken where it is None.
    """
    words = NLTKWordTokenizer()
    return single_meteor_score(
        words.tokenize(truth), words.tokenize(predicted), stemmer=PorterStemmer(),
        wordnet=nltk.corpus.wordnet if synonyms is None else synonyms,
    )  # fmt: skip


class _NoSynonyms:
    def synsets(self, word: str) -> list[Any]:
        return []


def meteor_stem(predicted: str, truth: str) -> float:
    """`meteor` without synonyms, which takes no WordNet: never above it."""
    return meteor(predicted, truth, _NoSynonyms())


def wordnet_missing() -> str | None:
    """Why `meteor` cannot be computed here; None if it can."""
    for place in ("corpora/wordnet.zip", "corpora/wordnet"):
        try:
            nltk.data.find(place)
        except LookupError:
            continue
        return None
    return NO_WORDNET


def cider(
    predicted: Sequence[str], truth: Sequence[str], corpus: Sequence[str], own: Sequence[tuple[int, int]]
) -> NDArray[np.float64]:
    """CIDEr-D (Vedantam et al. 2015), one reference each: agreement of runs of words, the more the rarer they are.

    Args:
        predicted: sentences.
        truth: sentences.
        corpus: sentences in which the rarity of runs of words is counted; with one alone every score is 0.
        own: pairs (number of the predicted sentence, of the true one).

    Returns:
        (pairs,) 0 to 10. The longer sentence is penalised and repeating a word brings nothing.
    """
    found_in = Counter(gram for sentence in corpus for gram in _grams(sentence))
    rarity = {gram: np.log(len(corpus) / num) for gram, num in found_in.items()}
    ours, theirs = ([_tf_idf(_grams(s), rarity, np.log(len(corpus))) for s in side] for side in (predicted, truth))
    return np.array([_cider(ours[i], theirs[j]) for i, j in own])


Vector = dict[tuple[str, ...], float]


def _grams(sentence: str) -> Counter[tuple[str, ...]]:
    """Runs of one to four words, lower case, without punctuation."""
    words = [w for w in NLTKWordTokenizer().tokenize(sentence.lower()) if any(map(str.isalnum, w))]
    return Counter(tuple(words[i : i + n]) for n in range(1, MAX_NGRAM + 1) for i in range(len(words) - n + 1))


def _tf_idf(grams: Counter[tuple[str, ...]], rarity: Vector, unseen: float) -> tuple[list[Vector], int]:
    """Weights of the runs of each length, and how many runs of two words there are (the published length)."""
    weights = [
        {g: num * rarity.get(g, unseen) for g, num in grams.items() if len(g) == n + 1} for n in range(MAX_NGRAM)
    ]
    return weights, sum(num for g, num in grams.items() if len(g) == 2)


def _cider(ours: tuple[list[Vector], int], theirs: tuple[list[Vector], int]) -> float:
    fit = np.exp(-((ours[1] - theirs[1]) ** 2) / (2 * CIDER_SIGMA**2))
    cosines = []
    for p, t in zip(ours[0], theirs[0], strict=True):
        scale = np.sqrt(sum(x * x for x in p.values()) * sum(x * x for x in t.values()))
        cosines.append(sum(min(x, t.get(g, 0.0)) * t.get(g, 0.0) for g, x in p.items()) / scale if scale > 0 else 0.0)
    return float(10 * fit * np.mean(cosines))
