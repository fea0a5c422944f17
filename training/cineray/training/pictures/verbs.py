"""Agreement of actions: which verbs of the true caption the decoded one has too."""

from functools import cache

import nltk
from nltk.stem.porter import PorterStemmer
from nltk.tag.perceptron import PerceptronTagger
from nltk.tokenize import NLTKWordTokenizer

__all__ = ["NO_TAGGER", "tagger_missing", "verb_accuracy", "verbs"]

DATA = "averaged_perceptron_tagger_eng"
NO_TAGGER = f"nltk finds no tagger of English words here; fetch it with `python -m nltk.downloader {DATA}`"
AUXILIARIES = {
    "be", "am", "is", "are", "was", "were", "been", "being", "'s", "'re", "'m",
    "have", "has", "had", "having", "'ve", "'d", "do", "does", "did", "done", "doing",
}  # fmt: skip
"""They say nothing of an action, and nearly every two captions would share one."""


def verb_accuracy(predicted: str, truth: str) -> float:
    """Share of the verbs of the true caption that the decoded one has; NaN where the true one has none.

    NEURONS (arXiv 2503.11167) publishes a "verb accuracy" of captions, but its repository does not hold the code: this
    is the idea, and the values do not compare. A caption that lists many verbs is not punished, but beside wrong clips
    it scores as high.
    """
    true = verbs(truth)
    return len(true & verbs(predicted)) / len(true) if true else float("nan")


def verbs(sentence: str) -> set[str]:
    """Stems (Porter 1980) of what nltk's averaged perceptron tags as a verb, auxiliaries left out.

    One stem for regular forms alone: "rides" and "riding" agree, "rode" and "riding" do not.
    """
    tagged = _tagger().tag(NLTKWordTokenizer().tokenize(sentence.lower()))
    return {PorterStemmer().stem(word) for word, tag in tagged if tag.startswith("VB") and word not in AUXILIARIES}


def tagger_missing() -> str | None:
    """Why verbs cannot be found here; None if they can."""
    try:
        nltk.data.find(f"taggers/{DATA}")
    except LookupError:
        return NO_TAGGER
    return None


@cache
def _tagger() -> PerceptronTagger:
    return PerceptronTagger()
