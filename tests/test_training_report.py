"""The page: it says what evaluation found, shows every picture, needs no network and escapes every name."""

import base64
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import asdict
from html.parser import HTMLParser

import numpy as np
import pytest

from cineray.core.errors import ConfigError
from cineray.core.records import Records
from cineray.core.storage import Store
from cineray.training.cuts import Part, Scoring, tabulate
from cineray.training.evaluate import describe
from cineray.training.plots import learning_curve
from cineray.training.report import report
from cineray.training.run import Run

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Checks that tags close in order, and gathers what the tests look at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[str] = []
        self.addresses: list[str] = []
        self.cells: list[str] = []
        self.feed(text)
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(values["src"])
            assert values["alt"]
        assert tag != "script", "the page needs no script"
        self.addresses += [v for k, v in values.items() if k in ("href", "src") and v]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "b"):
            self.cells.append(data.strip())


def evaluated(folder, name="toy <b>run</b>", minutes=5.0, signal=0.6, losses=True):
    """A run folder as training and evaluation leave it, from noise of our own."""
    rng = np.random.default_rng(int(minutes))
    store = Store.at(folder)
    split = {"train": {"films": ["one"], "minutes": minutes}, "test": {"films": ["two"]}}
    run = Run.parse({"name": name, "view": {"dataset": "nowhere", "split": split}})
    store.put("run.yaml", run.dump().encode())
    truth = rng.standard_normal((160, 4))
    rows = np.arange(160)
    parts = []
    for subject in range(8):
        predicted = signal * truth + rng.standard_normal((160, 4))
        parts.append(Part(f"sub-{subject}", "two", "two", rows * 1.0, rows, predicted, truth))
    how = Scoring(clip_s=5, num_bootstrap=100)
    evaluation = {
        "run": run.name, "fingerprint": run.fingerprint(), "dataset": "nowhere", "split": "test", "step": 12,
        "model": "shared", "notes": ["a known film & a new person"], "scoring": asdict(how),
        "targets": {"features": describe(tabulate(parts, how))},
    }  # fmt: skip
    store.put("evaluation/test.json", json.dumps(evaluation).encode())
    if losses:
        with Records(store, "metrics.jsonl") as log:
            for step in range(1, 20):
                log.append({"step": step, "loss": 1 / step, "lr": 0.1})
            log.append({"step": 19, "val/loss": 0.3})
    return evaluation


def pictures_of(page: Page) -> list[ET.Element]:
    prefix = "data:image/svg+xml;base64,"
    assert all(source.startswith(prefix) for source in page.images)
    return [ET.fromstring(base64.b64decode(source[len(prefix) :])) for source in page.images]


def test_the_page_is_whole_and_says_what_evaluation_found(tmp_path):
    evaluation = evaluated(tmp_path)
    where = report(tmp_path)
    text = Store.at(tmp_path).get("report.html").decode()
    assert where.endswith("report.html")
    page = Page(text)
    for line in evaluation["targets"]["features"]["metrics"].values():
        assert f"{line['value']:.3f}".replace("-", "−") in page.cells
        assert any(c.startswith(f"{line['low']:.3f}".replace("-", "−")) for c in page.cells)
    assert len(pictures_of(page)) == 4
    assert "a known film &amp; a new person" in text
    assert "toy &lt;b&gt;run" in text
    assert "<b>run</b>" not in text


def test_the_page_needs_no_network(tmp_path):
    evaluated(tmp_path)
    report(tmp_path)
    text = Store.at(tmp_path).get("report.html").decode()
    assert all(a.startswith("data:") for a in Page(text).addresses)
    assert not re.search(r"https?://|url\(|@import", text)


def test_a_run_without_steps_shows_no_learning_curve(tmp_path):
    evaluated(tmp_path, losses=False)
    report(tmp_path)
    text = Store.at(tmp_path).get("report.html").decode()
    assert len(Page(text).images) == 3
    assert "Learning curve" not in text


def test_runs_with_other_amounts_of_data_make_a_curve(tmp_path):
    folders = []
    for name, minutes in (("scratch", 1), ("scratch", 5), ("adapted", 1), ("adapted", 5)):
        folders.append(tmp_path / f"{name}{minutes}")
        evaluated(folders[-1], name, minutes, signal=0.1 * minutes)
    report(folders[0], beside=folders[1:])
    page = Page(Store.at(folders[0]).get("report.html").decode())
    assert len(pictures_of(page)) == 5


def test_the_same_numbers_make_the_same_page(tmp_path):
    evaluated(tmp_path)
    report(tmp_path)
    first = Store.at(tmp_path).get("report.html")
    report(tmp_path)
    assert Store.at(tmp_path).get("report.html") == first


def test_a_run_that_was_not_evaluated_is_named(tmp_path):
    evaluated(tmp_path)
    with pytest.raises(ConfigError, match=r"evaluation/val\.json"):
        report(tmp_path, "val")


def test_a_browser_shows_the_page(tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium here; the page is parsed by the other tests")
    evaluated(tmp_path)
    where = report(tmp_path)
    picture = tmp_path / "page.png"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1200,2000", f"--user-data-dir={tmp_path}/p"]
    found = subprocess.run(
        [browser, *flags, f"--screenshot={picture}", f"file://{where}"], capture_output=True, timeout=120, check=True
    )
    assert picture.stat().st_size > 50_000, found.stderr[-500:]


def test_replayed_steps_are_drawn_once():
    log = [{"step": s, "loss": 1 / s} for s in (1, 2, 3, 2, 3, 4)]
    assert learning_curve(log) == learning_curve([{"step": s, "loss": 1 / s} for s in (1, 2, 3, 4)])
    assert learning_curve([{"step": 0, "val/loss": 1.0}]) is None
