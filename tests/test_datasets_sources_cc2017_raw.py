"""cc2017's published folder: trimming, pairing and mask against polyfit and scipy, clips by numbered pictures."""

from itertools import product

import nibabel as nib
import numpy as np
import pytest
from scipy import stats

from cc2017_folder import CORTEX, CUTS, TRAIN, number_of, write_film, write_raw, write_run, write_test_runs
from cineray.core.errors import ConfigError, DataError
from cineray.datasets.dataset import Dataset
from cineray.datasets.ingest import ingest
from cineray.datasets.signal import SignalConfig, pair_with_lag, prepare
from cineray.datasets.sources.cc2017 import Cc2017Config
from cineray.datasets.split import SplitConfig, make_split

PUBLISHED = SignalConfig.suiting("cc2017")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = write_raw(tmp_path_factory.mktemp("cc2017"), np.random.default_rng(1))
    for film in ("seg1", "test2"):
        write_film(folder, film)
    return folder


def config(folder, **changes):
    return Cc2017Config.parse(
        {"folder": str(folder), "subjects": [1], "films": ["seg1", "test1", "test2"], "size_px": 16, **changes}
    )


def volumes(folder, film, repeat):
    """(volumes, cortical columns) by nibabel alone."""
    path = folder / f"Subject01/video_fmri_dataset/subject1/fmri/{film}/cifti/{film}_{repeat}_Atlas.dtseries.nii"
    return np.asarray(nib.load(path).dataobj, np.float64)[:, :CORTEX]


def without_drift(run):
    """Residual of numpy's polynomial fit of order 4 over 0 to 1."""
    t = np.linspace(0, 1, len(run))
    return np.stack([y - np.polyval(np.polyfit(t, y, 4), t) for y in run.T], axis=1)


def lengths(recording):
    return {name: 2.0 for _, name in recording.showings}


@pytest.mark.parametrize(("film", "first", "end"), [("seg1", 1, 241), ("test1", 1, 241), ("test2", 2, 242)])
def test_245_volumes_lose_one_and_four_246_lose_two_and_four(folder, film, first, end):
    runs = [r for r in config(folder, voxels="cortex").recordings() if r.run == f"{film}_2"]
    np.testing.assert_array_equal(runs[0].brain, volumes(folder, film, 2)[first:end])
    assert len(runs[0].brain) == 240


@pytest.mark.parametrize(("film", "start_s", "num"), [("test1", 2, 245), ("test2", 0, 246)])
def test_an_impulse_at_a_clip_appears_in_its_row(tmp_path, film, start_s, num):
    """The response to clip i begins 4 s after film time 2 i; the scanner started ``start_s`` into the film."""
    for clip in (0, 1, 100, 239):
        run = np.zeros((num, CORTEX))
        volume = (2 * clip + 4 - start_s) // 2
        run[volume] = 1
        for repeat in range(1, 11):
            write_run(tmp_path, 1, film, repeat, run)
        source = config(tmp_path, films=[film], voxels="cortex")
        recording = next(source.recordings())
        row = int(recording.brain[:, 0].argmax())
        paired = pair_with_lag(recording, PUBLISHED.lag_s, lengths(recording))
        assert row == clip
        assert paired.stimulus_id[row] == f"{film}-{clip:03d}"
        assert paired.stimulus_id == [f"{film}-{i:03d}" for i in range(240)]
        assert set(paired.offset_s) == {0.0}
        whole = next(source.override({"trim": False}).recordings())
        later = pair_with_lag(whole, 6.0, lengths(whole))
        assert later.stimulus_id[volume] == (f"{film}-{clip - 1:03d}" if clip else None)
        assert sum(name is not None for name in later.stimulus_id) == 240, "at 6 s no clip is lost either"


def test_counts_repeats_and_names(folder):
    runs = list(config(folder).recordings())
    assert [r.run for r in runs] == ["seg1_1", "seg1_2"] + [f"test{f}_{n}" for f in (1, 2) for n in range(1, 11)]
    assert [r.repeat for r in runs] == [0, 1] + [*range(10)] * 2
    assert all(len(r.brain) == 240 and r.subject == "subj01" and r.tr_s == 2 for r in runs)
    assert all(r.onset_s[0] == 4 and r.onset_s[-1] == 482 for r in runs)


def test_the_prepared_run_is_the_published_one(folder):
    """Order 4 over the 240 kept volumes, then mean 0 and sd 1 with ddof 0."""
    recording = next(r for r in config(folder, voxels="cortex").recordings() if r.run == "test2_3")
    found = prepare(recording, PUBLISHED, lengths(recording))
    expected = stats.zscore(without_drift(volumes(folder, "test2", 3)[2:242]), ddof=0)
    np.testing.assert_allclose(found.brain, expected, atol=1e-4)


def expected_p(folder, films=TRAIN[:16]):
    """(columns,) two-sided p: corrcoef, arctanh and scipy's t-test, column by column."""
    runs = {(film, n): without_drift(volumes(folder, film, n)[1:241]) for film in films for n in (1, 2)}
    p = []
    for column in range(CORTEX):
        r = [np.corrcoef(runs[film, 1][:, column], runs[film, 2][:, column])[0, 1] for film in films]
        p.append(stats.ttest_1samp(np.arctanh(r), 0).pvalue)
    return np.array(p)


def test_the_mask_is_that_of_scipy_on_training_showings(folder):
    p = expected_p(folder)
    expected = np.flatnonzero(p * CORTEX < 0.05)
    assert 5 <= len(expected) <= 11, "the columns made to answer alike, or nearly"
    runs = list(config(folder).recordings())
    np.testing.assert_array_equal(runs[3].brain, volumes(folder, "test1", 2)[1:241][:, expected])
    ((first, end),) = [(a, b) for a, b in config(folder).notes()["voxels"]["subj01"]][:1]
    assert list(range(first, end)) == expected[: end - first].tolist()
    assert next(config(folder, alpha=1e-9).recordings()).brain.shape[1] == (p * CORTEX < 1e-9).sum()


def kept_vertices(source):
    return [column for first, end in source.notes()["voxels"]["subj01"] for column in range(first, end)]


def test_validation_segments_have_no_part_in_the_mask_unless_named(tmp_path):
    """With 17 and 18 as published, with noise in their place, and named for the mask as published."""
    write_raw(tmp_path, np.random.default_rng(5))
    noise = np.random.default_rng(98)
    before = {level: kept_vertices(config(tmp_path, alpha=level)) for level in (0.5, 1e-3, 1e-6)}
    for film, repeat in product(TRAIN[16:], (1, 2)):
        write_run(tmp_path, 1, film, repeat, noise.normal(size=(245, CORTEX)))
    assert {level: kept_vertices(config(tmp_path, alpha=level)) for level in before} == before
    p = expected_p(tmp_path, TRAIN)
    for level in before:
        whole = config(tmp_path, alpha=level, mask_films=TRAIN)
        assert kept_vertices(whole) == np.flatnonzero(p * CORTEX < level).tolist()
    assert any(before[level] != kept_vertices(config(tmp_path, alpha=level, mask_films=TRAIN)) for level in before)
    assert kept_vertices(config(tmp_path, keep=3, mask_films=TRAIN[2:5])) == sorted(
        np.argsort(expected_p(tmp_path, TRAIN[2:5]))[:3].tolist()
    )


def test_a_rank_takes_the_smallest_p(folder):
    p = expected_p(folder)
    kept = np.sort(np.argsort(p)[:15])
    found = next(config(folder, keep=15).recordings()).brain
    np.testing.assert_array_equal(found, volumes(folder, "seg1", 1)[1:241][:, kept])


def test_a_flat_vertex_is_never_kept_as_reproducible(tmp_path):
    write_raw(tmp_path, np.random.default_rng(2))
    for repeat in (1, 2):
        run = volumes(tmp_path, "seg7", repeat)
        run[:, 9] = 3.25
        write_run(tmp_path, 1, "seg7", repeat, run)
    ranges = config(tmp_path).notes()["voxels"]["subj01"]
    kept = {column for first, end in ranges for column in range(first, end)}
    assert 8 in kept
    assert 9 not in kept


def test_nothing_learned_changes_when_test_runs_become_noise(tmp_path):
    write_raw(tmp_path, np.random.default_rng(3))
    before = config(tmp_path)
    trained, kept = [r.brain for r in before.recordings() if r.run.startswith("seg")], before.notes()["voxels"]
    write_test_runs(tmp_path, np.random.default_rng(99))
    after = config(tmp_path)
    assert after.notes()["voxels"] == kept
    changed = {r.run: r.brain for r in after.recordings()}
    for brain, run in zip(trained, ("seg1_1", "seg1_2"), strict=True):
        np.testing.assert_array_equal(changed[run], brain)


def test_the_bad_run_is_left_out_unless_asked_for(tmp_path):
    rng = np.random.default_rng(4)
    for repeat in range(1, 11):
        write_run(tmp_path, 3, "test2", repeat, rng.normal(size=(246, CORTEX)))
    source = config(tmp_path, subjects=[3], films=["test2"], voxels="cortex")
    assert [r.run for r in source.recordings()] == [f"test2_{n}" for n in (1, 2, 3, 4, 5, 6, 7, 8, 10)]
    assert source.notes()["left_out"] == ["subj03 test2_9"]
    assert len(list(source.override({"keep_bad_run": True}).recordings())) == 10


def test_a_run_out_of_step_is_told_and_not_shifted(tmp_path):
    """Repeat 9 records what the others recorded five volumes before."""
    rng = np.random.default_rng(6)
    shown, runs = rng.normal(size=(256, CORTEX)), {}
    for repeat in range(1, 11):
        late = 5 if repeat == 9 else 0
        runs[repeat] = 50 + shown[10 - late : 256 - late] + rng.normal(size=(246, CORTEX))
        write_run(tmp_path, 3, "test2", repeat, runs[repeat])
    source = config(tmp_path, subjects=[3], films=["test2"], voxels="cortex", keep_bad_run=True)
    assert source.notes()["late_by_volumes"] == {"subj03 test2_9": 5}
    assert source.override({"keep_bad_run": False}).notes()["late_by_volumes"] == {}
    ninth = list(source.recordings())[8]
    np.testing.assert_array_equal(ninth.brain, runs[9][2:242].astype(np.float32))


def test_a_clip_holds_the_pictures_of_its_two_seconds_and_belongs_to_a_shot(folder):
    stimuli = list(config(folder, films=["seg1"]).stimuli())
    assert len(stimuli) == 240
    for number, stimulus in enumerate(stimuli):
        assert stimulus.stimulus_id == f"seg1-{number:03d}"
        assert stimulus.onset_s == 2 * number
        assert [number_of(p) for p in stimulus.targets["frames"]] == list(range(6 * number, 6 * number + 6))
        shot = sum(cut <= 6 * number for cut in CUTS)
        assert stimulus.group == f"seg1-scene-{shot:04d}"
    assert next(config(folder, films=["seg1"], groups="clip").stimuli()).group == "seg1-clip-000"


def test_shards_pair_each_row_with_its_clip(folder, tmp_path):
    ingest(config(folder, films=["seg1", "test2"]), tmp_path / "data")
    dataset = Dataset.open(str(tmp_path / "data"))
    assert [run.num_rows for run in dataset.runs] == [240] * 12
    assert {(run.film, run.repeat) for run in dataset.runs} >= {("seg1", 1), ("test2", 9)}
    for run in dataset.runs:
        rows = dataset.gather_stimulus_rows(np.arange(run.first_row, run.first_row + 240))
        np.testing.assert_array_equal(rows, np.arange(240) + (240 if run.film == "test2" else 0))
    split = make_split(dataset, SplitConfig.parse({"train": {"films": ["seg1"]}, "test": {"films": ["test2"]}}))
    assert (len(split.train), len(split.test)) == (480, 2400)


def test_what_is_missing_or_wrong_is_one_sentence(folder, tmp_path):
    with pytest.raises(DataError, match=r"there is no run .*test3_1_Atlas"):
        list(config(folder, films=["test3"]).recordings())
    with pytest.raises(DataError, match=r"there is no film .*test1\.mp4"):
        next(config(folder, films=["test1"]).stimuli())
    write_run(tmp_path, 1, "test2", 1, np.ones((245, CORTEX)))
    with pytest.raises(DataError, match="has 245 volumes, a run of test2 has 246"):
        next(config(tmp_path, films=["test2"], voxels="cortex").recordings())
    write_run(tmp_path, 1, "seg1", 1, volumes(folder, "seg1", 1))
    write_run(tmp_path, 1, "seg1", 2, volumes(folder, "seg1", 1))
    with pytest.raises(DataError, match="both runs of seg1 of subject 1 are the same recording"):
        next(config(tmp_path, films=["seg1"]).recordings())
    for wrong in ({"films": ["seg19"]}, {"subjects": [4]}, {"layout": "released", "keep": 5}):
        with pytest.raises(ConfigError):
            config(folder, **wrong)
    for films in (["seg1", "test1"], ["seg1"], ["seg1", "seg2", "seg1"]):
        with pytest.raises(ConfigError, match="expected two or more of seg1 to seg18, each once; test films never"):
            config(folder, mask_films=films)
