"""Features on Ray Data: the values of one process, parts shared out, failures in one sentence."""

from functools import partial

import numpy as np
import pytest

from cineray.core.errors import CinerayError, ConfigError
from cineray.datasets import extraction
from cineray.datasets.check import check
from cineray.datasets.dataset import Dataset
from cineray.datasets.encoders.pool import PoolConfig
from cineray.datasets.extraction import extract
from cineray.datasets.features import on_ray
from cineray.datasets.ingest import ingest
from clips import ClipSource, OddConfig, SlowConfig

SOURCE = ClipSource()
POOL = PoolConfig()


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(extraction, "group_rows", lambda num_bytes: 4)


@pytest.fixture
def folder(tmp_path):
    ingest(SOURCE, tmp_path / "set")
    return tmp_path / "set"


@pytest.mark.cluster
def test_on_ray_the_values_are_those_of_one_process(ray_cluster, folder, tmp_path):
    seen = []
    encoder = SlowConfig(log=str(tmp_path / "log"))
    extract(
        folder,
        encoder,
        workers=partial(on_ray, num_actors=2),
        progress=lambda parts, text, total: (seen.append((text, part, total)) or part for part in parts),
    )
    dataset = Dataset.open(folder)
    assert np.array_equal(dataset.gather_stimuli("slow", np.arange(10)), SlowConfig.values(SOURCE))
    assert sorted(seen) == [("slow, row groups", part, 3) for part in range(3)]
    assert sorted((tmp_path / "log").read_text().split()[1::2]) == ["0", "4", "8"]
    assert check(folder).good
    with pytest.raises(ConfigError, match="found 2 CPUs, expected one for each of num_actors=3"):
        extract(folder, POOL, workers=partial(on_ray, num_actors=3))


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("value", "problem"),
    [(np.inf, "^odd gave values that are not finite"), (-1.0, r"^computing 'odd' ended \(ValueErr")],
)
def test_an_actor_that_fails_says_so_in_one_sentence(ray_cluster, folder, value, problem):
    with pytest.raises(CinerayError, match=problem) as caught:
        extract(folder, OddConfig(value=value), workers=partial(on_ray, num_actors=1))
    assert "\n" not in str(caught.value)
