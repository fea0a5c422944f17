"""`make results-synthetic` at a tiny size: its figures, their statistics, and that finished work is not done again."""

import json

import numpy as np
import pytest
from benchmarks.results_synthetic import results
from benchmarks.results_synthetic_report import write_page
from benchmarks.results_synthetic_runs import Plan, Seed, scored
from benchmarks.results_synthetic_statistics import over_seeds

from cineray.core.storage import Store
from cineray.training.evaluate import evaluate


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return Plan(
        out=str(tmp_path_factory.mktemp("results")),
        seeds=(7,),
        num_known=2,
        num_crowd=3,
        num_new=1,
        together=((1, 8), (2, 4)),
        minutes=20,
        few=(1, 2),
        test_minutes=4,
    )


@pytest.fixture(scope="module")
def found(plan):
    return results(plan)


def test_the_line_holds_every_figure(found):
    line = json.loads(json.dumps(found, allow_nan=False))
    assert {"chance", "null", "a", "b", "c", "seeds", "seconds"} == line.keys()
    assert {"shared", "shared_ci", "ridge", "ceiling", "share_of_ceiling", "above_share_ci", "met"} <= line["a"].keys()
    for claim, name in (("b", "together"), ("c", "adapted")):
        assert list(line[claim]) == ["1", "2"]
        for row in line[claim].values():
            assert {name, "scratch", "ridge", "minus_scratch_ci", "minus_ridge_ci", "met"} <= row.keys()
    assert line["chance"] == 1 / 50
    assert {m: row["num_subjects"] for m, row in line["b"].items()} == {"1": 8, "2": 4}


def test_the_figures_are_those_of_the_runs(plan, found):
    seed = Seed(plan, 7)
    run = seed.adapt("sub-03", 2)
    value = evaluate(seed.folder(run))["targets"]["features"]["metrics"]["retrieve_image@50"]["value"]
    assert found["c"]["2"]["adapted"] == pytest.approx(value)
    whole = evaluate(seed.folder(seed.shared()))["targets"]["features"]["metrics"]["retrieve_image@50"]
    assert found["a"]["shared"] == pytest.approx(whole["value"])
    assert found["null"] == pytest.approx(whole["null"])


def test_finished_work_is_not_done_again(plan, found):
    store = Store.at(plan.out)
    before = {key: store.path(key) for key in store.list()}
    stamps = {key: store.local(key).stat().st_mtime_ns for key in before}
    again = results(plan)
    assert {**again, "seconds": 0} == {**found, "seconds": 0}
    assert {key: store.local(key).stat().st_mtime_ns for key in store.list()} == stamps


def test_the_page_holds_the_tables_and_the_curve(plan, found, tmp_path):
    write_page(tmp_path / "page.md", plan, found)
    text = (tmp_path / "page.md").read_text()
    assert f"**{found['a']['shared']:.3f}**" in text
    assert text.count("\n| 1 |") == text.count("\n| 2 |") == 2
    assert (tmp_path / "page.svg").read_bytes().startswith(b"<?xml")


def test_other_settings_never_meet_old_results(plan):
    seed, other = Seed(plan, 7), Seed(plan.override({"minutes": 21}), 7)
    assert seed.data(seed.source) != other.data(other.source)
    assert seed.folder(seed.shared()) != other.folder(other.shared())


def test_the_interval_of_independent_seeds_is_that_of_their_mean():
    """Seeds far apart, nothing else varies: the bootstrap's spread is the seeds' standard error (ddof 0)."""
    rng = np.random.default_rng(0)
    means = rng.standard_normal(40)
    values = [np.full((3, 10), mean) for mean in means]
    found = over_seeds(values, [("run", block) for block in range(10)], num=4000)
    error = means.std() / np.sqrt(40)
    assert found.value == pytest.approx(means.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.08)


def test_the_interval_covers_what_varies_inside_one_seed():
    rng = np.random.default_rng(1)
    clips = rng.standard_normal((1, 400))
    found = over_seeds([clips], [("run", block) for block in range(400)], num=4000)
    assert found.high - found.low == pytest.approx(2 * 1.96 * clips.std() / 20, rel=0.08)


def test_whoever_is_in_both_data_sets_has_the_same_brain_and_films(plan, found):
    seed = Seed(plan, 7)
    long, short = (source.film("train-sub-02") for source in (seed.source, seed.crowd))
    np.testing.assert_array_equal(long.start[: len(short)], short.start)
    brains = [source.brain("sub-02") for source in (seed.source, seed.crowd, seed.many(1))]
    for other in brains[1:]:
        np.testing.assert_array_equal(brains[0].mixture, other.mixture)


def test_a_run_is_scored_on_every_scene_of_the_test_film(plan, found):
    seed = Seed(plan, 7)
    run = scored(seed.folder(seed.shared()))
    assert run.subjects == ["sub-01", "sub-02"]
    assert run.values.shape == (2, 60)
