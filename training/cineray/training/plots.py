"""The report's pictures: each function takes numbers out of ``evaluation/<split>.json`` and gives an inline SVG."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

__all__ = ["accuracy_over_minutes", "learning_curve", "rank_histogram", "similarity_matrix", "subject_bars"]

INK, MUTED, ACCENT, SECOND = "#1f2933", "#8794a3", "#2563a8", "#c2571a"
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "cineray",
}


def subject_bars(score: Mapping[str, Any]) -> str:
    """One bar a subject, best first, with chance and the mean's interval."""
    found = sorted(score["per_subject"].items(), key=lambda item: item[1], reverse=score["higher_is_better"])
    names, values = zip(*found, strict=True)
    with mpl.rc_context(STYLE):
        figure, axes = _axes(width=max(4.5, 1.5 + 0.3 * len(names)))
        axes.bar(range(len(names)), values, color=ACCENT, width=0.7)
        axes.axhspan(score["low"], score["high"], color=SECOND, alpha=0.18, label="mean, 95 % interval")
        axes.axhline(score["value"], color=SECOND, linewidth=1.2)
        axes.axhline(score["chance"], color=INK, linestyle="--", linewidth=1, label="chance")
        axes.set_xticks(range(len(names)), names, rotation=60 if len(names) > 6 else 0, fontsize=8)
        axes.set_ylabel(score["metric"])
        _legend(figure)
        return _inline(figure)


def rank_histogram(ranks: Mapping[str, Sequence[int]], chance: float) -> str:
    """How often the true clip came at which rank, all subjects together; flat where nothing is decoded.

    ``chance`` is the median rank of a guess, so the last rank is about twice that.
    """
    every = np.concatenate([np.asarray(r) for r in ranks.values()])
    worst = max(int(every.max()), round(2 * chance - 1))
    with mpl.rc_context(STYLE):
        figure, axes = _axes()
        num_bins = min(worst, 25)
        axes.hist(every, bins=np.linspace(0.5, worst + 0.5, num_bins + 1), color=ACCENT)
        axes.axhline(len(every) / num_bins, color=INK, linestyle="--", linewidth=1, label="chance")
        axes.set_xlabel("rank of the true clip")
        axes.set_ylabel("clips")
        _legend(figure)
        return _inline(figure)


def similarity_matrix(similarity: Mapping[str, Any]) -> str:
    """Predicted against true clips; a decoder that works has a bright diagonal."""
    matrix = np.array(similarity["matrix"])
    limit = float(np.abs(matrix).max()) or 1.0
    with mpl.rc_context(STYLE):
        figure, axes = _axes(height=4.2, width=4.9)
        image = axes.imshow(matrix, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        axes.set_xlabel("true clip")
        axes.set_ylabel("predicted clip")
        figure.colorbar(image, ax=axes, label="correlation", shrink=0.8)
        return _inline(figure)


def learning_curve(records: Sequence[Mapping[str, Any]]) -> str | None:
    """Loss over steps; None where the log holds none (a closed-form fit takes no step).

    A run that went on after a failure logs some steps twice; the later record is the one that counts.
    """
    curves = {
        name: sorted({r["step"]: r[name] for r in records if name in r and "step" in r}.items())
        for name in ("loss", "val/loss")
    }
    if not curves["loss"]:
        return None
    with mpl.rc_context(STYLE):
        figure, axes = _axes()
        axes.plot(*zip(*curves["loss"], strict=True), color=ACCENT, linewidth=0.9, label="training")
        if curves["val/loss"]:
            axes.plot(*zip(*curves["val/loss"], strict=True), "o-", color=SECOND, markersize=3.5, label="validation")
        axes.set_xlabel("step")
        axes.set_ylabel("loss")
        _legend(figure)
        return _inline(figure)


def accuracy_over_minutes(
    curves: Mapping[str, Sequence[tuple[float, float, float, float]]], metric: str, chance: float
) -> str:
    """One line a method: (minutes of training data, value, low, high)."""
    with mpl.rc_context(STYLE):
        figure, axes = _axes(width=6.4)
        for (label, points), colour in zip(curves.items(), _colours(len(curves)), strict=True):
            minutes, value, low, high = (np.array(x) for x in zip(*sorted(points), strict=True))
            axes.fill_between(minutes, low, high, color=colour, alpha=0.15)
            axes.plot(minutes, value, "o-", color=colour, label=label)
        axes.axhline(chance, color=INK, linestyle="--", linewidth=1, label="chance")
        axes.set_xscale("log")
        ticks = sorted({p[0] for points in curves.values() for p in points})
        axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
        axes.minorticks_off()
        axes.set_xlabel("minutes of training data")
        axes.set_ylabel(metric)
        _legend(figure)
        return _inline(figure)


def _axes(width: float = 4.9, height: float = 3.3) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _legend(figure: Figure) -> None:
    """Above the axes, where it hides nothing."""
    figure.legend(loc="outside upper right", ncols=3, fontsize=8)


def _colours(num: int) -> list[Any]:
    return [ACCENT, SECOND][:num] if num <= 2 else [mpl.colormaps["viridis"](i / num) for i in range(num)]


def _inline(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
