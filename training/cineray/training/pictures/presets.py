"""What each paper computes, under the names of this registry, with the frames it compares."""

from dataclasses import dataclass
from typing import Literal

from cineray.training.pictures.resize import FrameRule

__all__ = ["PRESETS", "Blend", "Paper", "Preset"]

Paper = Literal["mindvideo", "animator", "neuroclips", "neurons", "mindeye1", "mindeye2", "litemind", "braindiffuser"]
Blend = Literal["none", "mindeye2"]
"""``mindeye2``: the published scores of refined pictures are of .75 refined + .25 low-level ones."""

THREE_FPS = FrameRule()


@dataclass(frozen=True)
class Preset:
    """Metrics and frames of one paper's table."""

    metrics: tuple[str, ...]
    frames: FrameRule = THREE_FPS
    blend: Blend = "none"


def _nway(kind: str, *whats: str) -> tuple[str, ...]:
    return tuple(f"nway_{what}@{n}{kind}" for what in whats for n in (2, 50))


_FEATURES = ("alex2", "alex5", "incep", "clip", "effnet", "swav")

PRESETS: dict[Paper, Preset] = {
    "mindvideo": Preset((*_nway("@top3_mc", "video", "frame"), "ssim@rgb")),
    "animator": Preset(
        (*_nway("@top3_mc", "video"), "ssim@rgb512", "psnr@animator", "hue@animator", "clip_smooth@gated", "vifi",
         "epe@animator"),
        FrameRule(fps=4),
    ),
    "neuroclips": Preset((*_nway("@top3", "video", "frame"), "clip_smooth", "ssim", "psnr")),
    "neurons": Preset(
        (*_nway("@top3_mc", "video", "frame"), "clip_smooth@allpairs", "ssim@columns", "psnr"),
        FrameRule(fps=3, predicted_fps=8, first=4, step=2),
    ),
    "mindeye1": Preset(
        ("pixcorr@noantialias", "ssim@425", *_FEATURES, "retrieval@medarc_forward", "retrieval@medarc_backward")
    ),
    "mindeye2": Preset(
        ("pixcorr@noantialias", "ssim@425", *_FEATURES, "retrieval@medarc_forward", "retrieval@medarc_backward",
         "caption_meteor", "caption_rouge1", "caption_rougeL", "caption_minilm", "caption_clip_b", "caption_clip_l",
         "brain_corr"),
        blend="mindeye2",
    ),
    "litemind": Preset(("pixcorr@noantialias", "ssim@425", *_FEATURES, "retrieval@litemind")),
    "braindiffuser": Preset(("pixcorr@noantialias", "ssim@columns425", *_FEATURES)),
}  # fmt: skip
"""NeuroClips' evaluation code is not published: its row follows the paper's wording. NEURONS' code sets frames 4, 6, …,
14 of the 16 predicted at 8 fps beside the truth's 6 at 3 fps, so that the prediction stands 0.25 to 0.5 s late.
"""
