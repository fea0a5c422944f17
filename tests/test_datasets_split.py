"""Splits by every condition against a loop over all rows."""

import numpy as np
import pytest

from cineray.core.errors import DataError
from cineray.datasets.split import Blocks, Selection, SplitConfig, make_split
from cineray.datasets.window import Window
from memory_dataset import TR_S, Memory, picked, rows_of, two_people

VAL = Selection(films=("two",), blocks=Blocks(num=2, take=(0,)))
TEST = Selection(films=("two",), blocks=Blocks(num=2, take=(1,)))


def test_by_film_and_block_with_gaps():
    data = two_people()
    config = SplitConfig(
        train=Selection(films=("one",)),
        val=Selection(films=("one",), blocks=Blocks(num=4, take=(3,))),
        test=Selection(films=("two",)),
        gap_s=10,
    )
    split = make_split(data, config)
    assert rows_of(split.test) == picked(data, lambda f: f["film"] == "two")
    # The film lasts 120 s: its last quarter begins at 90, and training must end at least 10 s before.
    assert rows_of(split.val) == picked(data, lambda f: f["film"] == "one" and f["onset_s"] >= 90)
    assert rows_of(split.train) == picked(data, lambda f: f["film"] == "one" and f["onset_s"] + TR_S <= 80)
    assert any("20 rows of train" in note for note in split.notes)  # 5 clips, 2 repeats, 2 people


@pytest.mark.parametrize(
    ("selection", "wanted"),
    [
        (Selection(runs=("two-0",)), lambda f: f["run"] == "two-0"),
        (Selection(groups=("two-3", "two-4")), lambda f: f["clip"] in (63, 64)),
        (Selection(films=("two",), subjects=("b",)), lambda f: f["film"] == "two" and f["subject"] == "b"),
        (Selection(films=("two",), except_subjects=("a",)), lambda f: f["film"] == "two" and f["subject"] == "b"),
        (Selection(films=("two",), repeats=(0,)), lambda f: f["film"] == "two"),
        (
            Selection(films=("two",), blocks=Blocks(num=3, take=(0, 2))),
            lambda f: f["film"] == "two" and not 40 <= f["onset_s"] < 80,
        ),
        (Selection(films=("two",), minutes=1), lambda f: f["film"] == "two" and f["onset_s"] < 60),
    ],
    ids=lambda value: getattr(value, "__class__", type(value)).__name__,
)
def test_every_condition_selects_what_a_loop_selects(selection, wanted):
    data = two_people()
    config = SplitConfig(
        train=Selection(films=("one",), blocks=Blocks(num=2, take=(0,))),
        val=Selection(films=("one",), blocks=Blocks(num=2, take=(1,))),
        test=selection,
    )
    assert rows_of(make_split(data, config).test) == picked(data, wanted)


def test_nothing_need_be_held_out_to_choose_by():
    data = two_people()
    split = make_split(data, SplitConfig(test=Selection(films=("two",))))
    assert rows_of(split.train) == picked(data, lambda f: f["film"] == "one")
    assert (len(split.val), split.val.subjects) == (0, ("a", "b"))


def test_gaps_equal_a_loop_over_all_pairs_of_rows():
    rng, num_compared = np.random.default_rng(0), 0
    for _ in range(40):
        data = Memory({"a": 3}).film("one", 40, length_s=float(rng.integers(1, 5))).run("a", "r", "one")
        test, val = (tuple(f"one-{i}" for i in part) for part in np.split(rng.permutation(40)[:8], 2))
        gap_s = float(rng.integers(0, 12))
        config = SplitConfig(val=Selection(groups=val), test=Selection(groups=test), gap_s=gap_s)

        def far(facts, names, data=data, gap_s=gap_s):
            others = [row for row in data.table if row["group"] in names]
            ends = facts["onset_s"] + facts["length_s"]
            return all(
                max(o["onset_s"] - ends, facts["onset_s"] - o["onset_s"] - o["length_s"]) >= gap_s for o in others
            )

        expected_val = picked(data, lambda f, val=val, test=test, far=far: f["group"] in val and far(f, test))
        kept = tuple(data.table[data.stimulus_rows[row]]["group"] for row in expected_val)
        expected = picked(
            data,
            lambda f, val=val, test=test, far=far, kept=kept: (
                f["group"] not in test + val and far(f, test) and far(f, kept)
            ),
        )
        if not expected or not expected_val:
            continue
        num_compared += 1
        split = make_split(data, config)
        assert (rows_of(split.val), rows_of(split.train)) == (expected_val, expected)
    assert num_compared >= 10


@pytest.mark.parametrize("window", [(-16, 16), (0, 5), (-5, 0), (2, 4), (-4, -2)])
def test_no_window_of_training_shares_a_scan_of_the_held_out_blocks(window):
    data = Memory({"a": 3}).film("one", 200).run("a", "r", "one").film("two", 40).run("a", "s", "two")
    thirds = [Selection(films=("one",), blocks=Blocks(num=5, take=take)) for take in ((1,), (3,))]
    config = SplitConfig(val=thirds[0], test=thirds[1], gap_s=10)
    split = make_split(data, config, window=Window(first=window[0], last=window[1]))
    assert len(split.val) > 0
    assert len(split.test) == 40

    def scans(row, run):
        end = run.first_row + run.num_rows - 1
        return {row} | {min(max(row + k, run.first_row), end) for k in range(window[0], window[1] + 1)}

    def far(row, held):
        run = next(r for r in data.runs if r.first_row <= row < r.first_row + r.num_rows)
        shown = [scan for scan in scans(row, run) if data.stimulus_rows[scan] >= 0]
        return not any(abs(scan - other) * TR_S - TR_S < config.gap_s for scan in shown for other in held)

    test, val = rows_of(split.test), rows_of(split.val)
    assert val == picked(data, lambda f: f["film"] == "one" and 80 <= f["onset_s"] < 160 and far(f["row"], test))
    assert rows_of(split.train) == picked(
        data,
        lambda f: (
            f["film"] == "two"
            or (not (80 <= f["onset_s"] < 160 or 240 <= f["onset_s"] < 320) and far(f["row"], test + val))
        ),
    )
    # The other film is in another run: all of it stays.
    assert sum(row >= data.runs[1].first_row for row in rows_of(split.train)) == 40


def test_the_gap_begins_where_the_window_ends():
    data = Memory({"a": 3}).film("one", 200).run("a", "r", "one")
    config = SplitConfig(test=Selection(blocks=Blocks(num=4, take=(2,))), gap_s=10)
    split = make_split(data, config, window=Window(first=-16, last=8))
    clips = [data.stimulus_rows[row] for row in rows_of(split.train)]
    # The test block is clips 100 to 149; five clips of 2 s make the gap.
    assert clips == [*range(100 - 5 - 8), *range(150 + 5 + 16, 200)]
    assert any("34 rows of train" in note for note in split.notes)


def test_random_presentation_in_one_run_is_cut_by_scans_too():
    data = Memory({"a": 3}).film("one", 60, length_s=100.0)
    data.run("a", "r", "one")
    order = np.random.default_rng(0).permutation(60)
    data.stimulus_rows[2:62] = order.tolist()
    groups = tuple(f"one-{i}" for i in range(0, 60, 20))
    config = SplitConfig(test=Selection(groups=groups), gap_s=0)
    train = rows_of(make_split(data, config, window=Window(first=-1, last=3)).train)
    held = [row for row in range(2, 62) if data.stimulus_rows[row] % 20 == 0]
    assert train == [r for r in range(2, 62) if not any(-1 <= h - r <= 3 for h in held)]


def test_examples_are_numbered_by_subject_and_know_their_run():
    data = two_people()
    config = SplitConfig(
        val=Selection(films=("two",), blocks=Blocks(num=2, take=(0,))), test=Selection(groups=("two-59",))
    )
    train = make_split(data, config, subjects=("b", "a")).train
    numbers = np.arange(len(train))
    rows = train.rows(numbers)
    owners = [next(r for r in data.runs if r.first_row <= row < r.first_row + r.num_rows) for row in rows]
    assert [train.subjects[i] for i in train.subject_index(numbers)] == [o.subject for o in owners]
    assert [data.runs[i] for i in train.run_index(numbers)] == owners
    assert [list(train.numbers_of(s)) for s in "ba"] == [
        [n for n, o in enumerate(owners) if o.subject == s] for s in "ba"
    ]
    assert train.subjects == ("b", "a")


def test_memory_is_one_entry_a_range():
    data = Memory({"a": 3}).film("one", 5000).run("a", "r", "one", brain=np.zeros((5004, 3)))
    config = SplitConfig(
        val=Selection(blocks=Blocks(num=10, take=(8,))), test=Selection(blocks=Blocks(num=10, take=(3,)))
    )
    split = make_split(data, config)
    assert [len(s.first_row) for s in (split.train, split.val, split.test)] == [3, 1, 1]
    assert len(split.train) == 4000 - 4 * 5


# --- wrong names and empty sets ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (Selection(films=("three",)), "films three.*it has one, two"),
        (Selection(runs=("x",)), "runs x.*one-0, one-1, two-0"),
        (Selection(repeats=(7,)), "repeats 7.*0, 1"),
        (Selection(subjects=("c",)), "subjects c.*a, b"),
        (Selection(except_subjects=("c",)), "subjects c.*a, b"),
        (Selection(groups=("x",)), "groups x.*and 100 more"),
    ],
)
def test_unknown_names_are_told_with_what_exists(selection, message):
    with pytest.raises(DataError, match=message):
        make_split(two_people(), SplitConfig(train=selection, val=VAL, test=TEST))


def test_an_empty_set_tells_what_exists():
    nothing = Selection(films=("one",), runs=("two-0",))
    with pytest.raises(DataError, match="the train set is empty: this data set has films one, two, runs one-0"):
        make_split(two_people(), SplitConfig(train=nothing, val=VAL, test=TEST))
