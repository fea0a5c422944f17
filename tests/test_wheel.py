"""The wheel holds the five parts and nothing else, and works where the repository is not."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from conftest import REPOSITORY

ROOTS = ("core", "datasets", "training", "serving", "cluster")
DATA_FILES = {
    "cineray/training/report.html.j2",
    "cineray/serving/web/index.html",
    "cineray/training/gallery.html.j2",
    "cineray/core/pretrained.yaml",
}
"""What is not Python and must travel along."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy of the files that git knows, as in a fresh clone."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in tracked():
        (folder / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, folder / "clone" / name)
    called("-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(folder / "clone"))
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    called("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(folder), str(wheel))
    return folder


def tracked(*folders):
    """Paths that git knows and that are there."""
    words = ["git", "ls-files", "-z", *folders]
    names = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout.split("\0")
    return [name for name in names if name and (REPOSITORY / name).is_file()]


def called(*words, cwd=None, **environment):
    """Output of a Python that sees only what ``environment`` adds."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_what_git_holds_of_the_five_parts(wheel):
    expected = {name.partition("/")[2] for name in tracked(*ROOTS) if name.split("/")[1] == "cineray"}
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == expected
    assert names >= DATA_FILES
    assert {name.split("/")[1] for name in names} == set(ROOTS)
    assert {Path(name).suffix for name in names - DATA_FILES} == {".py"}


def test_every_part_imports_from_the_installed_wheel(installed, tmp_path):
    modules = ["core.config", "datasets.schema", "training.run", "training.report", "serving.pipeline", "cluster.cli"]
    code = "import importlib, sys; [print(importlib.import_module('cineray.' + m).__file__) for m in sys.argv[1:]]"
    places = called("-c", code, *modules, cwd=tmp_path, PYTHONPATH=str(installed)).split()
    assert places == [str(installed / "cineray" / (name.replace(".", "/") + ".py")) for name in modules]


def test_the_command_is_installed_and_answers(installed, tmp_path):
    text = called(str(installed / "bin" / "cineray"), "--help", cwd=tmp_path, PYTHONPATH=str(installed))
    assert text.startswith("cineray VERB")
    assert "ingest" in text
    words = ["ingest", "synthetic", "out=data", "num_subjects=1", "minutes=1", "test_minutes=1", "run_minutes=0.5"]
    small = ["tr_s=2", "frame_px=8", "voxels=[20,30]"]
    called(str(installed / "bin" / "cineray"), *words, *small, cwd=tmp_path, PYTHONPATH=str(installed))
    assert (tmp_path / "data" / "manifest.json").is_file()
