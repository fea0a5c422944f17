"""Verbs of captions: nltk's own tagger, trained on a few sentences and read back from its usual place."""

import nltk
import numpy as np
import pytest
from nltk.tag.perceptron import PerceptronTagger

from cineray.training.pictures import VIDEO_METRICS, verbs
from cineray.training.pictures.bank import Bank, Pairing
from cineray.training.pictures.verbs import verb_accuracy

TAGGED = """
a/DT dog/NN is/VBZ running/VBG on/IN grass/NN
a/DT dog/NN runs/VBZ on/IN the/DT grass/NN
a/DT man/NN plays/VBZ a/DT red/JJ guitar/NN
a/DT man/NN is/VBZ playing/VBG and/CC singing/VBG
two/CD cats/NNS are/VBP sitting/VBG on/IN a/DT mat/NN
a/DT bee/NN collecting/VBG nectar/NN from/IN a/DT pink/JJ flower/NN
two/CD flowers/NNS with/IN green/JJ leaves/NNS
"""


@pytest.fixture
def tagger(monkeypatch, tmp_path):
    """The place of a download holds a tagger that knows the sentences above."""
    sentences = [[tuple(pair.split("/")) for pair in line.split()] for line in TAGGED.strip().splitlines()]
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    made = PerceptronTagger(load=False)
    made.train(sentences * 20, nr_iter=20)
    (tmp_path / "taggers").mkdir()
    made.save_to_json("eng", str(tmp_path / "taggers" / verbs.DATA))
    verbs._tagger.cache_clear()
    yield
    verbs._tagger.cache_clear()


@pytest.mark.usefixtures("tagger")
def test_verbs_by_hand():
    assert verbs.verbs("a man is playing and singing") == {"play", "sing"}, "auxiliaries are no action"
    assert verb_accuracy("a dog runs on the grass", "A dog is running on grass") == 1
    assert verb_accuracy("a man plays a red guitar", "a man is playing and singing") == 1 / 2
    assert verb_accuracy("two flowers with green leaves", "two cats are sitting on a mat") == 0
    assert np.isnan(verb_accuracy("a dog runs on the grass", "two flowers with green leaves")), "no action is shown"


@pytest.mark.usefixtures("tagger")
def test_a_caption_of_wrong_clips_has_other_verbs():
    metric = VIDEO_METRICS["caption_verb"]
    assert metric.missing() is None
    predicted = Bank([], ["a dog runs on the grass", "a man plays a red guitar"])
    truth = Bank([], ["a dog is running on grass", "a man is playing and singing"])
    both = np.arange(2)
    own, wrong = (metric.values(Pairing(predicted, truth, both, beside, both, 3.0), {}) for beside in (both, 1 - both))
    assert own.tolist() == [1, 1 / 2]
    assert wrong.tolist() == [0, 0]


def test_without_the_tagger_the_metric_is_absent_and_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    assert "no tagger of English" in (VIDEO_METRICS["caption_verb"].missing() or "")
