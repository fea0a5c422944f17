"""Clusters of stimuli we have made alike, and a split that keeps them apart."""

import numpy as np
import pytest

from cineray.core.errors import DataError
from cineray.datasets.clusters import Clusters, clusters_of
from cineray.datasets.dataset import Dataset
from cineray.datasets.ingest import ingest
from cineray.datasets.signal import SignalConfig
from cineray.datasets.sources.synthetic import SyntheticConfig
from cineray.datasets.split import Selection, SplitConfig, make_split

KINDS = np.array([3, 0, 0, 1, 3, 2, 1, 0, 2, 3] * 6)


class Vectors:
    """Two tokens a stimulus whose mean points in the direction of its kind, at any length."""

    def __init__(self, kinds=KINDS):
        rng = np.random.default_rng(0)
        means = (np.eye(5)[kinds] + rng.normal(0, 0.05, (len(kinds), 5))) * rng.uniform(1, 9, (len(kinds), 1))
        apart = rng.normal(0, 1, means.shape)
        self.tokens = np.stack([means + apart, means - apart], axis=1).astype(np.float32)

    def gather_stimuli(self, target, rows):
        assert target == "tokens"
        return self.tokens[rows]


@pytest.mark.parametrize("seed", range(5))
def test_stimuli_of_one_kind_are_one_cluster_numbered_as_they_come(seed):
    found = clusters_of(Vectors(), np.arange(len(KINDS)), Clusters(target="tokens", num=4, take=(0,), seed=seed))
    np.testing.assert_array_equal(found, np.array([1, 2, 3, 0])[KINDS])  # kinds come in the order 3, 0, 1, 2


def test_a_group_follows_its_first_stimulus():
    groups = np.arange(len(KINDS)) // 2 + 7
    found = clusters_of(Vectors(), groups, Clusters(target="tokens", num=4, take=(0,)))
    first = np.repeat(KINDS[::2], 2)
    for one in np.unique(first):
        assert len({*found[first == one].tolist()}) == 1
    assert len({*found.tolist()}) == len({*first.tolist()})


def test_more_clusters_than_stimuli_is_one_sentence():
    same = Vectors(np.zeros(8, int))
    same.tokens[:] = same.tokens[0]
    with pytest.raises(DataError, match=r"found 1 different stimuli by 'tokens', expected more .*clusters.num \(2\)"):
        clusters_of(same, np.arange(8), Clusters(target="tokens", num=2, take=(0,)))


def test_a_split_by_clusters_leaves_no_relative_of_a_test_stimulus_in_training(tmp_path):
    source = SyntheticConfig(num_subjects=2, minutes=4, test_minutes=1, run_minutes=2, frame_px=8, voxels=(20, 30))
    ingest(source, tmp_path, signal=SignalConfig(zscore="none"))  # runs are cut
    dataset = Dataset.open(tmp_path)
    parts = {"train": (0, 1, 2, 3), "val": (4,), "test": (5,)}
    select = {name: Selection(clusters=Clusters(target="features", num=6, take=take)) for name, take in parts.items()}
    split = make_split(dataset, SplitConfig(**select, gap_s=0))
    groups = np.unique(dataset.stimuli(["group"])["group"].to_numpy().astype(str), return_inverse=True)[1]
    cluster = clusters_of(dataset, groups, Clusters(target="features", num=6, take=()))
    for name, take in parts.items():
        examples = getattr(split, name)
        rows = dataset.gather_stimulus_rows(examples.rows(np.arange(len(examples))))
        assert {*cluster[rows].tolist()} == {*take}
