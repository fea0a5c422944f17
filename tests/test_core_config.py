"""Settings: strict, overridden by dotted key, the same after a round trip through YAML."""

import pytest
import yaml

from cineray.core.config import Config, parse_overrides
from cineray.core.errors import ConfigError
from cineray.datasets.split import Selection, SplitConfig
from cineray.datasets.view import ViewConfig
from cineray.training.run import Run


def a_run(**changes):
    split = SplitConfig(val=Selection(runs=("b",)), test=Selection(runs=("c",)))
    return Run(name="x", view=ViewConfig(dataset="somewhere", split=split)).override(changes)


def test_dump_and_load_give_the_same_run(tmp_path):
    run = a_run()
    (tmp_path / "run.yaml").write_text(run.dump())
    assert Run.load(tmp_path / "run.yaml") == run
    assert yaml.safe_load(run.dump())["fingerprint"] == run.fingerprint()


def test_override_reaches_nested_keys_and_leaves_the_original():
    run = a_run()
    changed = run.override({"optim.lr": 0.5, "view.split.train.runs": ["a"], "losses.0.weight": 3})
    assert (changed.optim.lr, changed.view.split.train.runs, changed.losses[0].weight) == (0.5, ("a",), 3.0)
    assert run.optim.lr == 1e-3
    assert changed.fingerprint() != run.fingerprint()


def test_a_new_name_of_the_whole_run_keeps_its_settings_and_of_a_model_drops_them():
    run = a_run(**{"model.dim": 32, "optim.lr": 0.5})
    assert run.override({"name": "y"}) == run.model_copy(update={"name": "y"})
    assert not hasattr(run.override({"model.name": "chance"}).model, "dim")


@pytest.mark.parametrize("key", ["optim.lrr", "optim.lr.x", "nothing.here", "losses.7.weight"])
def test_unknown_keys_are_named(key):
    with pytest.raises(ConfigError, match=key.split(".")[0]):
        a_run(**{key: 1})


def test_a_key_below_an_optional_component_makes_it():
    class Inner(Config):
        a: int
        b: int = 2

    class Outer(Config):
        inner: Inner | None = None

    assert Outer().override({"inner.a": 5}) == Outer(inner=Inner(a=5))
    with pytest.raises(ConfigError, match=r"setting 'inner\.a' of Outer"):
        Outer().override({"inner.b": 5})


def test_a_key_below_a_number_is_told_what_it_is():
    with pytest.raises(ConfigError, match=r"setting 'optim\.lr' is 0\.001, it has no settings of its own"):
        a_run(**{"optim.lr.x": 1})


def test_frozen_and_strict():
    run = a_run()
    with pytest.raises(Exception, match="frozen"):
        run.seed = 3
    with pytest.raises(ConfigError, match="epochs"):
        a_run(**{"optim.epochs": "many"})


def test_overrides_are_yaml():
    assert parse_overrides(["a.b=1e-3", "c=[x, y]", "d=true", "e=text"]) == {
        "a.b": 1e-3,
        "c": ["x", "y"],
        "d": True,
        "e": "text",
    }
    with pytest.raises(ConfigError, match="key=value"):
        parse_overrides(["lonely"])
    with pytest.raises(ConfigError, match=r"found argument 'c=\[x', expected a value in YAML .* line 1") as caught:
        parse_overrides(["c=[x"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"a: [", b"a: \xff", b"\x00", b"a: b: c", b"just text", b""], ids=repr)
def test_files_that_hold_no_settings_are_one_sentence(tmp_path, data):
    (tmp_path / "run.yaml").write_bytes(data)
    with pytest.raises(ConfigError, match=r"run\.yaml (is not valid YAML|holds)") as caught:
        Run.load(tmp_path / "run.yaml")
    assert "\n" not in str(caught.value)


def test_fingerprint_is_the_hash_of_the_settings():
    import hashlib

    class Small(Config):
        a: int = 1

    assert Small().fingerprint() == hashlib.sha256(b'{"a":1}').hexdigest()[:16]
