"""Splits by every condition against a loop over all rows, and every leak refused."""

import itertools
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from cineray.core.errors import DataError, LeakError
from cineray.datasets.examples import Examples
from cineray.datasets.leaks import Clips, check_leaks
from cineray.datasets.split import Blocks, Selection, SplitConfig, make_split

TR_S = 2.0


@dataclass
class Memory:
    """A data set of a few rows, held in lists: what `Dataset` promises and nothing more."""

    num_voxels: dict
    tr_s: float = TR_S
    norm: str = "none"
    runs: list = field(default_factory=list)
    table: list = field(default_factory=list)
    brain: list = field(default_factory=list)
    stimulus_rows: list = field(default_factory=list)

    @property
    def subjects(self):
        return list(self.num_voxels)

    @property
    def manifest(self):
        return SimpleNamespace(signal={}, notes={"norm": self.norm})

    def stimuli(self):
        return pa.Table.from_pylist(self.table)

    def gather_stimulus_rows(self, rows):
        return np.array(self.stimulus_rows, np.int64)[rows]

    def gather_samples(self, rows, out=None):
        return np.stack([self.brain[row] for row in rows])

    def film(self, name, num_clips, length_s=TR_S, group=None):
        for i in range(num_clips):
            self.table.append(
                {
                    "stimulus_id": f"{name}-{i}",
                    "film": name,
                    "onset_s": i * length_s,
                    "length_s": length_s,
                    "group": group(i) if group else f"{name}-{i}",
                }
            )
        return self

    def run(self, subject, run, film, repeat=0, rest=2, brain=None):
        """Rest, every clip of the film once, rest."""
        clips = [i for i, row in enumerate(self.table) if row["film"] == film]
        shown = [-1] * rest + clips + [-1] * rest
        self.runs.append(
            SimpleNamespace(
                subject=subject,
                run=run,
                film=film,
                repeat=repeat,
                first_row=len(self.stimulus_rows),
                num_rows=len(shown),
            )
        )
        rng = np.random.default_rng(len(self.stimulus_rows))
        brain = rng.standard_normal((len(shown), self.num_voxels[subject])) if brain is None else brain
        self.stimulus_rows += shown
        self.brain += list(brain.astype(np.float16))
        return self

    def row_facts(self):
        """One dict a row, by a loop: what the tests compare with."""
        for run in self.runs:
            for row in range(run.first_row, run.first_row + run.num_rows):
                clip = self.stimulus_rows[row]
                facts = {"row": row, "subject": run.subject, "run": run.run, "repeat": run.repeat, "clip": clip}
                yield facts | (self.table[clip] if clip >= 0 else {"film": None, "onset_s": np.nan})


def two_people(group=None):
    data = Memory({"a": 40, "b": 50}).film("one", 60, group=group).film("two", 60, group=group)
    for subject, (film, repeat) in itertools.product("ab", [("one", 0), ("two", 0), ("one", 1)]):
        data.run(subject, f"{film}-{repeat}", film, repeat)
    return data


def rows_of(examples):
    return examples.rows(np.arange(len(examples))).tolist()


def picked(data, wanted):
    return [facts["row"] for facts in data.row_facts() if facts["clip"] >= 0 and wanted(facts)]


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


# --- leaks ---------------------------------------------------------------------------------------------------------

VAL = Selection(films=("two",), blocks=Blocks(num=2, take=(0,)))
TEST = Selection(films=("two",), blocks=Blocks(num=2, take=(1,)))


def refused(data, match, **changes):
    with pytest.raises(LeakError, match=match) as caught:
        make_split(data, SplitConfig(**({"val": VAL, "test": TEST} | changes)))
    assert "\n" not in str(caught.value)


def test_the_same_stimulus_in_another_repeat_is_refused():
    refused(
        two_people(),
        "stimulus 'one-0'.*train and test",
        train=Selection(films=("one",), repeats=(0,)),
        test=Selection(films=("one",), repeats=(1,)),
    )


def test_the_same_stimulus_in_validation_is_refused_too():
    data = two_people()
    refused(data, "val and test", val=Selection(runs=("one-0",)), test=Selection(runs=("one-1",)), train=VAL)
    refused(data, "both val and test", val=TEST)


def test_a_divided_group_is_refused_unless_blocks_keep_it_whole():
    data = two_people(group=lambda i: f"scene-{i // 25}")
    refused(data, "group 'scene-0'", train=Selection(films=("one",)))
    data = Memory({"a": 40}).film("one", 60, group=lambda i: f"scene-{i // 25}").run("a", "r", "one")
    config = SplitConfig(
        val=Selection(blocks=Blocks(num=3, take=(1,))), test=Selection(blocks=Blocks(num=3, take=(2,))), gap_s=4
    )
    split = make_split(data, config)
    # Thirds begin at 40 and 80 s; scenes begin at 0, 50 and 100 s and go whole into the third they begin in.
    assert [data.stimulus_rows[rows_of(s)[0]] for s in (split.train, split.val, split.test)] == [0, 25, 50]
    assert [len(s) for s in (split.train, split.val, split.test)] == [23, 23, 10]


def test_hand_made_neighbours_are_refused():
    data = Memory({"a": 40}).film("one", 60).run("a", "r", "one")
    clips = Clips.of(data.stimuli())

    def check(first, gap_s):
        sets = {"train": Examples.of("a", [(0, 0, 2, 20)]), "test": Examples.of("a", [(0, 0, 2 + first, 5)])}
        return check_leaks(data, clips, sets, gap_s=gap_s, allow_shared=False)

    assert check(25, gap_s=10) == []
    with pytest.raises(LeakError, match=r"'one-19' of train is closer than 10\.5 s"):
        check(25, gap_s=10.5)
    with pytest.raises(LeakError, match="is closer than 10 s"):
        check(24, gap_s=10)
    with pytest.raises(LeakError, match=r"stimulus 'one-19' .1 in all"):
        check(19, gap_s=0)


def test_a_held_out_person_who_saw_the_same_film_must_be_declared():
    data = two_people()
    config = {
        "train": Selection(films=("one",), subjects=("a",)),
        "val": Selection(films=("two",), subjects=("a",)),
        "test": Selection(films=("one",), subjects=("b",)),
    }
    refused(data, "allow_shared_stimuli", **config)
    split = make_split(data, SplitConfig(**config, allow_shared_stimuli=True))
    assert len(split.train) == len(split.test) == 120
    assert "100% of the test stimuli were seen in training by other subjects" in split.notes
    # Declared or not, one person's own stimuli must differ.
    refused(
        data,
        "of subject 'b'",
        allow_shared_stimuli=True,
        train=Selection(runs=("one-0",)),
        val=VAL,
        test=Selection(runs=("one-1",), subjects=("b",)),
    )


@pytest.mark.parametrize("scale", [1.0, 3.7])
def test_one_person_under_two_names_is_refused(scale):
    data = Memory({"a": 40, "b": 40}).film("one", 60).film("two", 60)
    brain = np.random.default_rng(1).standard_normal((64, 40))
    data.run("a", "one", "one", brain=brain).run("b", "eins", "one", brain=brain * scale + 100)
    data.run("a", "two", "two").run("b", "two", "two")
    parts = {
        "train": Selection(films=("one",), subjects=("a",)),
        "val": Selection(films=("two",), blocks=Blocks(num=3, take=(0,)), subjects=("a",)),
        "test": Selection(films=("two",), blocks=Blocks(num=3, take=(2,)), subjects=("b",)),
    }
    refused(data, "subject 'a' and run 'eins' of subject 'b' are the same recording", **parts)


def test_strangers_and_repeats_are_not_taken_for_one_person():
    data = Memory({"a": 40, "b": 40}).film("one", 60).film("two", 60)
    film = np.random.default_rng(1).standard_normal((64, 40))
    for i, (subject, name) in enumerate(itertools.product("ab", ["one", "two"])):
        # Nine tenths of the variance in common, and a large mean that differs between voxels as in raw images.
        noise = np.random.default_rng(i + 10).standard_normal((64, 40)) / 3
        data.run(subject, name, name, brain=film + noise + 20 * np.arange(40))
    make_split(data, SplitConfig(train=Selection(films=("one",)), val=VAL, test=TEST))


def test_a_run_copied_under_another_name_is_refused():
    data = Memory({"a": 40}).film("one", 60).film("two", 60)
    brain = np.random.default_rng(1).standard_normal((64, 40))
    data.run("a", "x", "one", brain=brain).run("a", "y", "two", brain=brain)
    refused(data, "run 'x' of subject 'a' and run 'y'", train=Selection(films=("one",)))


def test_a_run_scaled_as_a_whole_cannot_be_cut_into_train_and_test():
    data = Memory({"a": 40}, norm="run").film("one", 60).run("a", "r", "one")
    data.film("two", 60).run("a", "s", "two")
    thirds = [Selection(films=("one",), blocks=Blocks(num=3, take=(i,))) for i in range(3)]
    refused(data, "run 'r' .* z-scored over the whole run", train=thirds[0], val=thirds[1], test=thirds[2])
    config = SplitConfig(train=thirds[0], val=thirds[2], test=Selection(films=("two",)))
    assert "train and val share runs that were z-scored as a whole" in make_split(data, config).notes
    data.norm = "none"
    make_split(data, SplitConfig(train=thirds[0], val=thirds[1], test=thirds[2]))


# --- wrong names and empty sets ------------------------------------------------------------------------------------


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
