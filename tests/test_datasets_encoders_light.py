"""Encoders that need no weights, against counting by hand."""

from dataclasses import replace

import numpy as np
import pytest

from cineray.core.errors import ConfigError, DataError
from cineray.datasets.dataset import Dataset
from cineray.datasets.encoders.gradients import GradientsConfig
from cineray.datasets.encoders.words import WordsConfig
from cineray.datasets.ingest import ingest
from clips import ClipSource


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "set"
    ingest(ClipSource(clips=3), path)
    return Dataset.open(path)


class Silent(ClipSource):
    """Clips without captions."""

    def stimuli(self):
        return (replace(stimulus, caption="") for stimulus in super().stimuli())


def encoded(*captions):
    return WordsConfig().build("cpu").encode(np.empty((len(captions), 0, 0, 0, 3), np.uint8), captions)[:, 0]


def test_captions_are_as_alike_as_the_words_they_share():
    one, same, half, other = encoded("red circle moves", "moves, red CIRCLE", "red circle stays", "blue bar falls")
    assert one @ one == pytest.approx(1, abs=2e-3)
    np.testing.assert_array_equal(one, same)
    assert one @ half == pytest.approx(2 / 3, abs=2e-3)
    assert one @ other == pytest.approx(0, abs=2e-3)
    assert not encoded("").any()


def test_stripes_point_where_they_run_and_colours_are_means():
    """Vertical stripes have horizontal gradients only: the first of an even number of orientations."""
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::4] = stripes[:, 1::4] = (255, 0, 0)
    clip = np.stack([stripes, stripes.transpose(1, 0, 2)])[None]
    for frame, bin_ in ((0, 0), (1, 2)):
        tokens = GradientsConfig(cells=2, orientations=4, frame=frame).build("cpu").encode(clip, [""])[0]
        assert tokens.shape == (5, 7)
        np.testing.assert_array_equal(tokens[:4, :4].argmax(1), bin_)
        assert np.abs(np.delete(tokens[:4, :4], bin_, axis=1)).max() < 1e-3
        np.testing.assert_allclose(tokens[:, 4:], [[0, -1, -1]] * 5, atol=2e-3)
        np.testing.assert_allclose(tokens[4], tokens[:4].astype(float).mean(0), atol=2e-3)


def test_what_does_not_fit_is_one_sentence(dataset, tmp_path):
    with pytest.raises(ConfigError, match=r"found frames of .* expected 128 pixels a side for cells=64; lower cells"):
        GradientsConfig(cells=64).spec(dataset)
    ingest(Silent(clips=3), tmp_path / "dumb")
    with pytest.raises(DataError, match=r"no stimulus of .* has a caption; choose an encoder that reads frames"):
        WordsConfig().spec(Dataset.open(tmp_path / "dumb"))
