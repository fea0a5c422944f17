"""Features on Ray Data: the values of one process, parts shared out, failures in one sentence."""

import os
import pickle
import sys
from contextlib import nullcontext
from functools import partial

import numpy as np
import pytest

from cineray.core.errors import CinerayError, ConfigError
from cineray.core.pretrained import Part
from cineray.datasets import extraction
from cineray.datasets.check import check
from cineray.datasets.dataset import Dataset
from cineray.datasets.encoders.clip import HFClipConfig
from cineray.datasets.encoders.pool import PoolConfig
from cineray.datasets.extraction import extract, in_process
from cineray.datasets.features import on_ray
from cineray.datasets.ingest import ingest
from clips import ClipSource, OddConfig, SlowConfig
from tiny_encoders import tiny

SOURCE = ClipSource()
POOL = PoolConfig()


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(extraction, "group_rows", lambda num_bytes: 4)


@pytest.fixture
def folder(tmp_path):
    ingest(SOURCE, tmp_path / "set")
    return tmp_path / "set"


@pytest.mark.cluster
def test_on_ray_the_values_are_those_of_one_process_though_an_actor_dies(ray_cluster, folder, tmp_path):
    seen = []
    encoder = SlowConfig(log=str(tmp_path / "log"), dies_at="picture 4")
    extract(
        folder,
        encoder,
        workers=partial(on_ray, num_actors=2),
        progress=lambda parts, text, total: (seen.append((text, part, total)) or part for part in parts),
    )
    dataset = Dataset.open(folder)
    assert np.array_equal(dataset.gather_stimuli("slow", np.arange(10)), SlowConfig.values(SOURCE))
    assert sorted(seen) == [("slow, row groups", part, 3) for part in range(3)]
    assert sorted((tmp_path / "log").read_text().split()[1::2]) == ["0", "4", "4", "8"]
    assert check(folder).good
    with pytest.raises(ConfigError, match="found 2 CPUs, expected one for each of num_actors=3"):
        extract(folder, POOL, workers=partial(on_ray, num_actors=3))


def test_a_job_named_from_where_one_stands_is_done_from_elsewhere(folder, tmp_path, monkeypatch):
    """Data and weights by relative names, the parts by an actor in a folder of its own."""
    made = tiny("hf_clip", tmp_path / "clip").part.folder
    monkeypatch.chdir(tmp_path)
    encoder = HFClipConfig(part=Part(folder=os.path.relpath(made)))
    job = extraction.Job.of(Dataset.open(folder.name), encoder)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    there = pickle.loads(pickle.dumps(job))
    assert list(in_process(there, there.pending())) == [0, 1, 2]
    assert extraction.publish(job).features.keys() == {"clip_tokens"}


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("value", "problem"),
    [(np.inf, "^odd gave values that are not finite"), (-1.0, r"^computing 'odd' ended \(ValueErr")],
)
def test_an_actor_that_fails_says_so_in_one_sentence(ray_cluster, folder, value, problem):
    with pytest.raises(CinerayError, match=problem) as caught:
        extract(folder, OddConfig(value=value), workers=partial(on_ray, num_actors=1))
    assert "\n" not in str(caught.value)


def cineray(capsys, monkeypatch, *words):
    """Exit code, standard output and error of ``cineray features``, the parts done in this process."""
    from cineray.cluster import cli, connect
    from cineray.datasets import features

    monkeypatch.setattr(connect, "connected", nullcontext)
    monkeypatch.setattr(features, "on_ray", lambda job, parts, num_actors: extraction.in_process(job, parts))
    monkeypatch.setattr(sys, "argv", ["cineray", "features", *map(str, words)])
    code = 0
    try:
        cli.main()
    except SystemExit as end:
        code = end.code
    return code, *capsys.readouterr()


def test_the_command_computes_and_says_what(folder, tmp_path, capsys, monkeypatch):
    code, said, _ = cineray(capsys, monkeypatch, folder, "pool", "factor=16", "target=small", "num_actors=1")
    assert (code, said) == (0, f"'small' of {folder}: float16 (3, 3, 2, 2) (frames channels height width)\n")
    part = tiny("hf_clip", tmp_path / "clip").part.folder
    words = ("hf_clip", f"part.folder={part}", "output=pooled", "frame=-1")
    code, said, _ = cineray(capsys, monkeypatch, folder, *words)
    assert (code, said) == (0, f"'clip_tokens' of {folder}: float16 (8,) (dim)\n")
    assert set(Dataset.open(folder).target_specs) == {"frames", "small", "clip_tokens"}
    code, _, problem = cineray(capsys, monkeypatch, folder, "pool", "factor=8", "target=small")
    assert (code, "replace=true" in problem) == (2, True)
    code, said, _ = cineray(capsys, monkeypatch, folder, "pool", "factor=8", "target=small", "replace=true")
    assert (code, said) == (0, f"'small' of {folder}: float16 (3, 3, 4, 4) (frames channels height width)\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "found 'nothing', expected a data set"),
        (["set"], "found 'nothing', expected an encoder (pool, flow"),
        (["set", "clip"], "found 'clip', expected an encoder"),
        (["set", "hf_clip"], "setting 'part' of HFClipConfig is missing; give part.folder"),
        (["set", "pool", "num_actors=0"], "found num_actors=0, expected a whole number from 1 on"),
        (["set", "pool", "replace=yes please"], "found replace=yes please, expected true or false"),
        (["set", "pool", "size=3"], "setting 'size' of PoolConfig"),
        (["nowhere", "pool"], "holds no manifest.json"),
    ],
)
def test_wrong_words_are_told_in_one_line(tmp_path, capsys, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    code, _, problem = cineray(capsys, monkeypatch, *words)
    assert (code, problem.count("\n")) == (2, 1)
    assert message in problem


def test_two_who_do_the_same_at_once_both_find_it_done(folder):
    """The second publishes, and removes the records, while the first is still at work."""

    def slow(job, parts):
        yield from in_process(job, parts)
        extract(folder, POOL)

    manifest = extract(folder, POOL, workers=slow)
    assert manifest.features.keys() == {POOL.target}
    assert manifest.version == Dataset.open(folder).manifest.version == 2
    assert check(folder).good
