"""What the doctor asks for, says and decides; and that it calls this machine, which runs the tests, a good one."""

import json

import pytest

from cineray.cluster import checks
from cineray.cluster.doctor import Finding, as_json, doctor, healthy, show
from cineray.datasets.ingest import ingest
from films import FilmSource


@pytest.mark.slow
@pytest.mark.cluster
def test_a_good_machine(tmp_path, capsys, monkeypatch):
    """Everything imported, Ray started: this machine runs the tests, so nothing may be wrong."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    ingest(FilmSource(scans=12, clips=10), tmp_path / "data")
    findings = doctor(f"{tmp_path}/runs", f"{tmp_path}/data", True)
    assert [finding for finding in findings if finding.ok is False] == []
    assert healthy(findings)
    by_name = {finding.name: finding for finding in findings}
    assert len(by_name) == len(findings)
    assert by_name.keys() >= {"Python", *checks.PACKAGES, "g++", "ninja", "CPUs", "memory", "GPUs", "/dev/shm"}
    cpus = by_name["CPUs"].found.partition(".")[0]
    assert f" with {cpus} CPUs" in by_name["Ray"].found
    show(findings)
    assert len(capsys.readouterr().out.splitlines()) == len(findings)


FINDINGS = [Finding("Python", True, "3.11"), Finding("GPUs", None, "none", "slow"), Finding("s3fs", False, "[]", "no")]


def test_what_is_shown(capsys, monkeypatch):
    show(FINDINGS)
    assert capsys.readouterr().out.splitlines() == [
        "ok    Python: 3.11",
        "note  GPUs: none; slow",
        "wrong s3fs: []; no",
    ]
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    show(FINDINGS)
    table = capsys.readouterr().out
    assert all(word in table for word in ("what to do", "Python", "slow", "[]", "wrong"))


def test_only_what_is_necessary_fails():
    assert healthy(FINDINGS[:2])
    assert not healthy(FINDINGS)
    told = json.loads(as_json(FINDINGS))
    assert told["ok"] is False
    assert [Finding(**check) for check in told["checks"]] == FINDINGS
    assert "\n" not in as_json(FINDINGS)


def test_only_what_is_asked_for_is_looked_at(monkeypatch):
    monkeypatch.setattr(checks, "PACKAGES", {"numpy": "numpy"})
    monkeypatch.setattr(checks, "check_writable", lambda where: Finding(f"writing to {where}", True, "works"))
    texts = []

    def progress(items, text):
        texts.append(text)
        return items

    names = [finding.name for finding in doctor(None, None, False, progress=progress)]
    assert texts == ["checks"]
    assert not [name for name in names if name.startswith(("writing", "data set", "Ray"))]
    names = [finding.name for finding in doctor("s3://b/x", None, False)]
    assert [name for name in names if "s3://" in name] == ["writing to s3://b/x"]
