"""The decoder that sets the ceiling reads pictures as the generator does, and decodes as well as the noise lets it."""

import importlib.util
import math
import sys

import numpy as np
import pytest

from cineray.core.errors import DataError
from cineray.datasets.sources.synthetic import SyntheticConfig
from conftest import REPOSITORY

SMALL = {"num_subjects": 2, "minutes": 1.0, "test_minutes": 5.0, "fps": 2, "frame_px": 16, "seed": 1}


@pytest.fixture(scope="module")
def decoder():
    """Benchmarks lie outside the packages, so the file is loaded by its path."""
    path = REPOSITORY / "benchmarks" / "known_parameter_decoder.py"
    spec = importlib.util.spec_from_file_location("known_parameter_decoder", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.mark.parametrize(("noise", "low", "high"), [(0.0, 0.99, 1.0), (1.0, 0.5, 0.9), (20.0, 0.0, 0.1)])
def test_the_ceiling_follows_the_noise(decoder, noise, low, high):
    found = decoder.ceiling(SyntheticConfig.parse(SMALL | {"noise": noise}))
    assert set(found) == {"sub-01", "sub-02"}
    assert all(low <= top1 <= high for top1 in found.values()), found


def test_it_reads_the_pictures_as_the_generator_does(decoder):
    source = SyntheticConfig.parse(SMALL | {"test_minutes": 2.0, "frame_px": 32, "fps": 8})
    units = decoder.scene_units(source, "test")
    np.testing.assert_allclose(units.reshape(-1, 44), source.simple("test"), atol=5e-4)


def test_it_expects_the_brain_that_was_measured(decoder):
    """Its evoked scans, laid one after another, add up to a noiseless recording."""
    source = SyntheticConfig.parse(SMALL | {"noise": 0.0, "num_subjects": 1, "test_minutes": 2.0})
    person = decoder._Person.of(source.brain("sub-01"))
    evoked = person.evoked(decoder.scene_units(source, "test"), source.scan_frames)
    (run,) = (r for r in source.recordings() if r.run.startswith("test"))
    units = np.zeros((len(run.brain) + evoked.shape[1], evoked.shape[2]))
    for scene, response in enumerate(evoked):
        units[scene : scene + len(response)] += response
    expected = 100 + units[: len(run.brain)] @ source.brain("sub-01").mixture.T
    np.testing.assert_allclose(run.brain, expected, atol=2e-3)


def test_top1_is_the_share_of_draws_in_which_no_other_wins(decoder):
    scores = np.random.default_rng(0).normal(size=(12, 12)) + 2 * np.eye(12)
    found = decoder.top1(scores, 5)
    for row, probability in enumerate(found):
        worse = int((np.delete(scores[row], row) < scores[row, row]).sum())
        assert probability == pytest.approx(math.comb(worse, 4) / math.comb(11, 4))
    assert decoder.top1(scores, 12).tolist() == [float(scores[row].argmax() == row) for row in range(12)]
    np.testing.assert_allclose(decoder.top1(scores, 2).mean(), 1 - (scores > np.diag(scores)[:, None]).sum() / 132)


def test_too_short_a_run_is_one_sentence(decoder):
    with pytest.raises(DataError, match=r"a test run has 15 scenes, expected at least 50; .*"):
        decoder.ceiling(SyntheticConfig.parse(SMALL | {"test_minutes": 1.0}))
