"""The rules of layout and style, checked on every tracked file; and that each check finds what it looks for."""

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

from conftest import REPOSITORY

ROOTS = ("core", "datasets", "training", "serving", "cluster")
MAX_FILE_LINES, MAX_FUNCTION_LINES = 300, 40
WHOLE = {"test_bad_input", "test_layout", "test_readme", "test_wheel", "test_whole_path_s3"}
"""Tests of the repository rather than of one root."""
RIM = (
    "cineray.datasets.features",
    "cineray.datasets.references",
    "cineray.training.launch",
    "cineray.training.tune",
    "cineray.serving.app",
    "cineray.serving.reconstruct",
)
"""The only modules that know Ray, besides those of the root `cluster`."""
HERE = re.compile(r"(?<![\w.])/(?:hom[e]|wor[k]|roo[t]|User[s]|tm[p]/env)/")
INDEX = re.compile(r"pyp[i]\.org|pythonhosted\.or[g]|index-ur[l]|/simpl[e]/")

Sources = dict[str, str]
"""Path below the repository -> text."""


def tracked() -> Sources:
    names = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    paths = [REPOSITORY / name for name in names.stdout.split("\0") if name]
    return {str(p.relative_to(REPOSITORY)): p.read_text(encoding="utf-8") for p in paths if p.is_file()}


def python(sources: Sources) -> Iterator[tuple[str, ast.Module]]:
    return ((path, ast.parse(text)) for path, text in sources.items() if path.endswith(".py"))


def module(path: str) -> str:
    """Import name of a file of a source root, for example ``cineray.datasets.sources``."""
    return ".".join(Path(path).with_suffix("").parts[1:]).removesuffix(".__init__")


def misplaced(sources: Sources) -> Iterator[str]:
    """Code outside ``<root>/cineray/<root>/``, and a regular package where the namespace must stay open."""
    for path in sources:
        root = Path(path).parts[0]
        if path.endswith(".py") and root in ROOTS and not path.startswith(f"{root}/cineray/{root}/"):
            yield path


def long_files(sources: Sources) -> Iterator[str]:
    """Python files above the budget."""
    for path, text in sources.items():
        if path.endswith(".py") and len(text.splitlines()) > MAX_FILE_LINES:
            yield f"{path}: {len(text.splitlines())} lines"


def long_functions(sources: Sources) -> Iterator[str]:
    """Functions above the budget, their docstring not counted."""
    for path, tree in python(sources):
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[0]
                documented = ast.get_docstring(node) is not None
                words = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
                length = (node.end_lineno or 0) - node.lineno + 1 - words
                if length > MAX_FUNCTION_LINES:
                    yield f"{path}: {node.name} has {length} lines"


def undocumented(sources: Sources) -> Iterator[str]:
    """Modules that do not say what they are."""
    return (path for path, tree in python(sources) if not ast.get_docstring(tree))


def poor_readmes(sources: Sources) -> Iterator[str]:
    """A README opens with one paragraph of one sentence, then one command; the first page has two."""
    for path in ("README.md", *(f"{root}/README.md" for root in ROOTS)):
        num = 2 if path == "README.md" else 1
        opening = re.match(rf"[^\n]+[.:]\n\n```bash\n([^\n]+\n){{{num}}}```\n", sources.get(path, ""))
        if not opening or ". " in opening.group().split("\n")[0]:
            yield path


def misnamed_tests(sources: Sources) -> Iterator[str]:
    """Tests lie flat and are called after a root (or after what is neither): ``test_<root>_<module>``."""
    named = re.compile(rf"tests/test_({'|'.join((*ROOTS, 'benchmarks', 'docs', 'results'))})_\w+\.py")
    for path in sources:
        stem, nested = Path(path).stem, path.count("/") > 1
        right = named.fullmatch(path) or (stem in WHOLE and not nested)
        if path.startswith("tests/") and (nested or stem.startswith("test_") or stem == "__init__") and not right:
            yield path


def of_one_machine(sources: Sources) -> Iterator[str]:
    """Paths of somebody's machine, and addresses of package registries."""
    for path, text in sources.items():
        for number, line in enumerate(text.splitlines(), start=1):
            if HERE.search(line) or INDEX.search(line):
                yield f"{path}:{number}"


def ray_inside(sources: Sources) -> Iterator[str]:
    """Modules that import Ray and are not at the rim."""
    for path, tree in python(sources):
        if path.split("/")[0] not in ROOTS[:-1] or module(path) in RIM:
            continue
        for node in ast.walk(tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == "ray" for name in names):
                yield path


def loaded(tree: ast.Module) -> Iterator[str]:
    """What importing a module imports: not what stands in functions, or is there for type checkers alone."""
    todo: list[ast.AST] = [*tree.body]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            todo += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            todo += ast.iter_child_nodes(node)


def circular(sources: Sources) -> Iterator[str]:
    """Imports that come back to where they began: which module works as the first import is then a matter of luck.

    A module runs the packages around what it imports, too, unless it lies in them itself.
    """
    names = {module(path): set(loaded(tree)) for path, tree in python(sources) if path.split("/")[0] in ROOTS}
    needs: dict[str, set[str]] = {}
    for name, imported in names.items():
        meant = {entry if entry in names else entry.rpartition(".")[0] for entry in imported}
        around = {str(parent).replace("/", ".") for entry in meant for parent in Path(entry.replace(".", "/")).parents}
        needs[name] = (meant | {p for p in around if not f"{name}.".startswith(f"{p}.")}) & set(names)
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        yield from (f"{before} is imported by {after}" for before, after in pairwise(error.args[1]))


def stale_contracts(sources: Sources) -> Iterator[str]:
    """Names in the import contracts that no module bears: such a contract keeps nothing."""
    known = {module(path) for path in sources if path.endswith(".py") and path.split("/")[0] in ROOTS}
    known |= {f"cineray.{root}" for root in ROOTS}
    known |= {parent.rpartition(".")[0] for parent in known}
    for contract in tomllib.loads(sources["pyproject.toml"])["tool"]["importlinter"]["contracts"]:
        keys = ("source_modules", "forbidden_modules", "layers", "ignore_imports")
        for entry in (entry for key in keys for entry in contract.get(key, ())):
            for name in re.split(r"\s*(?:\||->)\s*", entry):
                outside = not name.startswith("cineray") and importlib.util.find_spec(name) is not None
                if name not in known and not outside:
                    yield f"{contract['name']}: {name}"


Rule = Callable[[Sources], Iterator[str]]

CONTRACT = '[[tool.importlinter.contracts]]\nname = "c"\nsource_modules = ["cineray.core", "cineray.gone"]\n'

VIOLATIONS: dict[Rule, Sources] = {
    misplaced: {"datasets/__init__.py": "", "datasets/cineray/__init__.py": "", "core/cineray/datasets/x.py": ""},
    long_files: {"tests/films.py": "x = 1\n" * 301},
    long_functions: {"core/cineray/core/x.py": "def f():\n    'text'\n" + "    x = 1\n" * 40},
    undocumented: {"tests/films.py": "x = 1\n"},
    poor_readmes: {
        "README.md": "One. Two.\n\n```bash\nmake test\n```\n",
        "core/README.md": "# Title\n\nOne sentence.\n",
        "datasets/README.md": "One sentence:\n\n```bash\none\ntwo\n```\n",
        **{f"{root}/README.md": "" for root in ROOTS[2:]},
    },
    misnamed_tests: {"tests/unit/test_core_x.py": "", "tests/test_x.py": "", "tests/__init__.py": ""},
    of_one_machine: {"docs/a.md": "see /hom" + "e/me/x", "setup.cfg": "index-ur" + "l = x", "a.md": "pyp" + "i.org"},
    ray_inside: {
        "core/cineray/core/x.py": "import ray",
        "serving/cineray/serving/x.py": "def f():\n  from ray import y",
    },
    circular: {
        "training/cineray/training/weights.py": "from cineray.training.models.base import Model",
        "training/cineray/training/models/__init__.py": "import cineray.training.models.prior",
        "training/cineray/training/models/prior.py": "from cineray.training import weights",
    },
    stale_contracts: {"pyproject.toml": CONTRACT},
}
"""Every rule with files that break it, one by one."""


@pytest.mark.parametrize("rule", VIOLATIONS, ids=lambda rule: rule.__name__)
def test_the_repository_keeps_the_rule(rule):
    assert list(rule(tracked())) == []


@pytest.mark.parametrize("rule", VIOLATIONS, ids=lambda rule: rule.__name__)
def test_the_rule_finds_a_breach(rule):
    broken = VIOLATIONS[rule]
    assert len(list(rule(broken))) == len(broken)


def test_the_hugging_face_package_is_not_shadowed():
    """With the repository root first on the path, as `python -m` puts it there."""
    code = "import datasets, sys; print(datasets.Dataset.from_dict({'a': [1, 2]}).num_rows, datasets.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    num_rows, place = done.stdout.split(maxsplit=1)
    assert (num_rows, Path(place.strip()).name) == ("2", "__init__.py")
    assert REPOSITORY / "datasets" not in Path(place.strip()).parents


def test_a_folder_is_no_package():
    code = "import sys; sys.path.insert(0, ''); import training.loop"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert "No module named 'training.loop'" in done.stderr
