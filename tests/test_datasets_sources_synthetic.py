"""The synthetic source: what is shown to whom and when, and that nothing changes what was there before."""

import math

import numpy as np
import pytest

from cineray.core.errors import ConfigError
from cineray.datasets.sources.base import Recording, Stimulus
from cineray.datasets.sources.synthetic import RECIPE, SyntheticConfig

SMALL = SyntheticConfig(
    num_subjects=2,
    minutes=3,
    test_minutes=1.5,
    run_minutes=1,
    repeats=2,
    rest_s=5,
    tr_s=2,
    fps=4,
    frame_px=8,
    voxels=(20, 60),
)


def recordings(source: SyntheticConfig) -> dict[tuple[str, str], Recording]:
    return {(r.subject, r.run): r for r in source.recordings()}


def stimuli(source: SyntheticConfig) -> dict[str, Stimulus]:
    return {s.stimulus_id: s for s in source.stimuli()}


def assert_contains(source: SyntheticConfig, before: SyntheticConfig) -> None:
    """Everything of ``before`` is in ``source``, byte for byte."""
    more = recordings(source)
    for key, recording in recordings(before).items():
        assert more[key].brain.tobytes() == recording.brain.tobytes(), key
        assert more[key].stimulus_id == recording.stimulus_id
    shown = stimuli(source)
    for name, stimulus in stimuli(before).items():
        assert shown[name].caption == stimulus.caption
        for target, values in stimulus.targets.items():
            assert shown[name].targets[target].tobytes() == values.tobytes(), name


def test_runs_rest_and_repeats():
    found = recordings(SMALL)
    runs = ["train-00", "train-01", "train-02"] + [f"test-{n:02d}-repeat-{r}" for r in (0, 1) for n in (0, 1)]
    assert list(found) == [(subject, run) for subject in ("sub-01", "sub-02") for run in runs]
    for (subject, run), recording in found.items():
        film, number = run.split("-")[0], int(run.split("-")[1])
        shown = 15 if run.startswith("test-01") else 30  # 30 scans a minute; the test film lasts a minute and a half
        assert recording.repeat == (int(run[-1]) if film == "test" else 0)
        assert (
            recording.stimulus_id == [f"{film}-{30 * number + n:05d}" for n in range(shown)] + [None] * 3
        )  # 3 = ⌈5/2⌉
        np.testing.assert_array_equal(recording.offset_s, [0.0] * shown + [math.nan] * 3)
        np.testing.assert_array_equal(recording.onset_s, [2.0 * scan for scan in range(shown + 3)])
        assert recording.tr_s == 2
        assert recording.brain.shape == (shown + 3, SMALL.brain(subject).num_voxels)
        assert recording.brain.dtype == np.float32


@pytest.mark.parametrize(
    ("run_minutes", "num_runs", "longest"), [(1.0, 3, 30), (1.25, 3, 38), (3.0, 1, 90), (0.01, 90, 1)]
)
def test_runs_are_as_long_as_said(run_minutes, num_runs, longest):
    source = SMALL.override({"run_minutes": run_minutes, "num_subjects": 1, "rest_s": 0})
    lengths = [len(r.brain) for r in source.recordings() if r.run.startswith("train")]
    assert (len(lengths), max(lengths), sum(lengths)) == (num_runs, longest, 90)


def test_stimuli_are_the_film_scan_by_scan():
    found = stimuli(SMALL)
    assert list(found) == [f"train-{n:05d}" for n in range(90)] + [f"test-{n:05d}" for n in range(45)]
    specs = SMALL.targets()
    for film in ("train", "test"):
        pictures = SMALL.film(film).frames(8)
        for number in (0, 7, 44):
            stimulus = found[f"{film}-{number:05d}"]
            assert (stimulus.film, stimulus.onset_s, stimulus.length_s) == (film, 2.0 * number, 2.0)
            assert stimulus.group == stimulus.stimulus_id
            assert stimulus.caption == SMALL.film(film).caption(number)
            assert {t: (str(v.dtype), v.shape) for t, v in stimulus.targets.items()} == {
                t: (spec.dtype, spec.shape) for t, spec in specs.items()
            }
            np.testing.assert_array_equal(stimulus.targets["frames"], pictures[8 * number : 8 * number + 8])
    few = [s.targets["frames"] for s in SMALL.override({"frame_step": 4}).stimuli()]
    all_of_them = [s.targets["frames"] for s in SMALL.stimuli()]
    np.testing.assert_array_equal(np.stack(few), np.stack(all_of_them)[:, ::4])
    blind = SMALL.override({"frames": False})
    assert list(blind.targets()) == ["features"]
    assert all(list(s.targets) == ["features"] for s in blind.stimuli())
    assert not np.array_equal(found["train-00000"].targets["features"], found["test-00000"].targets["features"])


def test_scans_are_a_baseline_and_what_was_shown_convolved():
    quiet = SMALL.override({"noise": 0, "num_subjects": 1})
    brain, found = quiet.brain("sub-01"), recordings(quiet)
    units = brain.atlas.units(quiet.simple("train")) - brain.centre
    for number in range(3):
        shown = np.zeros((33 * 8, units.shape[1]))  # a run begins and ends at rest
        shown[: 30 * 8] = units[240 * number : 240 * (number + 1)]
        evoked = np.stack([np.convolve(unit, brain.hrf)[: len(shown) : 8] for unit in shown.T], axis=1)
        expected = 100 + evoked @ brain.mixture.T
        np.testing.assert_allclose(found["sub-01", f"train-{number:02d}"].brain, expected, atol=1e-4)


def test_repeats_share_the_signal_and_differ_in_noise():
    quiet, noisy = recordings(SMALL.override({"noise": 0})), recordings(SMALL)
    noise = {key: recording.brain - quiet[key].brain for key, recording in noisy.items()}
    for subject in SMALL.subjects:
        first, second = (subject, "test-00-repeat-0"), (subject, "test-00-repeat-1")
        np.testing.assert_array_equal(quiet[first].brain, quiet[second].brain)
        assert noise[first].std() > 0.5
        assert abs(np.corrcoef(noise[first].ravel(), noise[second].ravel())[0, 1]) < 0.2
        assert abs(np.corrcoef(noise[first].ravel(), noise[subject, "train-00"].ravel())[0, 1]) < 0.2


def test_people_with_as_many_voxels_have_noise_of_their_own():
    found = recordings(SMALL.override({"voxels": (40, 40)}))
    silent = [found[subject, "train-00"].brain[:, -4:].ravel() for subject in SMALL.subjects]
    assert abs(np.corrcoef(silent[0], silent[1])[0, 1]) < 0.3


def test_equal_settings_give_equal_bytes_and_seeds_differ():
    assert_contains(SMALL.override({}), SMALL)
    other, one = recordings(SMALL.override({"seed": 1})), recordings(SMALL)
    assert all(other[key].brain[:, :20].tobytes() != r.brain[:, :20].tobytes() for key, r in one.items())
    assert [s.caption for s in SMALL.override({"seed": 1}).stimuli()] != [s.caption for s in SMALL.stimuli()]


@pytest.mark.parametrize("more", [{"num_subjects": 3}, {"minutes": 5}, {"repeats": 3}, {"frames": True}])
def test_more_never_changes_what_was_there(more):
    before = SMALL.override({"frames": False})
    assert_contains(before.override(more), before)


def test_a_longer_test_film_keeps_the_shorter_ones_whole_runs():
    before = SMALL.override({"test_minutes": 1})
    assert_contains(before.override({"test_minutes": 2.5}), before)


def test_everybody_sees_the_test_film_and_with_own_films_nothing_else_in_common():
    own = SMALL.override({"films": "own", "num_subjects": 3})
    found, shown = recordings(own), stimuli(own)
    seen = {
        subject: {shown[name].film for (who, _), r in found.items() if who == subject for name in r.stimulus_id if name}
        for subject in own.subjects
    }
    assert seen == {f"sub-0{n}": {f"train-sub-0{n}", "test"} for n in (1, 2, 3)}
    captions = {
        film: [s.caption for s in shown.values() if s.film == film] for film in ("train-sub-01", "train-sub-02")
    }
    assert len(captions["train-sub-01"]) == len(captions["train-sub-02"]) == 90
    assert captions["train-sub-01"] != captions["train-sub-02"]
    assert {s.film for s in SMALL.stimuli()} == {"train", "test"}
    # The films of the others and the test film are the same for a smaller group.
    assert_contains(own, own.override({"num_subjects": 2}))
    for key, recording in recordings(SMALL).items():
        if key[1].startswith("test"):
            assert found[key].brain.tobytes() == recording.brain.tobytes()


@pytest.mark.parametrize("seed", range(5))
def test_a_long_tr_gives_a_brain_of_numbers(seed):
    """However few scenes ten minutes hold, every shape and colour is seen when weights are scaled."""
    source = SMALL.override({"tr_s": 40.0, "fps": 2, "num_subjects": 1, "frames": False, "seed": seed})
    assert all(np.isfinite(r.brain).all() for r in source.recordings())


def test_the_recipe_is_frozen():
    """Recipe 1 gives these numbers on any machine; other numbers need another `RECIPE`."""
    assert RECIPE == "1"
    recording, stimulus = next(SMALL.recordings()), next(SMALL.stimuli())
    assert recording.brain.shape == (33, 32)
    found = np.take_along_axis(recording.brain[[0, 10, 32]], np.array([[0], [20], [31]]), 1)[:, 0] - 100
    np.testing.assert_allclose(found, [-4.19673, 0.36111, 0.78917], atol=1e-4)
    np.testing.assert_allclose(
        stimulus.targets["features"][[5, 10, 15, 23]], [0.0025, 0.20632, 0.65938, 0.54398], atol=1e-5
    )
    assert stimulus.caption == "a small cyan ring moves down right, fast"


def test_notes_say_how_to_make_it_again():
    notes = SMALL.notes()
    assert notes["settings"] == SMALL.model_dump(mode="json")
    assert notes["fingerprint"] == SMALL.fingerprint()
    assert (notes["recipe"], notes["licence"]) == ("synthetic 1", "Apache-2.0")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            {"tr_s": 0.3},
            "SyntheticConfig: tr_s times fps is 2.4, expected a whole number from 2; change one of the two",
        ),
        ({"frame_px": 30}, "SyntheticConfig: frame_px is 30, expected a multiple of 4; choose another"),
        ({"voxels": (50, 20)}, r"SyntheticConfig: voxels is \(50, 20\), expected two rising numbers of at least 10"),
        ({"voxels": (5, 20)}, r"SyntheticConfig: voxels is \(5, 20\), expected two rising numbers of at least 10"),
        ({"noise": -1}, "setting 'noise' of SyntheticConfig: .* greater than or equal to 0, found -1"),
        ({"minutes": 0}, "setting 'minutes' of SyntheticConfig: .* greater than 0, found 0"),
        ({"minutes": math.inf}, "setting 'minutes' of SyntheticConfig: .* finite number, found inf"),
        ({"films": "mine"}, "setting 'films' of SyntheticConfig: .*'shared' or 'own', found 'mine'"),
        ({"subjects": 3}, "setting 'subjects' of SyntheticConfig: Extra inputs are not permitted, found 3"),
    ],
)
def test_bad_settings_are_one_sentence(bad, message):
    with pytest.raises(ConfigError, match=f"^{message}") as caught:
        SyntheticConfig.parse(bad)
    assert "\n" not in str(caught.value)
