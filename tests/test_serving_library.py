"""Training stimuli to look up: which they are, and which of them is most like what was decoded."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cineray.core.errors import ConfigError, DataError
from cineray.datasets.dataset import Dataset
from cineray.datasets.split import make_split
from cineray.serving.generators.base import Condition
from cineray.serving.generators.nearest import NearestConfig
from cineray.serving.library import Index, Library
from cineray.training.run import Run
from tiny_video import tiny_video


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return Run.load(f"{tiny_video(tmp_path_factory.mktemp('video')).semantic.run_dir}/run.yaml")


@pytest.fixture(scope="module")
def library(run):
    return Library.of(Dataset.open(run.view.dataset), run.view, "features", "frames")


def test_candidates_are_the_training_stimuli_and_nothing_else(run, library):
    dataset = library.dataset
    split = make_split(dataset, run.view.split, (), run.view.window)
    shown = {
        name: {int(r) for r in dataset.gather_stimulus_rows(e.rows(np.arange(len(e))))}
        for name, e in (("train", split.train), ("val", split.val), ("test", split.test))
    }
    assert set(library.rows.tolist()) == shown["train"]
    assert not shown["train"] & (shown["val"] | shown["test"])
    films = dataset.stimuli(["film"])["film"].to_pylist()
    assert {films[row] for row in library.rows} == {"train"}
    for row in shown["val"] | shown["test"]:
        with pytest.raises(AssertionError, match="not a training stimulus"):
            library.frames(row)


def test_what_others_saw_in_training_is_no_candidate_if_it_is_tested(run):
    """A held-out person and a known film: the split allows it, the library does not hand the answer out."""
    split = run.view.split.override(
        {
            "train": {"films": [], "except_subjects": ["sub-02"], "blocks": None},
            "val": None,
            "test": {"films": ["test"], "subjects": ["sub-02"]},
            "allow_shared_stimuli": True,
        }
    )
    view = run.view.model_copy(update={"split": split})
    dataset = Dataset.open(view.dataset)
    trained = make_split(dataset, split, (), view.window).train
    films = np.array(dataset.stimuli(["film"])["film"].to_pylist())
    assert "test" in films[dataset.gather_stimulus_rows(trained.rows(np.arange(len(trained))))]
    assert set(films[Library.of(dataset, view, "features", "frames").rows]) == {"train"}


def test_nearest_is_the_largest_cosine_of_centred_tokens(library, monkeypatch):
    """By numpy, in several chunks; the query has an offset that raw cosines would follow."""
    monkeypatch.setattr("cineray.serving.library.CHUNK", 7)
    rng = np.random.default_rng(0)
    values = library.dataset.gather_stimuli("features", library.rows).astype(np.float64)
    mean = values.mean(0)
    query = mean + rng.standard_normal((5, values.shape[1]))
    centred = values - mean
    cosine = (query - mean) @ centred.T
    cosine /= np.linalg.norm(query - mean, axis=1)[:, None] * np.linalg.norm(centred, axis=1)
    rows, similarity = library.nearest(torch.from_numpy(query).float()[:, None])
    assert rows.tolist() == library.rows[cosine.argmax(1)].tolist()
    np.testing.assert_allclose(similarity, cosine.max(1), atol=1e-5)


def test_a_kind_that_fills_the_library_is_not_its_origin():
    """Nine clips in ten are of one kind; a prediction of it that falls short of it is of that kind all the same."""
    rng = np.random.default_rng(0)
    kinds = rng.standard_normal((5, 12))
    values = kinds[[0] * 36 + [1, 2, 3, 4]]
    mean = kinds.mean(0)
    query = values.mean(0) + 0.7 * (kinds[0] - values.mean(0)) + 0.05 * (kinds[1] - kinds[0])
    found = Index(lambda: values.astype(np.float32)).similarity(torch.from_numpy(query)[None].float())[:, 0]
    off = values - mean
    cosine = off @ (query - mean) / np.linalg.norm(off, axis=1) / np.linalg.norm(query - mean)
    np.testing.assert_allclose(found, cosine, atol=1e-5)
    assert found.argmax() < 36
    wrong = (values - values.mean(0)) @ (query - values.mean(0)) / np.linalg.norm(values - values.mean(0), axis=1)
    assert wrong.argmax() >= 36, "the mean over all clips would have chosen another kind"


def test_of_equal_clips_the_seed_draws_one(library):
    """Four clips have one token; each is drawn about as often, always the same by one seed, and none of the others."""
    values = np.eye(6, dtype=np.float32)[[0, 1, 2, 2, 2, 2]]
    alike = replace(library, rows=np.arange(10, 16), tokens=Index(lambda: values))
    query = torch.from_numpy(values[[2]])
    drawn = [int(alike.nearest(query, seeds=(seed,))[0]) for seed in range(400)]
    counts = np.bincount(drawn, minlength=16)
    assert counts.nonzero()[0].tolist() == [12, 13, 14, 15]
    assert counts.max() < 140, "a fair draw of 400 exceeds 140 of 100 expected with p < 1e-5"
    assert drawn[:50] == [int(alike.nearest(query, seeds=(seed,))[0]) for seed in range(50)]
    both, _ = alike.nearest(torch.from_numpy(values[[0, 2]]), seeds=(7, 8))
    assert both.tolist() == [10, drawn[8]]
    assert int(alike.nearest(query)[0]) == 12


def test_latents_have_their_say_beside_the_tokens(run):
    """By numpy: the weighted mean of two cosines; without latents the tokens decide alone."""
    library = Library.of(Dataset.open(run.view.dataset), run.view, "features", "frames", "latents")
    rng = np.random.default_rng(1)
    cosines, queries = [], []
    for name in ("features", "latents"):
        values = library.dataset.gather_stimuli(name, library.rows).astype(np.float64).reshape(len(library.rows), -1)
        centred = values - values.mean(0)
        query = values.mean(0) + rng.standard_normal((6, values.shape[1]))
        off = query - values.mean(0)
        cosines.append(off @ centred.T / np.outer(np.linalg.norm(off, axis=1), np.linalg.norm(centred, axis=1)))
        queries.append(torch.from_numpy(query).float())
    both = (cosines[0] + 3 * cosines[1]) / 4
    assert (both.argmax(1) != cosines[0].argmax(1)).any()
    rows, similarity = library.nearest(queries[0][:, None], queries[1], 3.0)
    assert rows.tolist() == library.rows[both.argmax(1)].tolist()
    np.testing.assert_allclose(similarity, both.max(1), atol=1e-5)
    assert library.nearest(queries[0])[0].tolist() == library.rows[cosines[0].argmax(1)].tolist()
    generator = NearestConfig(agreement=3.0).build(library=library)
    conditions = [Condition(tokens=t[None], latents=x) for t, x in zip(*queries, strict=True)]
    middle = library.shape[0] // 2
    for keyframe, row in zip(generator.keyframes(conditions), library.rows[both.argmax(1)], strict=True):
        np.testing.assert_array_equal(keyframe, library.frames(int(row))[middle])
    with pytest.raises(DataError, match="without latents"):
        replace(library, latents=None).nearest(queries[0], queries[1])


def test_targets_that_are_not_there_are_named(run):
    dataset = Dataset.open(run.view.dataset)
    with pytest.raises(ConfigError, match=r"no target 'clip_tokens', it has .*cineray features"):
        Library.of(dataset, run.view, "clip_tokens", "frames")
    with pytest.raises(ConfigError, match="'latents' has axes"):
        Library.of(dataset, run.view, "features", "latents")
