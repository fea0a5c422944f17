"""Batches against the source's own arrays: windows, targets, scaling, world sizes, resumption and memory."""

import hashlib
import itertools
import threading
from collections.abc import Iterator
from typing import Literal

import numpy as np
import pytest
import torch

from cineray.core.config import Config
from cineray.core.errors import ConfigError
from cineray.datasets.dataset import Dataset
from cineray.datasets.ingest import ingest
from cineray.datasets.normaliser import Moments, Normaliser, moments
from cineray.datasets.schema import TensorSpec
from cineray.datasets.signal import SignalConfig
from cineray.datasets.sources.base import Recording, Stimulus
from cineray.datasets.split import Blocks, Selection, SplitConfig, make_split
from cineray.datasets.stream import Stream
from cineray.datasets.view import ViewConfig, Window

VOXELS = {"sub-b": 7, "sub.a": 11, "sub-c": 5}
NUM_CLIPS, REST = 40, 3
SPLIT = SplitConfig(
    train=Selection(films=("one",), except_subjects=("sub-c",)),
    val=Selection(films=("one",), blocks=Blocks(num=4, take=(3,))),
    test=Selection(films=("two",)),
    gap_s=3,
)


class Small(Config):
    """Three people, two films, two repeats of the first, rest before and after."""

    name: Literal["small"] = "small"
    test_noise: float = 1.0

    def targets(self) -> dict[str, TensorSpec]:
        return {
            "features": TensorSpec("float32", (2, 3), "tokens dim", "1"),
            "picture": TensorSpec("uint8", (4,), "pixels", "sRGB"),
        }

    def stimuli(self) -> Iterator[Stimulus]:
        rng = np.random.default_rng(0)
        for film, number in itertools.product(("one", "two"), range(NUM_CLIPS)):
            features = rng.normal(3, 5, (2, 3)).astype(np.float32)
            picture = rng.integers(0, 255, 4, np.uint8)
            name = f"{film}-{number}"
            targets = {"features": features * (self.test_noise if film == "two" else 1), "picture": picture}
            yield Stimulus(name, film, float(number), 1.0, name, targets=targets)

    def recordings(self) -> Iterator[Recording]:
        rng = np.random.default_rng(1)
        for subject, (film, repeat) in itertools.product(VOXELS, [("one", 0), ("two", 0), ("one", 1)]):
            num = NUM_CLIPS + 2 * REST
            brain = rng.normal(2, 4, (num, VOXELS[subject])).astype(np.float16)
            brain = brain * np.float16(self.test_noise) if film == "two" else brain
            shown = [None] * REST + [f"{film}-{i}" for i in range(NUM_CLIPS)] + [None] * REST
            offsets = np.array([np.nan if name is None else 0.0 for name in shown])
            yield Recording(
                subject, f"{film}-{repeat}", repeat, 1.0, brain, np.arange(num, dtype=float), shown, offsets
            )

    def notes(self) -> dict[str, object]:
        return {}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    ingest(Small(), folder, signal=SignalConfig(zscore="none"))
    return Dataset.open(folder)


def a_stream(dataset, part="train", batch_size=16, seed=0, window=(-2, 3), normalise=True, targets=("features",)):
    view = ViewConfig(
        dataset="x", window=Window(first=window[0], last=window[1]), targets=targets, split=SPLIT, normalise=normalise
    )
    split = make_split(dataset, SPLIT)
    normaliser = Normaliser.fit(dataset, split.train, targets) if normalise else None
    return Stream(dataset, view, getattr(split, part), batch_size=batch_size, seed=seed, normaliser=normaliser)


def by_loop(part, window=(-2, 3)):
    """(subject, run, scan) -> window and targets, straight from the source, example by example in the split's order."""
    stimuli = {s.stimulus_id: (row, s) for row, s in enumerate(Small().stimuli())}
    wanted = {"train": ("one", 0, 27), "val": ("one", 30, 40), "test": ("two", 0, 40)}[part]
    for subject in VOXELS:
        if part == "train" and subject == "sub-c":
            continue
        for recording in (r for r in Small().recordings() if r.subject == subject and r.run.startswith(wanted[0])):
            for scan in range(REST + wanted[1], REST + wanted[2]):
                scans = [min(max(scan + k, 0), len(recording.brain) - 1) for k in range(window[0], window[1] + 1)]
                row, stimulus = stimuli[recording.stimulus_id[scan]]
                yield subject, recording.brain[scans].astype(np.float32), row, stimulus.targets


@pytest.mark.parametrize("part", ["train", "val", "test"])
@pytest.mark.parametrize("window", [(0, 0), (-2, 3), (-60, 1)])
def test_batches_hold_what_the_source_gave(dataset, part, window):
    stream = a_stream(dataset, part, window=window, normalise=False, targets=("picture", "features"))
    truth = list(by_loop(part, window))
    assert len(stream.examples) == len(truth)
    seen = []
    for batch in stream.batches(stream.references(epoch=1)):
        assert list(batch.brain) == list(VOXELS)
        flat = [(subject, row) for subject, x in batch.brain.items() for row in x]
        for i, (subject, brain) in enumerate(flat):
            owner, window_, stimulus_row, targets = truth[batch.example[i]]
            assert (subject, batch.stimulus_row[i].item()) == (owner, stimulus_row)
            np.testing.assert_array_equal(brain, window_)
            for name in targets:
                np.testing.assert_array_equal(batch.targets[name][i], targets[name].astype(np.float32))
        seen += batch.example.tolist()
    assert sorted(seen) == list(range(len(truth)))


def test_every_subject_stands_in_every_batch_even_with_no_rows(dataset):
    stream = a_stream(dataset, batch_size=1)
    shapes = {name: x.shape for name, x in next(iter(stream.batches(stream.references(0)))).brain.items()}
    assert list(shapes) == list(VOXELS)
    assert sorted(shape[0] for shape in shapes.values()) == [0, 0, 1]
    assert {name: shape[1:] for name, shape in shapes.items()} == {name: (6, v) for name, v in VOXELS.items()}


def everything(batches):
    """Digest of all that batches hold, in order of step and example (which rank had it must not matter)."""
    digest = hashlib.sha256()
    for parts in batches:
        rows = {}
        for batch in parts:
            brain = [(name, row) for name, x in batch.brain.items() for row in x]
            for i, example in enumerate(batch.example.tolist()):
                rows[example] = (example, brain[i][0], brain[i][1].numpy(), batch.targets["features"][i].numpy())
        for example in sorted(rows):
            number, subject, scans, target = rows[example]
            digest.update(f"{number} {subject}".encode() + scans.tobytes() + target.tobytes())
    return digest.hexdigest()


def test_any_world_size_trains_on_the_same_steps(dataset):
    stream = a_stream(dataset)

    def steps(size, epoch=2):
        ranks = [stream.batches(stream.references(epoch), rank, size) for rank in range(size)]
        for batches in zip(*ranks, strict=True):
            rows = sum(map(len, batches))
            assert all(batch.global_rows == rows for batch in batches)
            yield batches

    digests = {size: everything(steps(size)) for size in (1, 2, 3, 4)}
    assert len(set(digests.values())) == 1
    assert digests[1] != everything(steps(1, epoch=3))


@pytest.mark.parametrize("size", [1, 3])
def test_every_row_once_an_epoch_with_a_resumption_on_another_world_size(dataset, size):
    stream = a_stream(dataset, batch_size=10)
    before = [b.example for b in itertools.islice(stream.batches(stream.references(0)), 4)]
    after = [
        batch.example
        for rank in range(size)
        for batch in stream.batches(stream.references(0, first_step=4), rank, size)
    ]
    assert sorted(torch.cat(before + after).tolist()) == list(range(len(stream.examples)))
    assert len(stream.examples) == 2 * 2 * 27
    assert (stream.num_steps, len(list(stream.references(0)))) == (11, 11)


def test_one_batch_is_the_prefetched_one(dataset):
    stream = a_stream(dataset)
    for reference, batch in zip(stream.references(0), stream.batches(stream.references(0), 1, 2), strict=True):
        alone = stream.batch(reference, 1, 2)
        assert torch.equal(alone.example, batch.example)
        assert all(torch.equal(alone.brain[s], batch.brain[s]) for s in VOXELS)
        assert torch.equal(alone.targets["features"], batch.targets["features"])


def test_batches_kept_are_not_overwritten(dataset):
    stream = a_stream(dataset)
    kept = list(stream.batches(stream.references(0)))
    again = everything([b] for b in kept)
    assert again == everything([b] for b in stream.batches(stream.references(0)))


def test_in_order_is_time_order(dataset):
    stream = a_stream(dataset, "test", batch_size=9)
    for subject in VOXELS:
        batches = list(stream.in_order(subject))
        numbers = torch.cat([batch.example for batch in batches])
        assert numbers.tolist() == list(stream.examples.numbers_of(subject))
        assert torch.cat([b.stimulus_row for b in batches]).tolist() == list(range(NUM_CLIPS, 2 * NUM_CLIPS))
        assert all(len(x) == 0 for b in batches for name, x in b.brain.items() if name != subject)


def test_trials_are_the_training_rows_of_each_subject(dataset):
    stream = a_stream(dataset)
    trials = stream.trials()
    for _ in range(2):  # a fit may walk over them again
        assert [trial.subject for trial in trials] == ["sub-b", "sub.a"]
    truth = list(by_loop("train"))
    for trial in trials:
        mine = [row for row in truth if row[0] == trial.subject]
        scale = stream.normaliser.brain[trial.subject]
        np.testing.assert_allclose(trial.brain * scale.sd + scale.mean, np.stack([r[1] for r in mine]), atol=1e-4)
        restored = stream.normaliser.targets["features"].restore(trial.targets["features"])
        np.testing.assert_allclose(restored, np.stack([row[3]["features"] for row in mine]), atol=1e-4)
        assert trial.stimulus_row.tolist() == [row[2] for row in mine]
        assert trial.scan.tolist() == [0] * 54


def test_an_unknown_target_is_told_with_what_exists(dataset):
    with pytest.raises(ConfigError, match="target 'flow', the data set has features, picture"):
        a_stream(dataset, targets=("flow",), normalise=False)


def test_closing_early_stops_the_thread(dataset):
    stream = a_stream(dataset, batch_size=4)
    batches = stream.batches(stream.references(0))
    next(batches)
    batches.close()
    assert not [t for t in threading.enumerate() if t.name == "cineray-prefetch"]


# --- normaliser ----------------------------------------------------------------------------------------------------


def test_moments_are_those_of_training_rows(dataset):
    normaliser = a_stream(dataset).normaliser
    truth = list(by_loop("train", window=(0, 0)))
    for subject in ("sub-b", "sub.a"):
        rows = np.stack([brain[0] for owner, brain, *_ in truth if owner == subject]).astype(np.float64)
        np.testing.assert_allclose(normaliser.brain[subject].mean, rows.mean(0), rtol=1e-6)
        np.testing.assert_allclose(normaliser.brain[subject].sd, rows.std(0), rtol=1e-6)
    shown = {row: targets["features"] for _, _, row, targets in truth}
    features = np.stack(list(shown.values())).astype(np.float64)
    np.testing.assert_allclose(normaliser.targets["features"].mean, features.mean(0), rtol=1e-5)
    np.testing.assert_allclose(normaliser.targets["features"].sd, features.std(0), rtol=1e-5)
    # A subject without training rows passes through unchanged.
    assert torch.equal(normaliser.brain["sub-c"].scale(torch.ones(2, 5, dtype=torch.float16)), torch.ones(2, 5))


def test_test_rows_change_nothing(dataset, tmp_path):
    ingest(Small(test_noise=300), tmp_path, signal=SignalConfig(zscore="none"))
    other = Dataset.open(tmp_path)
    assert not np.array_equal(other.gather_samples(np.arange(46, 92)), dataset.gather_samples(np.arange(46, 92))), (
        "the second run of the first subject is its test run"
    )
    one, two = a_stream(dataset), a_stream(other)
    state, other_state = one.normaliser.state(), two.normaliser.state()
    assert all(torch.equal(state[key], other_state[key]) for key in state | other_state)
    assert everything([b] for b in one.batches(one.references(0))) == everything(
        [b] for b in two.batches(two.references(0))
    )


@pytest.mark.parametrize("cuts", [[5], [1, 2, 3, 99], []])
def test_moments_do_not_depend_on_the_cuts(cuts):
    x = np.random.default_rng(0).normal(1e4, 1, (100, 3)).astype(np.float32)
    x[:, 2] = 0.1  # constant: centred, not blown up
    found = moments(np.split(x, cuts), (3,))
    np.testing.assert_allclose(found.mean, x.astype(np.float64).mean(0), rtol=1e-7)
    np.testing.assert_allclose(found.sd[:2], x[:, :2].astype(np.float64).std(0), rtol=1e-6)
    assert found.sd[2] == 1
    z = Moments(found.mean, found.sd).scale(torch.from_numpy(x))
    np.testing.assert_allclose(z[:, 2], 0, atol=1e-7)


def test_state_survives_a_file(dataset, tmp_path):
    from safetensors.torch import load_file, save_file

    normaliser = a_stream(dataset).normaliser
    save_file(normaliser.state(), tmp_path / "x.safetensors")
    again = Normaliser.of_state(load_file(tmp_path / "x.safetensors")).state()
    assert all(torch.equal(again[key], value) for key, value in normaliser.state().items())
    assert set(again) == set(normaliser.state())
