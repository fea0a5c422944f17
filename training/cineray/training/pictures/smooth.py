"""How alike the frames of one video are to each other. None of these looks at the truth: a frozen frame scores 1."""

import numpy as np
from numpy.typing import NDArray

from cineray.training.metrics.similarity import cosine_matrix

__all__ = ["VIFI_GATE", "adjacent", "all_pairs", "gated"]

Frames = NDArray[np.floating]
"""(frames, dim) embeddings."""

VIFI_GATE = 0.6


def adjacent(frames: Frames) -> float:
    """Mean cosine of neighbouring frames (the wording of NeuroClips' CLIP-pcc)."""
    return float(np.diagonal(cosine_matrix(frames, frames), offset=1).mean())


def all_pairs(frames: Frames) -> float:
    """Legacy ``clip_smooth@allpairs``: mean cosine of all pairs of different frames (NEURONS)."""
    cosine = cosine_matrix(frames, frames)
    return float(cosine[~np.eye(len(frames), dtype=bool)].mean())


def gated(frames: Frames, video_similarity: float) -> float:
    """Legacy ``clip_smooth@gated``: `adjacent`, but 0 where the videos' own similarity is at most .6 (Mind-Animator).

    The gate, not smoothness, makes published values near .4 out of .9.
    """
    return adjacent(frames) if video_similarity > VIFI_GATE else 0.0
