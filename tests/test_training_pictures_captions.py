"""Caption metrics by their formulas, by hand, and by loops; and what stands in the table where a part is missing."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from cineray.training.backbones import TextBackbone
from cineray.training.pictures import VIDEO_METRICS, captions
from cineray.training.pictures.bank import Bank, Pairing
from cineray.training.pictures.captions import bleu1, bleu4, cider, meteor, meteor_stem, rouge1, rouge_l

PREDICTED = ["a dog runs on the green grass", "a man is playing a red guitar", "two cats sit on a mat"]
TRUTH = ["a brown dog is running on grass", "a man plays the guitar", "two cats are sitting on a mat"]


def test_words_by_hand():
    assert rouge1("a dog runs fast", "the dog runs away") == pytest.approx(0.5)
    assert rouge_l("dog a fast runs", "a dog runs fast") == pytest.approx(0.5)
    assert bleu1("the dog runs", "the dog sleeps") == pytest.approx(2 / 3)
    assert bleu4("x b c d e f", "a b c d e f") == pytest.approx(math.prod((5 / 6, 4 / 5, 3 / 4, 2 / 3)) ** 0.25)
    assert bleu4("a b x d", "a b c d") == 0


def lavie(matches: int, chunks: int, num_predicted: int, num_true: int) -> float:
    """Lavie & Agarwal 2007, section 2."""
    precision, recall = matches / num_predicted, matches / num_true
    mean = precision * recall / (0.9 * precision + 0.1 * recall)
    return mean * (1 - 0.5 * (chunks / matches) ** 3)


def test_meteor_by_its_formula():
    assert meteor_stem("the cat sat", "the cat sat") == pytest.approx(lavie(3, 1, 3, 3))
    assert meteor_stem("a dog runs", "a dog running fast") == pytest.approx(lavie(3, 1, 3, 4)), "of one stem"
    assert meteor_stem("sat the cat", "the cat sat") == pytest.approx(lavie(3, 2, 3, 3)), "two fragments"
    assert meteor_stem("nothing here", "the cat sat") == 0
    assert meteor_stem("A Dog.", "a dog .") == pytest.approx(lavie(3, 1, 3, 3)), "case and tokens"


class Thesaurus:
    """One entry: an automobile is a car. nltk asks for the stem."""

    def synsets(self, word):
        lemmas = [SimpleNamespace(name=lambda name=name: name) for name in ("car", "automobile")]
        return [SimpleNamespace(lemmas=lambda: lemmas)] if word == "automobil" else []


def test_synonyms_count_where_there_is_a_thesaurus():
    assert meteor("an automobile stops", "an car stops", Thesaurus()) == pytest.approx(lavie(3, 1, 3, 3))
    assert meteor_stem("an automobile stops", "an car stops") == pytest.approx(lavie(2, 2, 3, 3))


def test_meteor_without_wordnet_is_absent_and_says_so(monkeypatch):
    def lost(place):
        raise LookupError(place)

    monkeypatch.setattr(captions.nltk.data, "find", lost)
    assert "no WordNet" in (VIDEO_METRICS["caption_meteor"].missing() or "")
    assert VIDEO_METRICS["caption_meteor@stem"].missing() is None
    monkeypatch.setattr(captions.nltk.data, "find", lambda place: place)
    assert VIDEO_METRICS["caption_meteor"].missing() is None


def test_cider_by_loops_over_runs_of_words():
    def weights(sentence, n):
        words = sentence.split()
        grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
        num = {g: sum(any(tuple(t.split()[i : i + n]) == g for i in range(99)) for t in TRUTH) for g in grams}
        return {g: grams.count(g) * math.log(3 / max(1, num[g])) for g in grams}, len(words) - 1

    expected = []
    for p, t in zip(PREDICTED, TRUTH, strict=True):
        parts = []
        for n in (1, 2, 3, 4):
            (x, length), (y, other) = weights(p, n), weights(t, n)
            shared = sum(min(x[g], y[g]) * y[g] for g in x.keys() & y.keys())
            norm = math.hypot(*x.values()) * math.hypot(*y.values())
            parts.append(shared / norm * math.exp(-((length - other) ** 2) / 72) if norm else 0)
        expected.append(10 * np.mean(parts))
    pairs = [(k, k) for k in range(3)]
    np.testing.assert_allclose(cider(PREDICTED, TRUTH, TRUTH, pairs), expected)
    assert cider(TRUTH, TRUTH, TRUTH, pairs)[1:].min() > 9.9
    assert cider(["a a a a a"], TRUTH, TRUTH, [(0, 1)])[0] == 0, "a word of every caption says nothing"


def letters(sentences: list[str]):
    import torch

    return torch.tensor([[s.count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for s in sentences]).float()


@pytest.mark.parametrize("name", [name for name in VIDEO_METRICS if name.startswith("caption_")])
def test_captions_prefer_the_true_pairing(name):
    metric = VIDEO_METRICS[name]
    if metric.missing():
        assert name in ("caption_meteor", "caption_verb"), "verbs: test_training_pictures_verbs"
        return
    network = TextBackbone("letters", letters)
    roles: tuple[str, ...] = ("minilm", "clip_b_text", "clip_l_text")
    networks = dict.fromkeys(roles, network)
    every = np.arange(3)
    predicted, truth = Bank([], PREDICTED), Bank([], TRUTH)
    own, wrong, itself = (
        metric.values(Pairing(p, truth, every, beside, every, 3.0), networks).mean()
        for p, beside in ((predicted, every), (predicted, (every + 1) % 3), (truth, every))
    )
    assert itself >= own
    assert own > wrong or (name == "caption_bleu4" and own == wrong == 0)


def test_sentence_cosine_by_hand():
    network = TextBackbone("letters", letters)
    pairing = Pairing(Bank([], ["aab"]), Bank([], ["abb", "c"]), np.zeros(2, int), np.arange(2), np.arange(2), 3.0)
    found = VIDEO_METRICS["caption_minilm"].values(pairing, {"minilm": network})
    np.testing.assert_allclose(found, [4 / 5, 0])
