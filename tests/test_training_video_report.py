"""The gallery: says what evaluation found, needs no network, and sorts and plays in a real browser."""

import base64
import html
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from cineray.core.errors import ConfigError
from cineray.core.storage import Store
from cineray.datasets.dataset import Dataset
from cineray.training.evaluate_video import EvaluateVideoConfig, evaluate_video
from cineray.training.reconstructions import Reconstruction, Reconstructions
from cineray.training.video_report import Sprite, video_report
from video_run import reconstruct, synthetic_films

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
VOID = {"meta", "br", "link", "input", "path"}


class Page(HTMLParser):
    """Checks that tags close in order, and gathers cards, cells and addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cards: list[dict] = []
        self.cells: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if "card" in (values.get("class") or "").split():
            self.cards.append(values)
        self.addresses += [v for k, v in values.items() if k in ("href", "src") and v]

    def handle_endtag(self, tag):
        assert tag in VOID or self.open.pop() == tag

    def handle_data(self, data):
        if "td" in self.open:
            self.cells.append(data.strip())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gallery")
    run = reconstruct(folder / "a & <b>run<_b>", synthetic_films(folder / "data"), noise=30, num=12)
    config = EvaluateVideoConfig(metrics=("psnr", "caption_rouge1", "alex2"), num_bootstrap=20, num_null=1)
    return run, evaluate_video(run, "test", config)


@pytest.fixture(scope="module")
def page(run):
    return Store.at(run[0]).get(video_report(run[0]).rpartition("/")[2]).decode()


def test_the_page_is_whole_and_says_what_evaluation_found(page, run):
    found = Page(page)
    for line in run[1]["metrics"].values():
        for x in (line["value"], line["null"], *line["baselines"].values()):
            assert any(cell.startswith(f"{x:.4g}"[:4]) for cell in found.cells), x
    assert "no network is named for the role &#39;alex2&#39;" in page
    assert "a &amp; &lt;b&gt;run" in page
    assert "<b>run" not in page
    assert len([c for c in found.cards if c["data-subject"] == "sub-01"]) >= 12


def test_the_page_needs_no_network(page):
    assert Page(page).addresses == []
    assert not re.search(r"https?://|@import|url\((?!data:)", page)


def test_panels_hold_the_frames(page, run):
    folder = Reconstructions.open(Store.at(run[0]), "test")
    clip = folder.read(3)
    assert clip.keyframe is not None
    assert clip.blurry is not None
    for kind, video in (("video", clip.video), ("keyframe", clip.keyframe[None]), ("blurry", clip.blurry)):
        strip = picture(page, f"s3-{kind}")
        assert strip.shape[1] == 32 * len(video)
        error = np.abs(strip.astype(float) - np.concatenate(list(video), axis=1))
        assert error.mean() < 30, "compressed, but the same pictures"
    dataset = Dataset.open(folder.origin.dataset)
    row = [s["stimulus_id"] for s in dataset.stimuli().to_pylist()].index(clip.stimulus_id)
    truth = dataset.gather_stimuli("frames", np.array([row]))[0]
    error = np.abs(picture(page, "s3-truth").astype(float) - np.concatenate(list(truth), axis=1))
    assert error.mean() < 5


def picture(page, name):
    found = re.search(rf"\.{name} {{ background-image: url\(data:image/webp;base64,([^)]+)\)", page)
    assert found
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(found[1]))).convert("RGB"))


def test_long_and_large_videos_are_thinned():
    video = np.zeros((48, 300, 400, 3), np.uint8)
    video[24:] = 255
    sprite = Sprite.of("x", video)
    strip = np.asarray(Image.open(io.BytesIO(base64.b64decode(sprite.source.partition(",")[2]))))
    assert (sprite.num, strip.shape) == (16, (120, 16 * 160, 3))
    assert strip[60, 8 * 160 - 80].max() < 20
    assert strip[60, 8 * 160 + 80].min() > 235


def test_many_clips_are_the_best_the_worst_and_some_between(run):
    folder = Store.at(run[0])
    values = run[1]["values"]["psnr"]
    where = video_report(run[0], num_clips=9)
    shown = {int(c["data-example"]) for c in Page(folder.get(where.rpartition("/")[2]).decode()).cards}
    order = np.argsort(-np.array(values).ravel()).tolist()
    assert set(order[:3]) | set(order[-3:]) <= shown
    assert len(shown) == 9
    video_report(run[0])


def test_a_run_that_was_not_evaluated_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"holds no evaluation/test-video\.json"):
        video_report(tmp_path)


def test_clips_without_keyframe_or_blurry_have_two_panels(run, tmp_path):
    shutil.copytree(run[0], tmp_path / "run")
    folder = Reconstructions.open(Store.at(tmp_path / "run"), "test")
    old = folder.read(0)
    kept = {name: value for name, value in vars(old).items() if name not in ("keyframe", "blurry")}
    folder.write(Reconstruction(**kept))
    text = Store.at(tmp_path / "run").get(video_report(tmp_path / "run").rpartition("/")[2]).decode()
    assert [f"s0-{kind}" in text for kind in ("truth", "video", "blurry", "keyframe")] == [True, True, False, False]


def test_keyframes_have_a_gallery_of_their_own(run, page, tmp_path):
    """Beside that of the videos, with the keyframes' values and in their order: every second one is a negative here."""
    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    clips = Reconstructions.open(Store.at(folder), "test")
    for number in range(0, 24, 2):
        clip = clips.read(number)
        assert clip.keyframe is not None
        clips.write(replace(clip, keyframe=255 - clip.keyframe))
    evaluate_video(
        folder, "test", EvaluateVideoConfig(part="keyframe", metrics=("psnr",), num_bootstrap=20, num_null=1)
    )
    where = video_report(folder, kind="keyframe")
    assert where == str(folder / "gallery-test-keyframe.html")
    assert (folder / "gallery-test.html").read_text() == page
    text = (folder / "gallery-test-keyframe.html").read_text()
    assert ("judged: keyframe" in text, "judged: video" in page) == (True, True)
    cards = Page(text).cards[-24:]  # behind the best and the worst
    shown = {int(card["data-example"]): json.loads(card["data-values"]) for card in cards}
    stored = json.loads((folder / "evaluation/test-keyframe.json").read_bytes())
    assert stored["part"] == "keyframe"
    assert shown == {k: {"psnr": value} for k, value in enumerate(np.ravel(stored["values"]["psnr"]).tolist())}
    assert [number % 2 for number in shown] == [1] * 12 + [0] * 12, "best first, negatives last"


PROBE = """<pre id="probe"></pre><script>
const strips = [...document.querySelectorAll("#cards .sprite")];
const sources = strips.map(s => getComputedStyle(s).backgroundImage.slice(5, -2));
const loaded = source => new Promise(done => {
  const image = new Image();
  image.onload = () => done(image.naturalWidth);
  image.onerror = () => done(0);
  image.src = source;
});
Promise.all(sources.slice(0, 8).map(loaded)).then(
  widths => {
    const animations = document.getAnimations();
    pick("probe").textContent = JSON.stringify({
      order: [...document.querySelectorAll("#cards .card")].map(c => +c.dataset.example),
      lit: [...document.querySelectorAll("#cards .lit")].map(c => c.dataset.metric),
      widths, starts: [...new Set(animations.map(a => a.startTime))], running: animations.length,
      moving: document.querySelectorAll(".moving").length,
      timing: [...new Set(animations.map(a => getComputedStyle(a.effect.target).animationTimingFunction))],
      panels: strips.slice(0, 4).map(s => [s.clientWidth, s.clientHeight]),
      count: pick("count").value, overflow: document.documentElement.scrollWidth > innerWidth,
    });
  });
</script></body>"""


def browse(folder, page, asked, width=1200):
    """What a browser made of the page, with a probe appended that looks at the result."""
    if BROWSER is None:
        pytest.skip("no Chromium or Chrome is installed to look at the page")
    path = folder / "page.html"
    path.write_text(page.replace("</body>", PROBE), encoding="utf-8")
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900",
        f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=4000", "--dump-dom", f"{path.as_uri()}#{asked}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    found = re.search(r'<pre id="probe">(.+?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    return json.loads(html.unescape(found[1]))


def test_a_browser_sorts_and_plays_the_clips(page, run, tmp_path):
    values = np.array(run[1]["values"]["psnr"])
    seen = browse(tmp_path, page, "metric=psnr&order=worst&subject=sub-02")
    assert seen["order"] == (12 + np.argsort(values[1], kind="stable")).tolist()
    assert seen["count"] == "12 clips"
    assert set(seen["lit"]) == {"psnr"}
    assert set(seen["widths"]) == {32, 32 * 8}, "every strip is decoded: keyframes of one frame, videos of eight"
    assert seen["running"] == seen["moving"] > 0
    assert seen["starts"] == [0], "all panels run at one clock"
    assert seen["timing"] == ["steps(8, jump-none)"]
    assert all(width == height > 100 for width, height in seen["panels"])
    assert not seen["overflow"]


def test_a_narrow_window_shows_whole_cards(page, tmp_path):
    seen = browse(tmp_path, page, "metric=psnr&order=film", width=500)
    assert seen["order"] == list(range(24))
    assert not seen["overflow"]
