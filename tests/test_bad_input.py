"""What people get wrong and what disks do, through the command line: one sentence, exit code 2, nothing half-published.

Each fault is met by a new location and by one that holds an older data set, which must stay as it was. The faults of
each format have tests of their own beside its source; requests over HTTP in `test_serving_api` and `_arrays`.
"""

import contextlib
import os
import re
import subprocess
import sys
import tempfile

import numpy as np
import pyarrow.parquet as pq
import pytest

from cineray.cluster.cli import main
from cineray.core.errors import CinerayError, StorageError
from cineray.core.storage import Store
from cineray.datasets.ingest import ingest
from cineray.datasets.manifest import Manifest
from cineray.datasets.sources.arrays import ArraysConfig
from cineray.training.checkpoint import latest, read_manifest, read_tensors
from cineray.training.feed import open_feed
from cineray.training.launch import launch
from cineray.training.loop import train
from cineray.training.predict import read_run
from cineray.training.world import World
from films import FilmSource, visible
from fixtures_s3 import request
from tiny_run import tiny_run

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")  # a second line on the terminal

SMALL = FilmSource(scans=12, clips=10)


@pytest.fixture
def complaint(monkeypatch, capsys):
    """The one line that a verb says before it ends with exit code 2."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["cineray", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr().err
        assert ended.value.code == 2
        assert said.startswith("cineray: ")
        assert said.count("\n") == 1
        return said

    return run


def half_written(url):
    return [key for key in Store.at(url).list(unfinished=True) if ".tmp" in key]


# --- a lab's own arrays --------------------------------------------------------------------------------------------


def write_study(folder):
    """Two people, two runs of a film of eight clips each."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = ["subject,run,file,events,tr_s"]
    for subject, voxels in (("anna", 6), ("ben", 5)):
        for run in ("one", "two"):
            np.save(folder / f"{subject}_{run}.npy", rng.normal(100, 10, (20, voxels)))
            rows.append(f"{subject},{run},{subject}_{run}.npy,events.csv,2")
    (folder / "recordings.csv").write_text("\n".join(rows))
    clips = [f"clip{i},sea,{4 * i},4" for i in range(8)]
    (folder / "stimuli.csv").write_text("\n".join(["stimulus_id,film,onset_s,length_s", *clips]))
    (folder / "events.csv").write_text("onset_s,film\n4,sea\n")
    np.save(folder / "features.npy", rng.normal(size=(8, 3)).astype(np.float32))
    return folder


def change(function):
    """Something done to the last recording."""
    return lambda folder: np.save(folder / "ben_two.npy", function(np.load(folder / "ben_two.npy")))


def rewrite(name, old, new):
    return lambda folder: (folder / name).write_text((folder / name).read_text().replace(old, new))


FAULTS = {
    "wrong voxel count": (change(lambda x: x[:, 1:]), [], r"ben_two\.npy has 4 voxels .* of ben has 5 "),
    "NaN": (
        change(lambda x: np.where(np.arange(20)[:, None] == 7, np.nan, x)),
        [],
        "ben, run 'two' has 5 .*not finite",
    ),
    "infinite": (change(lambda x: x * np.inf), [], "ben, run 'two' has .*not finite"),
    "unknown subject": (lambda folder: None, ["subjects=[zoe]"], "no subject 'zoe'.* anna"),
    "missing events column": (
        rewrite("events.csv", "film", "movie"),
        [],
        "events.csv, line 2 names neither a stimulus_id nor a film",
    ),
    "mixed TR": (rewrite("recordings.csv", "ben_two.npy,events.csv,2", "ben_two.npy,events.csv,1.5"), [], r"1\.5.* s"),
    "truncated recording": (lambda folder: os.truncate(folder / "ben_two.npy", 300), [], r"ben_two\.npy"),
    "missing recording": (lambda folder: (folder / "ben_two.npy").unlink(), [], r"no file .*ben_two\.npy"),
}


def test_the_study_itself_is_sound(tmp_path):
    manifest = ingest(ArraysConfig(folder=str(write_study(tmp_path / "study"))), tmp_path / "out")
    assert (manifest.subjects, manifest.tr_s, len(manifest.runs)) == ({"anna": 6, "ben": 5}, 2.0, 4)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("published", [False, True], ids=["first", "next"])
@pytest.mark.parametrize("zscore", ["run", "none"])
def test_a_spoilt_study_is_not_published(tmp_path, complaint, fault, published, zscore):
    breaking, words, expected = FAULTS[fault]
    study = write_study(tmp_path / "study")
    breaking(study)
    if published:
        ingest(SMALL, tmp_path / "out")
    before = visible(Store.at(tmp_path / "out"))
    said = complaint("ingest", "arrays", f"folder={study}", f"out={tmp_path}/out", f"signal.zscore={zscore}", *words)
    assert re.search(expected, said), said
    assert visible(Store.at(tmp_path / "out")) == before
    assert half_written(tmp_path / "out") == []


# --- damaged shards, runs that name what is not there --------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    tiny_run(folder)
    return folder


@pytest.mark.parametrize("kind", ["samples", "stimuli"])
@pytest.mark.parametrize("damage", ["truncated", "bit flipped"])
def test_a_damaged_shard_gives_no_numbers(trained, complaint, kind, damage, monkeypatch, capsys):
    info = Manifest.read(Store.at(trained / "data")).of_kind(kind)[-1]
    path = trained / "data" / info.key
    good, meta = path.read_bytes(), pq.read_metadata(path)
    column = meta.schema.names.index("fmri" if kind == "samples" else "features")
    at = meta.row_group(0).column(column).data_page_offset + 60
    path.write_bytes(good[:at] if damage == "truncated" else good[:at] + bytes([good[at] ^ 16]) + good[at + 1 :])
    try:
        assert info.key in complaint("eval", trained / "run")
        monkeypatch.setattr(sys, "argv", ["cineray", "check", str(trained / "data")])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 1  # a verdict, not a mistake of the caller
        assert info.key.split("/")[-1] in capsys.readouterr().out.replace("\n", "")
    finally:
        path.write_bytes(good)
    assert not Store.at(trained / "run").exists("predictions/test.npz")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["view.subjects=[sub-99]"], "sub-99.*sub-01"),
        (["view.targets=[smell]"], r"loss 'mse' is on target 'features', the view has smell; set losses\.0\.target"),
        (["view.targets=[smell]", "losses.0.target=smell"], "asks for target 'smell', the data set has .*features"),
        (["view.split.test.films=[solaris]"], "films solaris"),
    ],
)
def test_a_run_over_what_is_not_there_does_not_begin(trained, tmp_path, complaint, words, expected):
    said = complaint("train", trained / "run" / "run.yaml", f"out={tmp_path}/new", *words)
    assert re.search(expected, said), said
    assert not (tmp_path / "new").exists()


def test_a_run_where_nothing_can_be_written_does_not_begin(trained, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="a file where a folder was expected"):
        launch(read_run(Store.at(trained / "run")), str(tmp_path / "file" / "new"))


@pytest.mark.parametrize("port", ["many", "0", "70000"])
def test_a_port_that_cannot_be(trained, complaint, monkeypatch, port):
    monkeypatch.setenv("CINERAY_API_KEY", "k" * 20)
    assert f"found port '{port}'" in complaint("serve", trained / "run", f"port={port}")


# --- a store that refuses ------------------------------------------------------------------------------------------


def test_bad_credentials(s3_endpoint, s3_url, complaint):
    ingest(SMALL, s3_url)
    before = visible(Store.at(s3_url))
    request(s3_endpoint, "POST", "/moto-api/reset-auth", b"0")
    try:
        for words in (["check", s3_url], ["ingest", "synthetic", f"out={s3_url}"], ["eval", s3_url]):
            assert "AWS_ACCESS_KEY_ID" in complaint(*words)
    finally:
        request(s3_endpoint, "POST", "/moto-api/reset-auth", b"1000000000")
    assert visible(Store.at(s3_url)) == before


# --- a full disk ---------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, of 400 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", place], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("mounting a small file system needs root; test_core_storage limits the size of files instead")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


BIG = ["num_subjects=2", "minutes=6", "test_minutes=1", "run_minutes=1", "tr_s=2", "frame_px=8", "voxels=[800,900]"]


@pytest.mark.parametrize("published", [False, True], ids=["first", "next"])
def test_a_full_disk_publishes_nothing(small_disk, complaint, published):
    if published:
        ingest(SMALL, small_disk / "out")
    before = visible(Store.at(small_disk / "out"))
    assert "free some space" in complaint("ingest", "synthetic", f"out={small_disk}/out", *BIG)
    assert visible(Store.at(small_disk / "out")) == before
    assert half_written(small_disk / "out") == []


def test_a_full_disk_for_temporary_files(small_disk, s3_url, complaint, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    assert "free some space" in complaint("ingest", "synthetic", f"out={s3_url}", *BIG)
    assert not Store.at(s3_url).exists("manifest.json")
    assert list(small_disk.iterdir()) == []


def test_a_full_disk_under_a_run_leaves_whole_checkpoints(trained, small_disk):
    """And once there is room the run goes on from the last of them."""
    run = read_run(Store.at(trained / "run")).override({"optim.epochs": 9, "fault.keep": 99})
    store = Store.at(small_disk)
    with pytest.raises(CinerayError, match="free some space"):
        train(run, World(), lambda normaliser: open_feed(run, normaliser), store)
    last = latest(store)
    assert last is not None
    assert read_tensors(store, read_manifest(store, last), ("weights", "moments", "normaliser"))
    assert half_written(small_disk) == []
    subprocess.run(["mount", "-o", "remount,size=40m", small_disk], check=True)
    done = train(run, World(), lambda normaliser: open_feed(run, normaliser), store)
    assert done.position.epoch == 9


def test_a_full_disk_under_the_cache(small_disk, s3_url):
    """Reading a hole of a file on a full tmpfs through a map would kill the process."""
    ingest(SMALL, s3_url)
    with contextlib.suppress(OSError), open(small_disk / "filler", "wb", buffering=0) as filler:
        while filler.write(bytes(4096)):
            pass
    assert os.statvfs(small_disk).f_bavail == 0
    code = (
        "import sys, numpy as np; from cineray.datasets.dataset import Dataset; from cineray.core.errors import *\n"
        "dataset = Dataset.open(sys.argv[1], sys.argv[2])\n"
        "try: [dataset.gather_samples(np.array(run.rows)) for run in dataset.runs]\n"
        "except StorageError as error: sys.exit(str(error))"
    )
    done = subprocess.run([sys.executable, "-c", code, s3_url, small_disk], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done
    assert "free space" in done.stderr
