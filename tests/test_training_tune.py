"""Searches: the space, and a driver that is killed half way."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from cineray.core.errors import ConfigError
from cineray.core.records import read_records
from cineray.core.storage import Store
from cineray.training.run import Run
from cineray.training.space import Choices, Interval, SearchConfig, parse_space
from tiny_run import tiny_run
from toys import toy_run

SEARCH = SearchConfig()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("log:1e-4..1e-2", Interval(low=1e-4, high=1e-2, log=True)),
        ("0..0.5", Interval(low=0, high=0.5)),
        ("8..32", Interval(low=8, high=32)),
        ("32,64,128", Choices(values=(32, 64, 128))),
        ([1, 2], Choices(values=(1, 2))),
        ("true,false", Choices(values=(True, False))),
        ("mse,info_nce", Choices(values=("mse", "info_nce"))),
    ],
)
def test_a_space_in_words(text, expected):
    from cineray.training.space import _dimension

    assert _dimension("x", text) == expected


@pytest.mark.parametrize(
    ("words", "changes", "message"),
    [
        ({}, {}, "nothing to search over"),
        ({"optim.lr": "1e-2..1e-4"}, {}, "expected low below high"),
        ({"optim.lr": "log:0..1"}, {}, "above 0"),
        ({"optim.lr": "a..b"}, {}, "expected numbers on both sides"),
        ({"optim.lr": "0.1"}, {}, "something to choose from"),
        ({"optim.rate": "0.1,0.2"}, {}, "optim.rate"),
        ({"optim.lr": "0.1..1", "model.depth": "2,many"}, {}, "model"),
        ({"losses.0.weight": "1,2"}, {}, "changes what val/loss measures"),
        ({"optim.lr": "0.1,0.2"}, {"optim.epochs": 0}, "no validation set or no epochs"),
        ({"optim.lr": "0.1,0.2"}, {"view.split.val": None}, "no validation set or no epochs"),
    ],
)
def test_a_space_that_makes_no_sense_is_refused_before_anything_starts(words, changes, message):
    with pytest.raises(ConfigError, match=message):
        parse_space(words, toy_run(**changes), SEARCH)


@pytest.mark.parametrize(
    ("words", "how", "message"),
    [
        (
            {"optim.lr": "0.1,0.2"},
            {"metric": "loss"},
            "found metric=loss, expected val/loss or one of val/mse/features",
        ),
        ({"optim.lr": "0.1,0.2"}, {"grace_epochs": 4}, r"expected at most optim\.epochs \(3\)"),
        ({"optim.epochs": "2,3"}, {}, "equal in all trials"),
        ({"view.split.gap_s": "4..20"}, {}, "equal in all trials"),
        ({"view.normalise": "true,false"}, {}, "equal in all trials"),
        ({"optim.batch_size": "16,32"}, {}, "among how many rows val/info_nce/features picks"),
    ],
)
def test_trials_that_cannot_be_compared_are_refused(words, how, message):
    run = toy_run(losses=[{"name": "mse"}, {"name": "info_nce"}])
    with pytest.raises(ConfigError, match=message):
        parse_space(words, run, SearchConfig.parse(how))


def test_the_squared_error_compares_batch_sizes():
    how = SearchConfig(metric="val/mse/features")
    run = toy_run(losses=[{"name": "mse"}, {"name": "info_nce"}])
    assert parse_space({"optim.batch_size": "16,32"}, run, how) == {"optim.batch_size": Choices(values=(16, 32))}
    assert parse_space({"optim.batch_size": "16,32"}, toy_run(), SEARCH)


def test_a_part_of_the_loss_compares_weights(tmp_path):
    how = SearchConfig(metric="val/mse/features")
    assert parse_space({"losses.0.weight": "1,2"}, toy_run(), how) == {"losses.0.weight": Choices(values=(1, 2))}


def finished_trials(store):
    """Trials whose log holds the validation of the last epoch."""
    names = sorted({key.split("/")[1] for key in store.list("trials/")})
    logs = {name: read_records(Store.at(store.path(f"trials/{name}")), "metrics.jsonl") for name in names}
    return {name: log for name, log in logs.items() if any("val/loss" in line and line["epoch"] == 2 for line in log)}


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(500)
@pytest.mark.parametrize(
    ("num_trials", "num_workers", "num_before"), [(3, 1, 1), pytest.param(6, 2, 2, marks=pytest.mark.faults)]
)
def test_a_search_survives_its_killed_driver(tmp_path, num_trials, num_workers, num_before):
    folder = tiny_run(tmp_path, optim__epochs=0)
    run = Run.loads(Store.at(folder).get("run.yaml").decode())
    spread = {"num_workers": num_workers, "strategy.name": "ddp"}
    run = run.override({"optim.epochs": 2, "optim.batch_size": 32} | spread)
    (tmp_path / "run.yaml").write_text(run.dump())
    out = tmp_path / "search"
    command = [sys.executable, "-m", "cineray.cluster.cli", "tune", str(tmp_path / "run.yaml"), f"out={out}"]
    command += ["search.optim.lr=log:1e-4..1e-2", "search.model.dim=8,16", "grace_epochs=2"]
    command += [f"num_trials={num_trials}"]
    store = Store.at(out)
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    until = time.monotonic() + 200
    while len(finished_trials(store)) < num_before and driver.poll() is None and time.monotonic() < until:
        time.sleep(0.2)
    assert driver.poll() is None, "it ended before it could be killed"
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    before = finished_trials(store)
    assert num_before <= len(before) < num_trials

    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    after = finished_trials(store)
    assert len(after) == num_trials
    for name, log in before.items():
        assert after[name] == log, "a finished trial was run again"
    table = json.loads(store.get("trials.json"))
    assert sorted(trial["trial"] for trial in table) == sorted(after)
    assert {trial["state"] for trial in table} == {"finished"}
    least = {name: min(line["val/loss"] for line in log if "val/loss" in line) for name, log in after.items()}
    winner = min(least, key=least.__getitem__)
    assert table[0]["trial"] == winner
    assert table[0]["value"] == least[winner]
    best = Run.loads(store.get("best/run.yaml").decode())
    assert best == run.override(table[0]["settings"])
    assert best == Run.loads(store.get(f"trials/{winner}/run.yaml").decode())
    assert 1e-4 <= best.optim.lr <= 1e-2
    assert "best/run.yaml" in done.stdout
