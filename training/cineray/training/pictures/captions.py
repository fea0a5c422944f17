"""Agreement of words, through torchmetrics. METEOR needs a thesaurus that cannot be shipped and is left out."""

from torchmetrics.functional.text import bleu_score, rouge_score

__all__ = ["bleu1", "rouge1", "rouge_l"]


def rouge1(predicted: str, truth: str) -> float:
    """F-measure of shared words (Lin 2004)."""
    return float(rouge_score(predicted, truth, rouge_keys="rouge1")["rouge1_fmeasure"])


def rouge_l(predicted: str, truth: str) -> float:
    """F-measure of the longest common subsequence of words (Lin 2004)."""
    return float(rouge_score(predicted, truth, rouge_keys="rougeL")["rougeL_fmeasure"])


def bleu1(predicted: str, truth: str) -> float:
    """Precision of words with a penalty for short sentences (Papineni et al. 2002), one sentence at a time."""
    return float(bleu_score([predicted], [[truth]], n_gram=1))
