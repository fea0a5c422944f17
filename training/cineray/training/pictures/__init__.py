"""Metrics of reconstructed pictures and videos: one audited definition a name, legacy variants behind an ``@``."""

import numpy as np
from numpy.typing import NDArray

from cineray.training.pictures.bank import Bank, Pairing
from cineray.training.pictures.base import Networks, VideoMetric, always, motion, pixels
from cineray.training.pictures.brain import BRAIN_METRICS
from cineray.training.pictures.flow import endpoint_error, flow_cosine
from cineray.training.pictures.hue import hue, hue_animator
from cineray.training.pictures.motion_energy import MIN_FPS, motion_energy, motion_energy_correlation
from cineray.training.pictures.pixcorr import pixcorr
from cineray.training.pictures.psnr import psnr
from cineray.training.pictures.resize import resized
from cineray.training.pictures.retrieval import RETRIEVAL_METRICS
from cineray.training.pictures.semantic import SEMANTIC_METRICS
from cineray.training.pictures.ssim import ssim, ssim_columns, ssim_rgb
from cineray.training.pictures.text import TEXT_METRICS

__all__ = ["DEFAULT", "VIDEO_METRICS", "VideoMetric"]

_PIXELS = (
    pixels("ssim", "luminance, two-dimensional Gaussian of 1.5 px", ssim, px=256),
    pixels("ssim@425", "the same where images are compared (MedARC, scikit-image from 0.20)", ssim, px=425),
    pixels("ssim@rgb", "colours, uniform 7 px (MinD-Video)", ssim_rgb, px=256, antialias=False),
    pixels("ssim@rgb512", "colours, uniform 7 px (Mind-Animator)", ssim_rgb, px=512, antialias=False),
    pixels("ssim@columns", "along single columns (NEURONS)", ssim_columns, px=256),
    pixels(
        "ssim@columns425",
        "along single columns (MedARC, scikit-image up to 0.19)",
        ssim_columns,
        px=425,
        antialias=False,
    ),
    pixels("psnr", "dB, at most 100", psnr, px=256),
    pixels("psnr@animator", "dB, at most 100 (Mind-Animator)", psnr, px=512, antialias=False),
    pixels("pixcorr", "correlation of all pixel values", pixcorr, px=425, chance=always(0.0)),
    pixels(
        "pixcorr@noantialias",
        "the same (MedARC, torchvision up to 0.16)",
        pixcorr,
        px=425,
        antialias=False,
        chance=always(0.0),
    ),
    pixels("hue", "circular correlation of hue, weighted by saturation", hue, px=128, chance=always(0.0)),
    pixels(
        "hue@animator", "cosine of hue, red and blue exchanged (Mind-Animator)", hue_animator, px=512, antialias=False
    ),
)
MOTION_ENERGY_PX = 96


def _motion_energy(pairing: Pairing, networks: Networks) -> NDArray[np.float64]:
    def energy(bank: Bank) -> list[NDArray[np.float64]]:
        return bank.described(
            ("motion_energy", pairing.fps), lambda v: motion_energy(resized(v, MOTION_ENERGY_PX), pairing.fps)
        )

    return pairing.each(motion_energy_correlation, energy(pairing.predicted), energy(pairing.truth))


_MOTION = (
    motion("epe", "distance of Farnebäck flows, pixels per second", endpoint_error, px=256),
    motion(
        "epe@animator",
        "distance of Farnebäck flows, pixels per frame step (Mind-Animator)",
        endpoint_error,
        px=512,
        per_second=False,
        published=True,
    ),
    motion(
        "flow_cos",
        "cosine of flows where the true one exceeds 1 px per step",
        flow_cosine,
        px=256,
        per_second=False,
        higher_is_better=True,
    ),
    VideoMetric(
        "motion_energy",
        f"correlation of motion energy filters (pymoten's), frame by frame; {MOTION_ENERGY_PX} px",
        "motion",
        _motion_energy,
        moving=True,
        min_fps=MIN_FPS,
        baselines=("zero_flow", "first_frame"),
    ),
)
VIDEO_METRICS = {
    m.name: m for m in (*_PIXELS, *_MOTION, *SEMANTIC_METRICS, *RETRIEVAL_METRICS, *TEXT_METRICS, *BRAIN_METRICS)
}

DEFAULT = (
    "nway_video@2", "nway_video@10", "nway_video@50", "nway_frame@2", "nway_frame@10", "nway_frame@50",
    "clip_sim", "video_sim", "ssim", "psnr", "pixcorr", "hue", "clip_smooth", "epe", "flow_cos",
    "motion_energy",
    "alex2", "alex5", "incep", "clip", "effnet", "swav",
    "retrieve_image", "retrieve_brain", "retrieve_image_top5", "retrieve_brain_top5", "retrieve_image_rank",
    "retrieve_brain_rank", "retrieve_image@10", "retrieve_brain@10", "retrieve_image@50",
    "retrieve_brain@50", "retrieve_image@300", "retrieve_brain@300",
    "caption_meteor", "caption_meteor@stem", "caption_rouge1", "caption_rougeL", "caption_bleu1", "caption_bleu4",
    "caption_cider", "caption_verb", "caption_minilm", "caption_clip_b", "caption_clip_l", "brain_corr", "fvd",
)  # fmt: skip
