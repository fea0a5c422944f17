"""The bar shows what the metrics say, however they come."""

import json
import time

import pytest

from cineray.cluster import watch
from cineray.core.errors import StorageError
from cineray.core.records import Records
from cineray.core.storage import LocalStore, Store


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path) -> Store:
    return Store.at(tmp_path if request.param == "folder" else request.getfixturevalue("s3_url"))


def lines(*steps: int, **metrics: float) -> bytes:
    return b"".join(json.dumps({"step": step, **metrics}).encode() + b"\n" for step in steps)


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(watch, "POLL_S", 0.01)


def test_a_run_is_followed_to_its_end(store, terminal, capsys):
    with watch.watched(store, "tiny", 20), Records(store, watch.LOG, upload_s=0) as log:
        for step in range(1, 21):
            log.append({"step": step, "loss": 2 / step})
        log.append({"step": 20, "val/loss": 0.25})
    shown = capsys.readouterr().err
    assert "tiny  (waiting for workers)" in shown
    end = shown.rpartition("\r")[2]
    assert "tiny  loss 0.1000  val/loss 0.2500" in end
    assert "20/20" in end


@pytest.fixture
def appears(capsys):
    """Waits until the terminal shows some words."""

    def wait(words: str) -> None:
        shown, deadline = "", time.monotonic() + 20
        while words not in shown and time.monotonic() < deadline:
            time.sleep(0.02)
            shown += capsys.readouterr().err
        assert words in shown

    return wait


def test_steps_appear_while_they_are_taken(tmp_path, terminal, appears):
    store = Store.at(tmp_path)
    with watch.watched(store, "tiny", 20):
        for step in (3, 7):
            store.put(watch.LOG, lines(*range(1, step + 1), loss=0.5))
            appears(f" {step}/20")


def test_nothing_is_shown_without_a_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "0")
    Store.at(tmp_path).put(watch.LOG, lines(1))
    with watch.watched(Store.at(tmp_path), "tiny", 2):
        pass
    assert capsys.readouterr() == ("", "")


def test_an_error_in_the_block_is_raised(tmp_path, terminal):
    with pytest.raises(ZeroDivisionError), watch.watched(Store.at(tmp_path), "tiny", 2):
        _ = 1 / 0


def test_half_a_line_waits_for_the_other(store):
    log, whole = watch._Log(store), lines(1, 2, loss=0.5)
    assert not log.read()
    seen = []
    for length in range(1, len(whole) + 1):
        store.put(watch.LOG, whole[:length])
        seen += [log.last["step"]] if log.read() else []
    assert seen == [1, 2]
    assert not log.read()
    store.put(watch.LOG, whole + b'{"step": 3, "val/loss": 0.1}\n')
    assert log.read()
    assert log.last == {"step": 3, "loss": 0.5, "val/loss": 0.1}


@pytest.mark.parametrize("rewritten", [lines(1), lines(*range(1, 40)), b""], ids=["shorter", "longer", "empty"])
def test_a_rewritten_log_is_read_from_its_start(store, rewritten):
    log = watch._Log(store)
    store.put(watch.LOG, lines(7, 8, loss=0.123456789))
    assert log.read()
    store.put(watch.LOG, rewritten)
    log.read()
    store.put(watch.LOG, rewritten + lines(50, **{"val/loss": 0.1}))
    assert log.read()
    assert log.last == {"step": 50, "val/loss": 0.1}


def test_a_store_that_fails_is_told_and_asked_again(tmp_path, terminal, appears):
    class Busy(LocalStore):
        busy = True

        def size(self, key):
            if self.busy:
                raise StorageError("read of [/x] was refused")
            return super().size(key)

    store = Busy(str(tmp_path))
    store.put(watch.LOG, lines(1, 2))
    with watch.watched(store, "tiny", 3):
        appears("tiny  (read of [/x] was refused)")
        store.busy = False
        appears("2/3")
