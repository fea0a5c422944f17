"""Metric logs: what was appended is read back, on a folder and on S3, after a kill too."""

import json
import math

import pytest

from cineray.core.errors import IntegrityError
from cineray.core.records import Records, progress, read_records
from cineray.core.storage import Store


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path) -> Store:
    return Store.at(tmp_path / "store" if request.param == "folder" else request.getfixturevalue("s3_url"))


def test_lines_come_back_in_order_over_several_sessions(store):
    expected = []
    for session in range(3):
        with Records(store, "run/metrics.jsonl") as log:
            for step in range(4):
                expected.append({"session": session, "step": step, "text": "é\n\u2028", "loss": step / 3})
                log.append(expected[-1])
    assert read_records(store, "run/metrics.jsonl") == expected
    assert [json.loads(line) for line in store.get("run/metrics.jsonl").decode().split("\n")[:-1]] == expected


def test_a_log_not_begun_is_empty(store):
    assert read_records(store, "metrics.jsonl") == []


def test_not_a_number_survives(store):
    with Records(store, "m") as log:
        log.append({"loss": math.nan})
    assert math.isnan(read_records(store, "m")[0]["loss"])


@pytest.mark.parametrize("size", [10, 70_000])
def test_every_torn_tail_is_ignored_and_then_cut_off(store, size):
    whole = b'{"a": 1}\n{"b": "' + b"x" * size + b'"}\n'
    torn = b'{"c": "' + b"y" * size + b'"}'
    for length in (1, size // 2, len(torn)):
        store.put("m", whole + torn[:length])
        assert [list(record) for record in read_records(store, "m")] == [["a"], ["b"]]
        with Records(store, "m") as log:
            log.append({"d": 2})
        assert store.get("m") == whole + b'{"d": 2}\n'


def test_damage_before_the_end_is_named(store):
    store.put("m", b'{"a": 1}\n{"b": 2\n{"c": 3}\n')
    with pytest.raises(IntegrityError, match=r"line 2 of .*m is not a JSON object"):
        read_records(store, "m")


def test_a_line_is_on_disk_when_append_returns(tmp_path):
    store = Store.at(tmp_path)
    log = Records(store, "m")
    log.append({"a": 1})
    assert read_records(store, "m") == [{"a": 1}]
    log.close()


def test_remote_lines_are_uploaded_after_a_while(s3_url):
    store = Store.at(s3_url)
    slow, quick = Records(store, "slow", upload_s=3600), Records(store, "quick", upload_s=0)
    for log in (slow, quick):
        log.append({"a": 1})
    assert (read_records(store, "slow"), read_records(store, "quick")) == ([], [{"a": 1}])
    slow.close()
    assert read_records(store, "slow") == [{"a": 1}]


def test_progress_passes_items_on_and_says_nothing_without_a_terminal(capsys):
    assert list(progress(iter(range(5)), "counting", 5)) == list(range(5))
    assert capsys.readouterr() == ("", "")
