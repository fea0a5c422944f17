"""BOLD Moments in small files laid out as in ds005165: order of trials, repeats, whose statistics, videos and words."""

import json
import os
import pickle

import numpy as np
import pytest

from cineray.core.errors import ConfigError, DataError
from cineray.datasets.dataset import Dataset
from cineray.datasets.ingest import ingest
from cineray.datasets.sources.bold_moments import BoldMomentsConfig
from cineray.datasets.split import SplitConfig, make_split
from cineray.datasets.video import write_mp4

VERTICES = 7
SESSIONS = (2, 3)
GLM = "derivatives/versionB/fsLR32k/GLM"


def runs_of(rng):
    """A session as published: three test runs of 85 trials, then ten training runs of 75."""
    test = np.concatenate([rng.permutation(np.arange(1001, 1103)) for _ in range(3)])[:255]
    train = rng.permutation(np.arange(1, 751))
    return [("test", part) for part in np.split(test, 3)] + [("train", part) for part in np.split(train, 10)]


def write_session(folder, subject, session, runs, betas):
    home = folder / GLM / subject / f"ses-{session:02d}"
    home.mkdir(parents=True)
    np.save(home / "TYPED_FITHRF_GLMDENOISE_RR.npy", np.array({"betasmd": betas.T[:, None, None], "R2": None}, object))
    listed = [
        {"trial_type": [f"vid{v:04d}" for v in videos], "onset": [np.float64(4 * i) for i in range(len(videos))]}
        for _, videos in runs
    ]
    conditions = sorted({name for run in listed for name in run["trial_type"]})
    (home / f"{subject}_ses-{session:02d}_conditionOrderDM.pkl").write_bytes(pickle.dumps((listed, conditions)))
    raw = folder / subject / f"ses-{session:02d}" / "func"
    raw.mkdir(parents=True)
    for number, (part, videos) in enumerate(runs):
        number = number + 1 if part == "test" else number - 2
        lines = ["onset\tduration\tstim_file", "0\t8\tn/a"]
        lines += [f"{4 * i + 8}\t3\tstimuli/{part}/{v:04d}.mp4" for i, v in enumerate(videos)]
        path = raw / f"{subject}_ses-{session:02d}_task-{part}_run-{number}_events.tsv"
        path.write_text("\n".join(lines))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """One subject, two sessions; what was shown and measured, trial by trial."""
    folder, rng = tmp_path_factory.mktemp("bmd"), np.random.default_rng(4)
    trials = {}
    for session in SESSIONS:
        runs = runs_of(rng)
        videos = np.concatenate([part for _, part in runs])
        betas = rng.normal(session, session, (len(videos), VERTICES)).astype(np.float32)
        write_session(folder, "sub-01", session, runs, betas)
        trials[session] = videos, betas
    return folder, trials


def test_sessions_of_the_glm(study):
    folder, trials = study
    found = list(BoldMomentsConfig(folder=str(folder), norm="none").recordings())
    assert [r.run for r in found] == ["ses-02", "ses-03"]
    for session, r in zip(SESSIONS, found, strict=True):
        videos, betas = trials[session]
        assert ((videos > 1000).sum(), (videos <= 1000).sum()) == (255, 750)
        np.testing.assert_array_equal(r.brain, betas)
        assert r.stimulus_id == [f"vid{v:04d}" for v in videos]
        assert (r.tr_s, r.repeat) == (4.0, 0)


def test_scaled_as_the_authors_do(study):
    """Mean and sd (ddof 1) of a session's training trials for all of its trials."""
    folder, trials = study
    for session, r in zip(SESSIONS, BoldMomentsConfig(folder=str(folder)).recordings(), strict=True):
        videos, betas = trials[session]
        train = betas[videos <= 1000].astype(np.float64)
        np.testing.assert_allclose(r.brain, (betas - train.mean(0)) / train.std(0, ddof=1), atol=1e-5)


def test_test_trials_have_no_say(study, tmp_path):
    folder, trials = study
    for norm in ("session", "train"):
        before = list(BoldMomentsConfig(folder=str(folder), norm=norm).recordings())
        other = tmp_path / norm
        for session in SESSIONS:
            videos, betas = trials[session]
            noise = np.where(videos[:, None] > 1000, 1e4, betas).astype(np.float32)
            runs = [("test", part) for part in np.split(videos[:255], 3)]
            runs += [("train", part) for part in np.split(videos[255:], 10)]
            write_session(other, "sub-01", session, runs, noise)
        for (videos, _), old, new in zip(
            trials.values(), before, BoldMomentsConfig(folder=str(other), norm=norm).recordings(), strict=True
        ):
            np.testing.assert_array_equal(new.brain[videos <= 1000], old.brain[videos <= 1000])
            assert new.brain[videos > 1000].min() > 100


def test_mask_and_split(study, tmp_path):
    folder, trials = study
    keep = np.array([0, 1, 0, 2, 1, 0, 0])
    np.save(tmp_path / "mask.npy", keep)
    settings = {"folder": str(folder), "mask_file": str(tmp_path / "mask.npy"), "norm": "none"}
    manifest = ingest(BoldMomentsConfig.parse(settings), tmp_path / "out")
    assert manifest.subjects == {"sub-01": 3}
    assert manifest.signal["zscore"] == "none"
    dataset = Dataset.open(tmp_path / "out")
    videos, betas = trials[2]
    np.testing.assert_array_equal(
        dataset.gather_samples(np.arange(len(videos))), betas[:, [1, 3, 4]].astype(np.float16)
    )
    split = make_split(dataset, SplitConfig.parse({"train": {"films": ["train"]}, "test": {"films": ["test"]}}))
    assert (len(split.train), len(split.test)) == (1500, 510)
    np.save(tmp_path / "mask.npy", keep[:5])
    with pytest.raises(DataError, match=r"marks 3 of 5 grayordinates, TYPED_FITHRF_GLMDENOISE_RR\.npy has 7"):
        list(BoldMomentsConfig.parse(settings).recordings())


def test_videos_and_words(study, tmp_path):
    """Each video is a ramp of grey: its frames say which video and which moment they are."""
    folder, trials = study
    for part, numbers in (("train", range(1, 1001)), ("test", range(1001, 1103))):
        (tmp_path / part).mkdir()
        for number in numbers:
            path = tmp_path / part / f"{number:04d}.mp4"
            if number in (1, 1102):
                frames = np.arange(30, dtype=np.uint8)[:, None, None, None] * 4 + (100 if number > 1000 else 0)
                write_mp4(np.broadcast_to(frames, (30, 16, 16, 3)).copy(), 10, path, lossless=True)
            else:
                os.link(tmp_path / "train" / "0001.mp4", path)
    words = {f"{n:04d}": {"text_descriptions": [f"video {n}", "else"], "objects": []} for n in range(1, 1103)}
    (tmp_path / "annotations.json").write_text(json.dumps(words))
    config = BoldMomentsConfig.parse(
        {
            "folder": str(folder),
            "videos_folder": str(tmp_path),
            "captions_file": str(tmp_path / "annotations.json"),
            "num_frames": 3,
            "size_px": 8,
        }
    )
    stimuli = {s.stimulus_id: s for s in config.stimuli()}
    assert list(stimuli) == [
        f"vid{v:04d}" for v in np.unique(np.concatenate([videos for videos, _ in trials.values()]))
    ]
    last, first = stimuli["vid1102"], stimuli["vid0001"]
    assert (last.film, last.onset_s, last.length_s, last.caption) == ("test", 303.0, 3.0, "video 1102")
    assert (first.film, first.onset_s, first.group) == ("train", 0.0, "vid0001")
    for s, grey in ((last, 100), (first, 0), (stimuli["vid0500"], 0)):
        assert s.targets["frames"].shape == (3, 8, 8, 3)
        np.testing.assert_array_equal(s.targets["frames"][:, 4, 4, 1], [grey, grey + 40, grey + 80])


@pytest.fixture
def prepared(tmp_path):
    """Five training videos × 3 and two test videos × 10, one repeat missing."""
    rng = np.random.default_rng(6)
    home = tmp_path / GLM / "sub-02" / "prepared_betas"
    home.mkdir(parents=True)
    arrays = {"train": rng.normal(size=(5, 3, VERTICES)), "test": rng.normal(size=(2, 10, VERTICES))}
    arrays["test"][1, 9] = np.nan
    for part, first in (("train", 1), ("test", 1001)):
        names = [f"vid{first + i:04d}" for i in range(len(arrays[part]))]
        path = home / f"sub-02_organized_betas_task-{part}_normalized.pkl"
        path.write_bytes(pickle.dumps((arrays[part], names), protocol=pickle.HIGHEST_PROTOCOL))
    return tmp_path, arrays


def test_prepared_pickles(prepared):
    folder, arrays = prepared
    config = BoldMomentsConfig(folder=str(folder), betas="prepared")
    found = {r.run: r for r in config.recordings()}
    assert list(found) == [f"train_repeat{k}" for k in range(3)] + [f"test_repeat{k}" for k in range(10)]
    for r in found.values():
        part = r.run.partition("_")[0]
        first = 1 if part == "train" else 1001
        for row, name in zip(r.brain, r.stimulus_id, strict=True):
            np.testing.assert_array_equal(row, arrays[part][int(name[3:]) - first, r.repeat])
    assert found["test_repeat9"].stimulus_id == ["vid1001"]
    assert sum(len(r.brain) for r in found.values()) == 5 * 3 + 2 * 10 - 1
    assert [s.film for s in config.stimuli()] == ["train"] * 5 + ["test"] * 2
    with pytest.raises(ConfigError, match="prepared betas do not say which session"):
        BoldMomentsConfig.parse({"folder": str(folder), "betas": "prepared", "sessions": [2]})


class Evil:
    def __reduce__(self):
        return os.system, ("touch stolen",)


def test_pickles_that_run_code_are_refused(prepared, study, monkeypatch, tmp_path):
    folder, arrays = prepared
    monkeypatch.chdir(tmp_path)
    path = folder / GLM / "sub-02/prepared_betas/sub-02_organized_betas_task-test_normalized.pkl"
    path.write_bytes(pickle.dumps((arrays["test"], ["vid1001", Evil()])))
    with pytest.raises(DataError, match=r"names posix\.system, which may run code"):
        list(BoldMomentsConfig(folder=str(folder), betas="prepared").recordings())
    runs = runs_of(np.random.default_rng(0))
    write_session(tmp_path, "sub-01", 2, runs, np.zeros((1005, 2), np.float32))
    home = tmp_path / GLM / "sub-01/ses-02"
    np.save(home / "TYPED_FITHRF_GLMDENOISE_RR.npy", np.array({"betasmd": Evil()}, object))
    with pytest.raises(DataError, match=r"names posix\.system, which may run code"):
        list(BoldMomentsConfig(folder=str(tmp_path)).recordings())
    assert not (tmp_path / "stolen").exists()


@pytest.mark.parametrize(
    ("breaking", "message"),
    [
        (lambda g, r: (r / "sub-01_ses-02_task-test_run-1_events.tsv").unlink(), "list 920 trials.*differ at trial 0"),
        (lambda g, r: np.save(g, np.array({"betas": 1}, object)), "no 'betasmd' of shape"),
        (lambda g, r: np.save(g, np.array({"betasmd": np.zeros((2, 1, 1, 9))}, object)), "9 betas for 1005 trials"),
        (
            lambda g, r: g.with_name("sub-01_ses-02_conditionOrderDM.pkl").write_bytes(pickle.dumps([1])),
            "lists no trial_type",
        ),
        (
            lambda g, r: g.with_name("sub-01_ses-02_conditionOrderDM.pkl").write_bytes(
                pickle.dumps(([{"trial_type": ["vid1103"]}], []))
            ),
            "names video 'vid1103'",
        ),
        (lambda g, r: g.unlink(), "has no ses-02/TYPED"),
    ],
)
def test_one_sentence_for_each_mistake(tmp_path, breaking, message):
    write_session(tmp_path, "sub-01", 2, runs_of(np.random.default_rng(0)), np.zeros((1005, 2), np.float32))
    glm = tmp_path / GLM / "sub-01/ses-02/TYPED_FITHRF_GLMDENOISE_RR.npy"
    breaking(glm, tmp_path / "sub-01/ses-02/func")
    with pytest.raises(DataError, match=message) as caught:
        list(BoldMomentsConfig(folder=str(tmp_path)).recordings())
    assert "\n" not in str(caught.value)


def test_what_is_not_there(study, tmp_path):
    with pytest.raises(DataError, match="no betas of sub-07; it has sub-01"):
        list(BoldMomentsConfig(folder=str(study[0]), subjects=("sub-07",)).recordings())
    with pytest.raises(DataError, match="no betas of session 5; it has 2, 3"):
        list(BoldMomentsConfig(folder=str(study[0]), sessions=(5,)).recordings())
    (tmp_path / "annotations.json").write_text('{"0001": {"words": []}}')
    with pytest.raises(DataError, match=r"annotations\.json is not the annotations.*text_descriptions"):
        list(BoldMomentsConfig(folder=str(study[0]), captions_file=str(tmp_path / "annotations.json")).stimuli())
