"""Every leak is refused, and what is no leak is let through."""

import itertools

import numpy as np
import pytest

from cineray.core.errors import LeakError
from cineray.datasets.examples import Examples
from cineray.datasets.leaks import Clips, check_leaks
from cineray.datasets.signal import SignalConfig
from cineray.datasets.split import Blocks, Selection, SplitConfig, make_split
from cineray.datasets.window import Window
from memory_dataset import Memory, rows_of, two_people

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

    def check(first, gap_s, window=(0, 0)):
        sets = {"train": Examples.of("a", [(0, 0, 2, 20)]), "test": Examples.of("a", [(0, 0, 2 + first, 5)])}
        return check_leaks(
            data, clips, sets, window=Window(first=window[0], last=window[1]), gap_s=gap_s, allow_shared=False
        )

    assert check(25, gap_s=10) == []
    with pytest.raises(LeakError, match=r"'one-19' of train is closer than 10\.5 s"):
        check(25, gap_s=10.5)
    with pytest.raises(LeakError, match="is closer than 10 s"):
        check(24, gap_s=10)
    with pytest.raises(LeakError, match=r"stimulus 'one-19' .1 in all"):
        check(19, gap_s=0)
    assert check(25, gap_s=4, window=(-30, 3)) == []
    with pytest.raises(LeakError, match=r"scan 21 of run 'r' of subject 'a', in train, reaches a stimulus of test"):
        check(25, gap_s=4, window=(-30, 4))
    with pytest.raises(LeakError, match=r"scan 21 .* reaches"):
        check(25, gap_s=0, window=(6, 6))


def test_windows_that_reach_back_into_the_test_block_are_refused():
    data = Memory({"a": 40}).film("one", 60).run("a", "r", "one")
    sets = {"train": Examples.of("a", [(0, 0, 40, 10)]), "test": Examples.of("a", [(0, 0, 2, 20)])}

    def check(window):
        return check_leaks(data, Clips.of(data.stimuli()), sets, window=window, gap_s=0, allow_shared=False)

    assert check(Window(first=-18, last=99)) == []  # the test block ends with scan 21
    with pytest.raises(LeakError, match="scan 40 of run 'r'"):
        check(Window(first=-19, last=0))


def test_a_split_for_one_window_is_refused_with_a_wider_one():
    data = Memory({"a": 40}).film("one", 200).run("a", "r", "one")
    config = SplitConfig(
        train=Selection(blocks=Blocks(num=4, take=(0, 1, 3))), test=Selection(blocks=Blocks(num=4, take=(2,)))
    )
    split, window = make_split(data, config), Window(first=-16, last=16)
    sets = {"train": split.train, "val": split.val, "test": split.test}
    how = {"gap_s": config.gap_s, "allow_shared": False}
    assert check_leaks(data, Clips.of(data.stimuli()), sets, window=Window(), **how) == []
    with pytest.raises(LeakError, match="reaches a stimulus of test"):
        check_leaks(data, Clips.of(data.stimuli()), sets, window=window, **how)


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


@pytest.mark.parametrize("norm", ["run", "causal"])
def test_a_scaled_run_cannot_be_cut_into_train_and_test(norm):
    data = Memory({"a": 40}, norm=norm).film("one", 60).run("a", "r", "one")
    data.film("two", 60).run("a", "s", "two")
    thirds = [Selection(films=("one",), blocks=Blocks(num=3, take=(i,))) for i in range(3)]
    refused(data, "run 'r' .* z-scored over the whole run", train=thirds[0], val=thirds[1], test=thirds[2])
    config = SplitConfig(train=thirds[0], val=thirds[2], test=Selection(films=("two",)))
    assert "train and val share runs that were z-scored as a whole" in make_split(data, config).notes
    data.norm = "none"
    make_split(data, SplitConfig(train=thirds[0], val=thirds[1], test=thirds[2]))


@pytest.mark.parametrize("asked", [{"detrend": 0}, {"high_pass_s": 128.0}])
def test_a_run_whose_drift_was_fitted_as_a_whole_cannot_be_cut_into_train_and_test(asked):
    config = SignalConfig(zscore="none", **asked)
    data = Memory({"a": 40}, signal=config.model_dump(mode="json") | config.notes()).film("one", 60)
    data.run("a", "r", "one").film("two", 60).run("a", "s", "two")
    halves = [Selection(films=("one",), blocks=Blocks(num=2, take=(i,))) for i in range(2)]
    refused(data, "run 'r' .* freed of drift over the whole run", train=halves[0], val=VAL, test=halves[1])
