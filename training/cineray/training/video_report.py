"""The gallery: every clip's truth, blurry video, keyframe and video side by side, with what the evaluation found.

One page that any browser opens without a network: ``gallery-<split>.html`` in the run folder. Clips play as strips of
frames moved by the style sheet, so that all panels run at one clock and no video decoder is needed.
"""

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cineray.core.storage import Store
from cineray.datasets.dataset import Dataset
from cineray.datasets.manifest import require_data
from cineray.training.evaluate_video import read_evaluation
from cineray.training.reconstructions import Reconstructions

__all__ = ["Sprite", "video_report"]

HEADLINE = ("nway_video@10", "nway_video@2", "clip_sim", "video_sim", "ssim", "psnr")
"""What clips are sorted by at first: the first of these that was computed."""
TILES = ("nway_video@10", "nway_frame@10", "clip_sim", "retrieve_image@10", "ssim", "epe")
COLUMNS = {
    "mean_training_frame": "mean frame",
    "flat_grey": "grey",
    "zero_flow": "no motion",
    "first_frame": "true first frame held",
}
BLIND = ("mean_training_frame", "flat_grey", "zero_flow")
"""Baselines that know nothing of the clip."""
PANEL_PX, STRIP_FRAMES, EXTREMES = 160, 16, 3


@dataclass(frozen=True)
class Sprite:
    """Frames side by side in one picture."""

    name: str
    """Of its style class."""
    source: str
    """Data address."""
    num: int
    aspect: str
    coarse: bool
    """Whether its pixels are few enough to be shown as squares."""

    @classmethod
    def of(cls, name: str, video: NDArray[np.uint8]) -> "Sprite":
        """(frames, height, width, 3); at most 16 frames of at most 160 px."""
        num, height, width = min(len(video), STRIP_FRAMES), video.shape[1], video.shape[2]
        moments = np.floor(np.arange(num) * len(video) / num).astype(int)
        scale = min(1.0, PANEL_PX / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        frames = [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in video[moments]]
        buffer = io.BytesIO()
        Image.fromarray(np.concatenate(frames, axis=1)).save(buffer, "WEBP", quality=84, method=4)
        source = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
        return cls(name, source, num, f"{width} / {height}", coarse=max(size) <= 64)


def video_report(run_dir: str | Path, split: str = "test", *, kind: str = "video", num_clips: int = 48) -> str:
    """Write the gallery of an evaluated split; returns where it is.

    Args:
        run_dir: folder with reconstructions and their evaluation.
        split: which of them.
        kind: of evaluation (`EvaluateVideoConfig.kind`): what was judged, and by which paper's table.
        num_clips: at most so many clips are shown: a third of them the best, a third the worst, the others evenly
            spread between.
    """
    store = Store.at(run_dir)
    evaluation = read_evaluation(store, split, kind)
    folder = Reconstructions.open(store, split)
    dataset = Dataset.open(folder.origin.dataset)
    require_data(dataset.fingerprint, folder.origin.data, url=dataset.store.url, user=store.url)
    headline = next((name for name in HEADLINE if name in evaluation["values"]), next(iter(evaluation["values"]), None))
    ranked = _ranked(evaluation, folder, headline)
    shown = _chosen(len(ranked), num_clips)
    cards = [_card(evaluation, folder, dataset, ranked[k]) for k in shown]
    page = _template().render(
        evaluation=evaluation,
        lines=[line | _judged(line) for line in evaluation["metrics"].values()],
        columns=COLUMNS,
        tiles=[evaluation["metrics"][name] for name in TILES if name in evaluation["metrics"]],
        cards=cards,
        best=cards[:EXTREMES],
        worst=cards[max(EXTREMES, len(cards) - EXTREMES) :][::-1],
        headline=headline,
        num_clips=len(ranked),
        directions={name: line["higher_is_better"] for name, line in evaluation["metrics"].items()},
    )
    key = f"gallery-{split}.html" if kind == "video" else f"gallery-{split}-{kind}.html"
    store.put(key, page.encode())
    return store.path(key)


def _ranked(evaluation: dict[str, Any], folder: Reconstructions, headline: str | None) -> list[int]:
    """Numbers of the entries, best clip first."""
    sign = -1 if headline and evaluation["metrics"][headline]["higher_is_better"] else 1

    def key(number: int) -> tuple[bool, float]:
        entry = folder.entries[number]
        value = _value(evaluation, headline, entry.subject, entry.stimulus_id) if headline else None
        return value is None, sign * (value or 0.0)

    return sorted(range(len(folder.entries)), key=key)


def _chosen(num: int, most: int) -> list[int]:
    """Places in the ranking that are shown, in order."""
    if num <= most:
        return list(range(num))
    third = most // 3
    between = np.linspace(third, num - third - 1, most - 2 * third).round().astype(int)
    return sorted({*range(third), *between.tolist(), *range(num - third, num)})


def _value(evaluation: dict[str, Any], metric: str, subject: str, stimulus_id: str) -> float | None:
    row, column = evaluation["subjects"].index(subject), evaluation["stimuli"].index(stimulus_id)
    return evaluation["values"][metric][row][column]


def _card(evaluation: dict[str, Any], folder: Reconstructions, dataset: Dataset, number: int) -> dict[str, Any]:
    """What the page shows of one clip."""
    entry = folder.entries[number]
    clip = folder.read(entry.example)
    table = dataset.stimuli(["stimulus_id", "caption", "length_s"])
    row = table["stimulus_id"].to_pylist().index(entry.stimulus_id)
    truth = dataset.gather_stimuli("frames", np.array([row]))[0]
    pictures = {
        "truth": truth,
        "blurry": clip.blurry,
        "keyframe": None if clip.keyframe is None else clip.keyframe[None],
        "video": clip.video,
    }
    values = {m: _value(evaluation, m, entry.subject, entry.stimulus_id) for m in evaluation["values"]}
    return {
        "entry": entry,
        "length_s": table["length_s"][row].as_py(),
        "panels": {k: Sprite.of(f"s{entry.example}-{k}", v) for k, v in pictures.items() if v is not None},
        "true_caption": table["caption"][row].as_py(),
        "caption": clip.caption,
        "values": {m: v for m, v in values.items() if v is not None},
    }


def _judged(line: dict[str, Any]) -> dict[str, Any]:
    """The line against chance, null and what knows nothing of the clip; and a small picture of all of them."""
    blind = [line["null"], line["chance"], *(line["baselines"].get(name) for name in BLIND)]
    others = [x for x in blind if x is not None]
    sign = 1 if line["higher_is_better"] else -1
    bar = max(others, key=lambda x: sign * x) if others else None
    worse, better = sorted((sign * line["low"], sign * line["high"]))
    verdict = ""
    if bar is not None and line["level"] != "smoothness":
        verdict = "above" if worse > sign * bar else "below" if better < sign * bar else "even"
    return {"verdict": verdict, "strip": _strip(line)}


def _strip(line: dict[str, Any]) -> dict[str, Any]:
    """Places from 0 to 100 of the interval, the value and the marks."""
    marks = {name: line["baselines"].get(name) for name in COLUMNS} | {"null": line["null"], "chance": line["chance"]}
    known = {name: x for name, x in marks.items() if x is not None}
    every = [line["low"], line["high"], *known.values()]
    low, high = min(every), max(every)
    scale = (high - low) or 1.0

    def place(x: float) -> float:
        return round(4 + 92 * (x - low) / scale, 2)

    return {
        "low": place(line["low"]),
        "high": place(line["high"]),
        "value": place(line["value"]),
        "marks": {name: place(x) for name, x in known.items()},
    }


def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["number"] = lambda x: "–" if x is None else _short(x)
    text = Path(__file__).with_name("gallery.html.j2").read_text(encoding="utf-8")
    return environment.from_string(text)


def _short(x: float) -> str:
    """Three digits behind the point, fewer for large numbers."""
    return f"{x:.{3 if abs(x) < 10 else 2 if abs(x) < 100 else 1}f}".replace("-", "−")
