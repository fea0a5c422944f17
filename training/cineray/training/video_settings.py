"""Settings of an evaluation of reconstructions: what is computed, against what, through which networks."""

from collections.abc import Collection
from typing import Literal, get_args

from pydantic import Field, model_validator

from cineray.core.config import Config
from cineray.core.content import Local
from cineray.core.errors import ConfigError
from cineray.training.backbones import BackboneConfig, EncoderConfig
from cineray.training.backbones.base import Reads
from cineray.training.pictures import DEFAULT, VIDEO_METRICS
from cineray.training.pictures.presets import PRESETS, Blend, Paper
from cineray.training.pictures.resize import FrameRule

__all__ = ["FVD", "AnnotationConfig", "EncodingConfig", "EvaluateVideoConfig", "Part", "Role", "fvd_role", "reads"]

Part = Literal["video", "blurry", "keyframe"]
VideoRole = Literal["video_classifier", "vifi", "fvd"]
TextRole = Literal["minilm", "clip_b_text", "clip_l_text"]
PictureRole = Literal["frame_classifier", "clip", "clip_b32", "dino", "alex2", "alex5", "incep", "effnet", "swav"]
Role = PictureRole | VideoRole | TextRole
FVD = "fvd"
ANNOTATED = "@annotation"


def reads(role: str) -> Reads:
    """What the network of a role must look at."""
    if role in get_args(VideoRole):
        return "videos"
    return "sentences" if role in get_args(TextRole) else "single pictures"


def fvd_role(named: Collection[str]) -> str:
    """The role whose network gives the features of `FVD`: its own, or the classifier of videos where that one alone is
    named.
    """
    return "video_classifier" if FVD not in named and "video_classifier" in named else FVD


class AnnotationConfig(Config):
    """Where a stimulus' class is written."""

    column: Literal["caption", "group", "film", "stimulus_id"] = "caption"
    """Column of the stimulus table."""
    pattern: str = "(.*)"
    """Regular expression; its groups, joined by blanks, are the class. A stimulus without a match has none."""


class EncodingConfig(Config):
    """What predicts one subject's responses from pictures, and where its regions are."""

    network: EncoderConfig
    masks_file: Local | None = None
    """HDF5 with a group for each subject and in it a mask over voxels for each region (`brain_corr@V1`, …)."""
    masks_group: str | None = None
    """That group, where it is not called as the subject."""


class EvaluateVideoConfig(Config):
    """What is computed, and through which networks."""

    metrics: tuple[str, ...] = DEFAULT
    paper: Paper | None = None
    """Compute a paper's table in place of ``metrics``, at the frames it compares."""
    part: Part = "video"
    """Which of a clip's pictures are judged."""
    blend: Blend = "none"
    """``mindeye2``: .75 of the judged part and .25 of the blurry video, pixel by pixel."""
    frames: FrameRule = FrameRule()
    networks: dict[Role, BackboneConfig] = Field(default_factory=dict)
    """Role -> network. A metric whose role is not filled is listed as absent."""
    encoding: dict[str, EncodingConfig] = Field(default_factory=dict)
    """Subject -> encoding model. Without it brain correlation is listed as absent."""
    labels: Literal["classifier", "annotation"] = "classifier"
    """Whose class n-way accepts: the classifier's of the true picture, or the data set's (``nway_…@annotation``)."""
    annotation: AnnotationConfig = AnnotationConfig()
    reference: Literal["caption", "caption_text"] = "caption"
    """Captions are compared with the data set's own, or with what a captioner says of the true stimulus."""
    num_null: int = Field(default=3, ge=1)
    """Shuffles for the null."""
    min_gap_s: float = Field(default=10.0, ge=0)
    """Film time between a clip and the wrong ones beside it."""
    num_bootstrap: int = Field(default=2000, ge=1)
    block_clips: int = Field(default=10, ge=1)
    """Consecutive clips of one film that are resampled together."""
    seed: int = 0

    @model_validator(mode="after")
    def _known(self) -> "EvaluateVideoConfig":
        if unknown := [name for name in self.metrics if name not in (*VIDEO_METRICS, FVD)]:
            raise ConfigError(f"there is no metric '{unknown[0]}'; known are {', '.join((*VIDEO_METRICS, FVD))}")
        if self.part == "blurry" and self.mixed == "mindeye2":
            raise ConfigError("found blend=mindeye2 of the blurry video itself, expected part=video or part=keyframe")
        kept = [n for n in self.names if n.startswith("nway_") and not n.endswith(ANNOTATED)]
        if self.labels == "annotation" and kept:
            raise ConfigError(
                f"'{kept[0]}' accepts classes of the classifier's, expected with labels=annotation only n-way that can "
                "accept the annotated one; leave it out, or labels"
            )
        return self

    @property
    def kind(self) -> str:
        """Of evaluation, as files are named: the judged part, then the paper, or that it is blended."""
        more = self.paper or ("blend" if self.blend != "none" else None)
        return f"{self.part}-{more}" if more else self.part

    @property
    def names(self) -> tuple[str, ...]:
        """Metrics, those of the paper if one is named; n-way by whose labels are to be accepted."""
        names = PRESETS[self.paper].metrics if self.paper else self.metrics
        if self.labels == "classifier":
            return names
        annotated = (f"{name}{ANNOTATED}" if name.startswith("nway_") else name for name in names)
        return tuple(new if new in VIDEO_METRICS else old for new, old in zip(annotated, names, strict=True))

    @property
    def compared(self) -> FrameRule:
        """Frames, those of the paper if one is named."""
        return PRESETS[self.paper].frames if self.paper else self.frames

    @property
    def mixed(self) -> Blend:
        """What is mixed into the judged part, as the paper does if one is named."""
        return PRESETS[self.paper].blend if self.paper else self.blend
