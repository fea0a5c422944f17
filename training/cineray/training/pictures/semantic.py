"""Metrics that look through a network: classes and embeddings."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cineray.training.metrics.similarity import pearson_matrix
from cineray.training.pictures.bank import Pairing
from cineray.training.pictures.base import Networks, VideoMetric, always, identification, mean_features, rows_cosine
from cineray.training.pictures.nway import nway, nway_chance, nway_monte_carlo, nway_of
from cineray.training.pictures.smooth import adjacent, all_pairs, gated

__all__ = ["SEMANTIC_METRICS"]

Array = NDArray[np.float64]
NETWORKS = {
    "alex2": "published with AlexNet features.4",
    "alex5": "published with AlexNet features.11",
    "incep": "published with InceptionV3 avgpool",
    "clip": "published with CLIP ViT-L/14",
}
"""Role -> the network of published values; the one that was used stands in the evaluation."""
SMOOTH = "prediction alone, read beside the truth's own value"


def _nway(what: Literal["frame", "video"], n: int, kind: Literal["", "@top3", "@top3_mc"] = "") -> VideoMetric:
    accepted, score = (1 if kind == "" else 3), (nway_monte_carlo if kind == "@top3_mc" else nway)
    role = f"{what}_classifier"

    def values(pairing: Pairing, networks: Networks) -> Array:
        def compare(predicted: NDArray[Any], truth: NDArray[Any]) -> float:
            rows = (np.atleast_2d(x) for x in (predicted, truth))
            return float(score(*rows, n=n, num_accepted=accepted).mean())

        banks = (pairing.predicted, pairing.truth)
        found = (
            b.by_frame(networks[role], "logits") if what == "frame" else b.by_video(networks[role], "logits")
            for b in banks
        )
        return pairing.each(compare, *found)

    words = "the class" if accepted == 1 else "one of the 3 highest classes"
    how = "100 draws" if kind == "@top3_mc" else "exact expectation"
    return VideoMetric(
        f"nway_{what}@{n}{kind}",
        f"{words} of the true {what} wins among {n}, {how}",
        "semantics",
        values,
        always(nway_chance(n, accepted)),
        needs=(role,),
        moving=what == "video",
        min_classes=n - 1 + accepted,
    )


def _nway_annotated(what: Literal["frame", "video"], n: int) -> VideoMetric:
    """The accepted class is the data set's, whatever the classifier sees in the truth; NaN where it has none."""
    role = f"{what}_classifier"

    def values(pairing: Pairing, networks: Networks) -> Array:
        network = networks[role]
        bank = pairing.predicted
        logits = bank.by_frame(network, "logits") if what == "frame" else bank.by_video(network, "logits")
        number = {name: k for k, name in enumerate(network.classes)}
        true = [number.get(label) for label in pairing.truth.labels]

        def score(predicted: NDArray[Any], label: int | None) -> float:
            return float("nan") if label is None else float(nway_of(np.atleast_2d(predicted), label, n=n).mean())

        return pairing.each(score, logits, true)

    return VideoMetric(
        f"nway_{what}@{n}@annotation",
        f"the annotated class wins among {n}, exact expectation",
        "semantics",
        values,
        always(nway_chance(n)),
        needs=(role,),
        moving=what == "video",
        min_classes=n,
        annotated=True,
    )


def _smooth(name: str, meaning: str, function: Callable[[NDArray[Any]], float], role: str = "clip") -> VideoMetric:
    """A property of the prediction alone, read beside the truth's own value."""

    def values(pairing: Pairing, networks: Networks) -> Array:
        frames = pairing.predicted.by_frame(networks[role], "embedding")
        return pairing.each(lambda p, _: function(p), frames, pairing.truth.videos)

    return VideoMetric(name, f"{meaning}; {SMOOTH}", "smoothness", values, needs=(role,), moving=True)


def _clip_sim(pairing: Pairing, networks: Networks) -> Array:
    return pairing.each(
        rows_cosine, *(b.by_frame(networks["clip"], "embedding") for b in (pairing.predicted, pairing.truth))
    )


def _video_sim(pairing: Pairing, networks: Networks, role: str = "video_classifier") -> Array:
    return pairing.each(
        rows_cosine, *(b.by_video(networks[role], "embedding") for b in (pairing.predicted, pairing.truth))
    )


def _gated(pairing: Pairing, networks: Networks) -> Array:
    frames = pairing.predicted.by_frame(networks["clip_b32"], "embedding")
    alike = _video_sim(pairing, networks, "vifi")
    return np.array([gated(frames[i], s) for i, s in zip(pairing.rows, alike, strict=True)])


def _distance(role: str, source: str) -> VideoMetric:
    def values(pairing: Pairing, networks: Networks) -> Array:
        p, t = (mean_features(bank, networks[role]) for bank in (pairing.predicted, pairing.truth))
        return 1 - pearson_matrix(p, t)[pairing.rows, pairing.own]

    meaning = f"1 - correlation of features ({source})"
    return VideoMetric(role, meaning, "features", values, higher_is_better=False, needs=(role,))


SEMANTIC_METRICS = (
    *(_nway(what, n, kind) for what in ("frame", "video") for n in (2, 10, 50) for kind in ("", "@top3", "@top3_mc")),
    *(_nway_annotated(what, n) for what in ("frame", "video") for n in (2, 10, 50)),
    VideoMetric(
        "clip_sim",
        "cosine of picture embeddings, predicted against true frame",
        "semantics",
        _clip_sim,
        needs=("clip",),
    ),
    VideoMetric(
        "video_sim",
        "cosine of pooled video features",
        "semantics",
        _video_sim,
        needs=("video_classifier",),
        moving=True,
    ),
    VideoMetric(
        "vifi",
        "cosine of video-text features (ViFi-CLIP)",
        "semantics",
        lambda p, n: _video_sim(p, n, "vifi"),
        needs=("vifi",),
        moving=True,
    ),
    _smooth("clip_smooth", "mean cosine of neighbouring frames' embeddings", adjacent),
    _smooth("clip_smooth@allpairs", "mean cosine of all pairs of frames (NEURONS)", all_pairs),
    _smooth("clip_smooth@cinebrain", "the same as clip_smooth (CineBrain's CTC)", adjacent, "clip_b32"),
    _smooth("dino_smooth@cinebrain", "the same through DINO (CineBrain's DTC)", adjacent, "dino"),
    VideoMetric(
        "clip_smooth@gated",
        f"0 where ViFi-CLIP is at most .6; {SMOOTH}",
        "smoothness",
        _gated,
        needs=("clip_b32", "vifi"),
        moving=True,
    ),
    *(identification(name, name, source) for name, source in NETWORKS.items()),
    _distance("effnet", "published with EfficientNet-B1 avgpool"),
    _distance("swav", "published with SwAV ResNet-50 avgpool"),
)
