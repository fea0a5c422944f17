"""What a newcomer copies from the first pages works: commands exist or run, Python runs, links lead somewhere.

`docs/data.md` and the data cards have a test of their own (`test_docs_data`).
"""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cineray.cluster.cli import VERBS, main
from conftest import REPOSITORY

ROOTS = ("core", "datasets", "training", "serving", "cluster", "benchmarks")
PAGES = [Path(name) for name in ("README.md", "CONTRIBUTING.md", *(f"{root}/README.md" for root in ROOTS))]
LINKING = [*PAGES, *(path.relative_to(REPOSITORY) for path in REPOSITORY.glob("docs/**/*.md"))]
BLOCKS = [
    pytest.param(language, text, id=f"{page}-{number}")
    for page in PAGES
    for number, (language, text) in enumerate(
        re.findall(r"^```(bash|python)\n(.*?)^```", (REPOSITORY / page).read_text(encoding="utf-8"), re.DOTALL | re.M)
    )
]
QUICK = {
    "ingest": ["minutes=1", "test_minutes=1", "run_minutes=0.5", "tr_s=2", "frame_px=8", "voxels=[20,30]"],
    "check": [],
    "train": ["--dry-run"],
    "tune": ["--dry-run"],
}
"""Verbs that are run, with what makes them quick (a later word counts); the others must exist."""


def commands(text):
    """The words of each command of a block."""
    for line in text.replace("\\\n", " ").splitlines():
        for command in line.split(" && "):
            words = shlex.split(command, comments=True)
            while words and re.match(r"[A-Z_]+=", words[0]):  # settings for one command
                words = words[1:]
            if words:
                yield words


def run_cineray(words, monkeypatch):
    if words == ["--help"]:
        return
    verb = words[0]
    assert verb in VERBS, f"cineray has no verb '{verb}', it has {', '.join(VERBS)}"
    if verb in QUICK:
        monkeypatch.setattr(sys, "argv", ["cineray", *words, *QUICK[verb]])
        main()


def run_python(words, folder):
    if words[:2] == ["-m", "pytest"]:
        assert all((REPOSITORY / word.split("::")[0]).exists() for word in words[2:] if not word.startswith("-"))
        return
    assert words[0] == "-c"
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("language", "text"), BLOCKS)
def test_a_block_works_as_it_stands(language, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if language == "python":
        run_python(["-c", text], tmp_path)
        return
    targets = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert "test" in targets
    for program, *words in commands(text):
        match Path(program).name:
            case "make":
                assert [word for word in words if "=" not in word and word not in targets] == []
            case "cineray":
                run_cineray(words, monkeypatch)
            case "python":
                run_python(words, tmp_path)
            case name:
                assert shutil.which(name), f"no program '{name}'"


def test_the_first_page_has_blocks():
    assert {param.id for param in BLOCKS} >= {"README.md-0", "README.md-1", "core/README.md-0"}


def anchors(page):
    """Headings of a page as GitHub writes them in addresses."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", LINKING, ids=str)
def test_links_lead_to_files_and_headings(page):
    for link in re.findall(r"\]\(([^)]+)\)", (REPOSITORY / page).read_text(encoding="utf-8")):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        goal = (REPOSITORY / page.parent / path).resolve() if path else REPOSITORY / page
        assert goal.exists(), f"{page} links to {link}"
        assert not anchor or anchor in anchors(goal), f"{goal.name} has no heading #{anchor}"


def test_make_runs_modules_that_exist():
    modules = re.findall(r"-m (benchmarks[\w.]*)", (REPOSITORY / "Makefile").read_text(encoding="utf-8"))
    assert modules
    assert [name for name in modules if not (REPOSITORY / f"{name.replace('.', '/')}.py").is_file()] == []
