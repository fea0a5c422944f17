"""The command line: one grammar, whole runs out of words, errors of one sentence."""

import subprocess
import sys

import pytest
import yaml

from cineray.cluster.cli import VERBS, main
from cineray.cluster.resolve import resolve
from cineray.core.errors import ConfigError
from cineray.core.storage import Store
from cineray.training.recipes import RECIPES, find_recipe, synthetic
from cineray.training.run import Run
from tiny_run import tiny_run

NEEDED = {
    **{
        f"synthetic:{name}": {"subjects": ["sub-01", "sub-02"]}
        for name in ("motion", "perception", "semantic", "shared", "video_diffusion")
    },
    "synthetic:ridge": {"subjects": ["sub-01"]},
    "synthetic:scratch": {"subject": "sub-01"},
}
"""What a recipe cannot do without."""
FROM_A_RUN = ("synthetic:adapt", "neuroclips:prior")
"""Those that also want a run that exists."""


def cineray(capsys, monkeypatch, *words):
    """Exit code, standard output and error of one command in this process."""
    monkeypatch.setattr(sys, "argv", ["cineray", *map(str, words)])
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    return code, *capsys.readouterr()


def test_help_names_every_verb_and_imports_nothing_heavy():
    probe = "import sys; sys.argv = ['cineray', '--help']; from cineray.cluster.cli import main; main(); "
    probe += "print({'torch', 'ray', 'deepspeed'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    *lines, heavy = done.stdout.splitlines()
    assert heavy == "set()"
    assert {line.split()[0] for line in lines[2:]} == set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb, capsys, monkeypatch):
    code, said, _ = cineray(capsys, monkeypatch, verb, "--help")
    assert code == 0
    assert f"``{verb}" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fly"], "found verb 'fly', expected one of demo, ingest"),
        (["train"], "found 'nothing', expected a recipe or a run.yaml"),
        (["train", "synthetic:huge"], "expected a recipe (neuroclips:perception, "),
        (["train", "nowhere/run.yaml"], "found no file nowhere/run.yaml"),
        (["train", "synthetic:scratch"], "recipe synthetic:scratch needs subject=…"),
        (["train", "synthetic:tiny", "optim.speed=3"], "optim.speed"),
        (["train", "synthetic:tiny", "num_workers=2"], "2 workers under strategy plain"),
        (["train", "synthetic:tiny", "fast"], "found argument 'fast', expected key=value"),
        (["tune", "synthetic:tiny"], "nothing to search over"),
        (["ingest", "synthetic"], "found no out="),
        (["ingest", "elsewhere", "out=x"], "expected a source (synthetic"),
        (["eval", "split=test"], "expected a run folder"),
        (["serve", "runs/x", "prot=80"], "found setting 'prot', expected one of port, host"),
    ],
)
def test_wrong_words_are_told_in_one_line(words, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CINERAY_API_KEY", "x" * 40)
    code, said, complaint = cineray(capsys, monkeypatch, *words)
    assert code == 2
    assert message in complaint
    assert complaint.startswith("cineray: ")
    assert complaint.count("\n") == 1
    assert said == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in FROM_A_RUN])
def test_every_recipe_is_a_whole_run_that_a_file_repeats(name, capsys, monkeypatch, tmp_path):
    arguments = {"dataset": "elsewhere"} | NEEDED.get(name, {})
    words = [f"{key}={value}" for key, value in arguments.items()]
    code, said, _ = cineray(capsys, monkeypatch, "train", name, *words, "seed=7", "--dry-run")
    assert code == 0
    expected = find_recipe(name)(**arguments).override({"seed": 7})
    assert Run.loads(said) == expected
    assert yaml.safe_load(said)["fingerprint"] == expected.fingerprint()
    (tmp_path / "run.yaml").write_text(said)
    assert resolve(str(tmp_path / "run.yaml"), {}) == expected
    assert resolve(str(tmp_path / "run.yaml"), {"seed": 8}) == expected.override({"seed": 8})
    assert (find_recipe(name).__doc__ or "").strip()


def test_adapting_is_a_recipe_of_a_run_that_exists(tmp_path):
    folder = tiny_run(tmp_path)
    found = resolve("synthetic:adapt", {"from": folder, "subject": "sub-02", "minutes": 1})
    assert found == synthetic.adapt(from_=folder, subject="sub-02", minutes=1)
    source = Run.loads(Store.at(folder).get("run.yaml").decode())
    assert (found.model, found.losses, found.view.split.test) == (source.model, source.losses, source.view.split.test)
    with pytest.raises(ConfigError, match=r"needs subject=… minutes=…; its arguments are from, subject"):
        resolve("synthetic:adapt", {"from": folder})
