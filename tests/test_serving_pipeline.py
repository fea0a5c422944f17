"""A run folder answers for one recording what prediction writes for a split; damage is refused."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from cineray.core.errors import CinerayError, ConfigError, DataError, IntegrityError
from cineray.core.storage import Store
from cineray.datasets.ingest import ingest
from cineray.datasets.view import Window
from cineray.serving.gallery import Gallery, clip_correlations
from cineray.serving.pipeline import Pipeline, windows
from cineray.serving.tensors import StoredTensors
from cineray.training.checkpoint import best, read_manifest
from cineray.training.metrics.similarity import pearson_matrix
from cineray.training.models import MODELS
from cineray.training.models.base import ClosedForm, Sizes
from cineray.training.predict import predict
from films import FilmSource
from tiny_run import TEST_RUN, tiny_run


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return tiny_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def pipeline(run_dir):
    return Pipeline.open(run_dir)


ANY_TARGET = [model().name for model in MODELS if not {"target", "semantic"} & set(model.model_fields)]
"""Models that predict whatever the view has; others want a target of their own."""


def model_class(name):
    config = next(model() for model in MODELS if model().name == name)
    return type(config.build(Sizes({"a": 5}, 1, {"features": (2,)})))


def held_out(pipeline, subject):
    run = next(r for r in pipeline.dataset.runs if (r.subject, r.run) == (subject, TEST_RUN))
    rows = np.array(run.rows)
    return rows, pipeline.dataset.gather_samples(rows)


def test_a_held_out_run_gives_the_numbers_of_predict(run_dir, pipeline):
    expected = predict(run_dir, "test")
    assert pipeline.card.step == expected.step
    for subject in pipeline.card.voxels:
        rows, recording = held_out(pipeline, subject)
        mine = (expected.subject == subject) & (expected.run == TEST_RUN)
        assert mine.sum() > 20
        found = pipeline.predict(subject, recording)["features"]
        np.testing.assert_array_equal(found[expected.sample_row[mine] - rows[0]], expected.predicted["features"][mine])


SCALED = {
    "all": {},
    "brain": {"view__raw_targets": ["features"]},
    "nothing": {"view__normalise": False},
}


@pytest.mark.parametrize("scaled", SCALED)
@pytest.mark.parametrize("name", ANY_TARGET)
def test_every_model_gives_the_numbers_of_predict(tmp_path, name, scaled):
    solved = {"optim__epochs": 0} if issubclass(model_class(name), ClosedForm) else {}
    sizes = {"model__dim": 5} if name in ("shared", "srm") else {}
    changes = {"model__name": name} | SCALED[scaled] | solved | sizes
    run_dir = tiny_run(tmp_path, voxels=(20, 20), **changes)
    pipeline, expected = Pipeline.open(run_dir), predict(run_dir, "test")
    rows, recording = held_out(pipeline, "sub-02")
    mine = (expected.subject == "sub-02") & (expected.run == TEST_RUN)
    found = pipeline.predict("sub-02", recording)["features"]
    assert np.ptp(found) > 0
    np.testing.assert_allclose(
        found[expected.sample_row[mine] - rows[0]], expected.predicted["features"][mine], rtol=1e-6, atol=1e-6
    )


def test_decoded_together_or_alone_or_in_small_steps(pipeline, monkeypatch):
    decoder = pipeline.subject("sub-01")
    recording = held_out(pipeline, "sub-01")[1].astype(np.float32)
    recordings = [recording, recording[:1], recording[3:9], -recording]
    together = decoder.predict(recordings)
    monkeypatch.setattr("cineray.serving.pipeline.STEP_BYTES", 7 * 4 * 4 * recording.shape[1])
    for own, x in zip(together, recordings, strict=True):
        assert own["features"].shape == (len(x), 80)
        np.testing.assert_allclose(own["features"], decoder.predict([x])[0]["features"], rtol=0, atol=1e-6)


def test_windows_repeat_the_outermost_scans():
    found = windows(4, Window(first=-2, last=1))
    loop = [[min(max(scan + k, 0), 3) for k in range(-2, 2)] for scan in range(4)]
    assert found.tolist() == loop


def test_only_the_trunk_is_read_until_a_subject_is_asked_for(run_dir, monkeypatch):
    read = []
    original = StoredTensors.read
    monkeypatch.setattr(
        StoredTensors, "read", lambda self, names: read.extend(names := list(names)) or original(self, names)
    )
    pipeline = Pipeline.open(run_dir)
    assert read
    assert not any("sub-" in name for name in read)
    read.clear()
    first, second = pipeline.subject("sub-02"), pipeline.subject("sub-03")
    assert {part for name in read for part in name.replace("/", ".").split(".") if part.startswith("sub-")} == {
        "sub-02",
        "sub-03",
    }
    shared = [name for name, _ in first.model.named_parameters() if "read_in" not in name]
    assert shared
    for name in shared:
        assert first.model.get_parameter(name).data_ptr() == second.model.get_parameter(name).data_ptr()


def test_stored_tensors_equal_the_safetensors_library(run_dir):
    store = Store.at(run_dir)
    manifest = read_manifest(store, best(store))
    stored = StoredTensors(store, manifest, "weights")
    files = Path(run_dir).glob(f"checkpoints/{manifest.step:08d}/weights-*")
    library = {k: v for file in files for k, v in safetensors.torch.load_file(file).items()}
    assert set(library) == {f"weights/{name}" for name in stored.places}
    for name, tensor in stored.read(stored.places).items():
        assert torch.equal(tensor, library[f"weights/{name}"])


def test_a_flipped_bit_in_any_served_file_is_refused(tmp_path):
    run_dir = tiny_run(tmp_path)
    step = Pipeline.open(run_dir).card.step
    served = [
        p for p in Path(run_dir).glob(f"checkpoints/{step:08d}/*") if p.name.split("-")[0] in ("weights", "normaliser")
    ]
    assert len(served) == 2
    for path in served:
        data = path.read_bytes()
        path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
        with pytest.raises(IntegrityError, match="sha256"):
            Pipeline.open(run_dir)
        path.write_bytes(data)
    Pipeline.open(run_dir)


def test_a_data_set_that_moved_can_be_named(tmp_path):
    run_dir = tiny_run(tmp_path)
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    with pytest.raises(CinerayError, match="data"):
        Pipeline.open(run_dir)
    assert Pipeline.open(run_dir, dataset_url=str(tmp_path / "elsewhere")).card.tr_s == 2


def test_wrong_folders_and_subjects_are_named(tmp_path, run_dir, pipeline):
    with pytest.raises(DataError, match="no subject"):
        pipeline.predict("sub-99", np.zeros((3, 20), np.float32))
    with pytest.raises(CinerayError, match=r"run\.yaml"):
        Pipeline.open(str(tmp_path / "nothing"))
    ingest(FilmSource(), tmp_path / "other")
    trained = read_manifest(Store.at(run_dir), pipeline.card.step).data
    with pytest.raises(ConfigError, match=rf"other has fingerprint \w{{16}}, .* was made from {trained}; publish"):
        Pipeline.open(run_dir, dataset_url=str(tmp_path / "other"))


def a_gallery(features, tr_s=2.0):
    """Two films out of order: one of 6 stimuli with a pause after the third, one of 2 long ones."""
    onset = np.array([4.0, 0.0, 2.0, 20.0, 22.0, 24.0, 0.0, 5.0])
    length = np.array([2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 5.0, 5.0])
    film = ["a"] * 6 + ["b"] * 2
    return Gallery([f"{f}{t:g}" for f, t in zip(film, onset, strict=True)], film, onset, length, features, tr_s)


def test_candidates_follow_the_film_and_stop_at_pauses():
    gallery = a_gallery(np.zeros((8, 2)))
    for num_scans in (1, 2, 3, 4):
        expected = []
        for film in ("a", "b"):
            starts = sorted((gallery.onset_s[i], i) for i in range(8) if gallery.film[i] == film)
            for start, _ in starts:
                shown = []
                for k in range(num_scans):
                    t = start + k * gallery.tr_s
                    on = [i for s, i in starts if s <= t < s + gallery.length_s[i]]
                    shown += on[:1]
                if len(shown) == num_scans:
                    expected.append(shown)
        assert gallery.candidates(num_scans).tolist() == expected
    assert len(gallery.candidates(6)) == 0


@pytest.mark.parametrize("num_scans", [1, 3])
def test_scores_are_pearson_over_the_whole_clip(num_scans):
    chance = np.random.default_rng(0)
    features = chance.standard_normal((8, 2, 3)).astype(np.float32) + 5
    gallery = a_gallery(features)
    predicted = chance.standard_normal((7, 2, 3)).astype(np.float32)
    rows = gallery.candidates(num_scans)
    num = len(predicted) // num_scans
    clips = predicted[: num * num_scans].reshape(num, num_scans, -1)
    expected = pearson_matrix(clips, features[rows])
    by_numpy = [[np.corrcoef(c.ravel(), features[r].ravel())[0, 1] for r in rows] for c in clips]
    np.testing.assert_allclose(expected, by_numpy, atol=1e-9)
    np.testing.assert_allclose(clip_correlations(predicted[: num * num_scans], features, rows), expected, atol=1e-9)
    found = gallery.rank(predicted, num_scans, top=2)
    assert [c.first_scan for c in found] == [i * num_scans for i in range(num)]
    for clip, scores in zip(found, expected, strict=True):
        order = np.argsort(-scores)[:2]
        assert [m.stimulus_id for m in clip.matches] == [gallery.stimulus_id[rows[j, 0]] for j in order]
        assert [m.score for m in clip.matches] == pytest.approx(scores[order])


def test_a_perfect_prediction_finds_itself_and_a_flat_one_scores_nothing():
    features = np.random.default_rng(1).standard_normal((8, 5))
    gallery = a_gallery(features)
    first = gallery.rank(features[[1, 2, 0]], 3, 1)[0].matches[0]
    assert (first.stimulus_id, first.film, first.onset_s) == ("a0", "a", 0.0)
    assert first.score == pytest.approx(1)
    assert gallery.rank(np.full((3, 5), 0.3), 3, 1)[0].matches[0].score == 0


def test_clips_that_cannot_be_cut_are_refused():
    gallery = a_gallery(np.zeros((8, 2)))
    with pytest.raises(DataError, match="2 scans, fewer than a clip of 3"):
        gallery.rank(np.zeros((2, 2)), 3, 1)
    with pytest.raises(DataError, match="shorter clips"):
        gallery.rank(np.zeros((20, 2)), 20, 1)
