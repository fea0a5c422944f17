"""Signal preparation against lstsq, a loop over time, and impulses whose place is known."""

import numpy as np
import pytest
from scipy.fft import dct

from cineray.core.errors import ConfigError, DataError
from cineray.datasets.drift import drift_basis, remove_drift
from cineray.datasets.signal import SignalConfig, pair_with_lag, prepare, prepared
from cineray.datasets.sources.base import Recording

RNG = np.random.default_rng(5)


def recording(scans=60, voxels=5, tr_s=2.0, clip_s=2.0, run="a", brain=None, subject="s1"):
    """A film of clips of ``clip_s`` each, from the first scan on."""
    onset_s = np.arange(scans) * tr_s
    clip = (onset_s / clip_s + 1e-9).astype(int)
    brain = RNG.normal(3, 2, (scans, voxels)) if brain is None else brain
    return Recording(subject, run, 0, tr_s, brain, onset_s, [f"c{i}" for i in clip], onset_s - clip * clip_s)


def lengths(rec, clip_s=2.0):
    return {name: clip_s for name in rec.stimulus_id if name}


def test_an_impulse_follows_the_lag_and_the_array_stays():
    """Specs 2.4: the response to clip i stands in scan i + lag/TR, so that scan must be paired with clip i."""
    clip = 7
    for lag_s in (0.0, 2.0, 4.0, 6.0):
        brain = np.zeros((60, 1))
        brain[clip + int(lag_s / 2)] = 1
        rec = recording(brain=brain)
        moved = pair_with_lag(rec, lag_s, lengths(rec))
        assert moved.stimulus_id[int(brain.argmax())] == f"c{clip}"
        assert moved.offset_s[int(brain.argmax())] == 0
        assert moved.brain is rec.brain
        assert moved.stimulus_id[: int(lag_s / 2)] == [None] * int(lag_s / 2)
        assert moved.stimulus_id.count(None) == int(lag_s / 2), "nothing wraps round, nothing else is lost"


@pytest.mark.parametrize(("tr_s", "clip_s", "lag_s"), [(1.0, 3.0, 4.0), (1.75, 3.0, 4.2), (0.8, 4.0, 5.0), (2, 2, 3.3)])
def test_pairing_equals_a_loop_over_the_screen(tr_s, clip_s, lag_s):
    """A presentation log with pauses and a repeated clip, asked directly what was on at t - lag."""
    log = [(2.0, "x"), (2.0 + clip_s, "y"), (20.0, "x"), (31.3, "z")]

    def screen(moment):
        for start, name in log:
            if start - 1e-9 <= moment < start + clip_s - 1e-9:
                return name, moment - start
        return None, np.nan

    onset_s = np.arange(40) * tr_s
    now = [screen(t) for t in onset_s]
    rec = Recording(
        "s", "r", 0, tr_s, np.ones((40, 1)), onset_s, [n for n, _ in now], np.array([o for _, o in now], float)
    )
    moved = pair_with_lag(rec, lag_s, dict.fromkeys("xyz", clip_s))
    expected = [screen(t) for t in onset_s - lag_s]
    assert moved.stimulus_id == [name for name, _ in expected]
    np.testing.assert_allclose(moved.offset_s, [o for _, o in expected], atol=1e-9)


@pytest.mark.parametrize(("first_s", "scans"), [(-2.0, 245), (0.0, 246)])
def test_cc2017_keeps_all_240_clips(first_s, scans):
    """Specs 2.4: the scanner starts 2 s into the film or with it; clip i is volume i+1 or i+2, clip 0 included."""
    log = [(first_s + 2.0 * i, f"c{i}") for i in range(240)]
    onset_s = np.arange(scans) * 2.0
    now = [next((n for t, n in log if t <= s < t + 2), None) for s in onset_s]
    rec = Recording(
        "s", "r", 0, 2.0, np.ones((scans, 1)), onset_s, now, np.where([n is None for n in now], np.nan, 0), tuple(log)
    )
    moved = pair_with_lag(rec, 4.0, {name: 2.0 for _, name in log})
    first = 1 if scans == 245 else 2
    assert moved.stimulus_id == [None] * first + [f"c{i}" for i in range(240)] + [None] * 4


def test_rest_stays_rest():
    rec = Recording("s", "rest", 0, 1.0, np.ones((5, 1)), np.arange(5.0), [None] * 5, np.full(5, np.nan))
    moved = pair_with_lag(rec, 4.0, {})
    assert moved.stimulus_id == [None] * 5
    assert np.isnan(moved.offset_s).all()


@pytest.mark.parametrize(("order", "high_pass_s"), [(0, None), (4, None), (None, 40.0), (1, 128.0), (2, 30.0)])
def test_drift_equals_least_squares(order, high_pass_s):
    scans, tr_s = 90, 1.5
    brain = RNG.normal(size=(scans, 4)).cumsum(0)
    t = np.linspace(0, 1, scans)
    design = [t**k for k in range((order if order is not None else -1) + 1)]
    if high_pass_s:  # scipy's own transform of the unit vectors gives the cosines
        cosines = dct(np.eye(scans), norm="ortho", axis=0)
        design += [cosines[k] for k in range(scans) if k == 0 or 2 * scans * tr_s / k >= high_pass_s]
    X = np.stack(design, 1)
    expected = brain - X @ np.linalg.lstsq(X, brain, rcond=None)[0]
    basis = drift_basis(np.arange(scans) * tr_s, tr_s, order, high_pass_s)
    np.testing.assert_allclose(remove_drift(brain, basis), expected, atol=1e-9)


def test_high_pass_keeps_fast_and_removes_slow():
    t = np.arange(400.0)
    slow, fast = np.cos(2 * np.pi * (t + 0.5) / 400), np.cos(2 * np.pi * (t + 0.5) / 20)
    left = remove_drift(np.stack([slow, fast], 1), drift_basis(t, 1.0, None, 100.0))
    assert np.abs(left[:, 0]).max() < 1e-9
    np.testing.assert_allclose(left[:, 1], fast, atol=1e-9)


def test_zscore_is_per_run_and_voxel():
    rec = recording()
    out = prepare(rec, SignalConfig(), lengths(rec)).brain
    expected = np.stack([(v - sum(v) / len(v)) / np.sqrt(sum((v - v.mean()) ** 2) / len(v)) for v in rec.brain.T], 1)
    np.testing.assert_allclose(out, expected, atol=1e-6)
    assert out.dtype == np.float32


def causal(calibration_s=20.0, **changes):
    return SignalConfig(zscore="causal", calibration_s=calibration_s, **changes)


def test_causal_scaling_equals_a_loop_over_the_past():
    rec = recording(brain=RNG.normal(5000, 2, (60, 5)))  # as large as raw BOLD
    out = prepare(rec, causal(), lengths(rec))
    for scan in range(60):
        past = rec.brain[: max(scan + 1, 10)]  # 20 s at 2 s
        np.testing.assert_allclose(out.brain[scan], (rec.brain[scan] - past.mean(0)) / past.std(0), atol=1e-5)
    assert out.stimulus_id == [None] * 10 + rec.stimulus_id[10:]
    np.testing.assert_array_equal(np.isnan(out.offset_s), np.arange(60) < 10)


def test_causal_scaling_knows_nothing_of_the_future():
    rec = recording()
    changed = recording(brain=np.concatenate([rec.brain[:30], RNG.normal(50, 9, (30, 5))]))
    before, after = (prepare(r, causal(lag_s=4.0), lengths(r)).brain for r in (rec, changed))
    np.testing.assert_array_equal(before[:30], after[:30])
    assert not np.allclose(before[30:], after[30:])


def test_causal_scaling_needs_a_calibration_with_a_signal():
    rec = recording()
    for calibration_s, num in ((2.0, 1), (500.0, 60)):
        with pytest.raises(DataError, match=rf"{num} of 60 scans .* calibrate it.*change signal.calibration_s"):
            prepare(rec, causal(calibration_s), lengths(rec))
    rec.brain[:10, 3] = 7.0
    with pytest.raises(DataError, match="1 of 5 voxels that are constant"):
        prepare(rec, causal(), lengths(rec))
    with pytest.raises(ConfigError, match="only zscore=causal calibrates"):
        SignalConfig.parse({"calibration_s": 30})
    with pytest.raises(ConfigError, match="knows only the past"):
        SignalConfig.parse({"zscore": "causal", "detrend": 4})


def test_nothing_of_another_run_matters():
    """Replacing the test run by noise changes no training value (specs 9.4)."""
    config = SignalConfig(lag_s=4, detrend=2, high_pass_s=60, zscore="run")
    train, test = recording(run="train"), recording(run="test")
    noise = recording(run="test", brain=RNG.normal(50, 9, (60, 5)))
    before = list(prepared(lambda: [train, test], config, lengths(train)))
    after = list(prepared(lambda: [train, noise], config, lengths(train)))
    np.testing.assert_array_equal(before[0].brain, after[0].brain)
    assert not np.allclose(before[1].brain, after[1].brain)


def test_none_keeps_every_value():
    rec = recording()
    np.testing.assert_array_equal(
        prepare(rec, SignalConfig(zscore="none"), lengths(rec)).brain, rec.brain.astype(np.float32)
    )


def test_voxel_ranges():
    rec = recording(voxels=9)
    out = prepare(rec, SignalConfig(zscore="none", voxels=((6, 9), (0, 1))), lengths(rec))
    np.testing.assert_array_equal(out.brain, rec.brain[:, [6, 7, 8, 0]].astype(np.float32))
    with pytest.raises(DataError, match=r"9 voxels.*\[5, 10\)"):
        prepare(rec, SignalConfig(voxels=((5, 10),)), lengths(rec))


def broken(column, value):
    brain = RNG.normal(100, 2, (60, 5))
    brain[:, column] = value
    return brain


@pytest.mark.parametrize("value", [7.25, np.nan, np.inf, 3 * np.arange(60.0)], ids=["flat", "nan", "inf", "ramp"])
def test_a_voxel_without_signal_is_refused_or_dropped_in_all_runs(value):
    config = SignalConfig(detrend=1)
    first, second = recording(run="a", brain=broken(3, value)), recording(run="b")
    with pytest.raises(DataError, match=r"s1, run 'a' has 1 of 5 voxels .*first: 3"):
        prepare(first, config, lengths(first))
    other = recording(run="a", subject="s2")
    dropping = config.override({"bad_voxels": "drop"})
    a, b, c = prepared(lambda: [first, second, other], dropping, lengths(first))
    assert a.brain.shape == b.brain.shape == (60, 4)
    assert c.brain.shape == (60, 5), "another subject keeps its own voxels"
    np.testing.assert_allclose(b.brain, prepare(second, config, lengths(second)).brain[:, [0, 1, 2, 4]], atol=1e-6)


def test_an_empty_run_is_refused_even_when_dropping():
    rec = recording(brain=np.full((60, 5), np.nan))
    with pytest.raises(DataError, match="no voxel with a signal"):
        list(prepared(lambda: [rec], SignalConfig(bad_voxels="drop"), lengths(rec)))


def test_voxel_counts_must_agree_within_a_subject():
    config = SignalConfig(bad_voxels="drop")
    runs = [recording(voxels=5), recording(voxels=4, run="b")]
    with pytest.raises(DataError, match="has 4 voxels, another run of s1 has 5"):
        list(prepared(lambda: runs, config, lengths(runs[0])))


def test_values_beyond_float16_are_refused():
    rec = recording(brain=RNG.normal(70000, 1, (60, 2)))
    with pytest.raises(DataError, match="zscore=run"):
        prepare(rec, SignalConfig(zscore="none"), lengths(rec))
    prepare(rec, SignalConfig(), lengths(rec))


def test_too_much_drift_and_bad_settings():
    rec = recording(scans=6)
    with pytest.raises(DataError, match="7 drift terms from 6 scans"):
        prepare(rec, SignalConfig(detrend=6), lengths(rec))
    with pytest.raises(ConfigError):
        SignalConfig.parse({"lag_s": -1})


def test_notes_name_the_rule_and_leave_the_upstream_one():
    """The leak check reads ``norm``: a source that comes z-scored over whole runs must keep saying so."""
    upstream = {"norm": "run", "licence": "x"}
    assert (upstream | SignalConfig.suiting("song").notes())["norm"] == "run"
    assert SignalConfig(lag_s=4).notes()["norm"] == "run"
    assert "norm" not in SignalConfig(zscore="none").notes()
    assert SignalConfig.suiting("arrays") == SignalConfig()
