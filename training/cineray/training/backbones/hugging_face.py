"""Classifiers and CLIP out of transformers, by local folder or hub id, with the preprocessing their folder states."""

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from cineray.core.config import Config
from cineray.core.pretrained import Part, locate
from cineray.datasets.encoders.loading import load_whole
from cineray.training.backbones.base import OPENAI, Backbone, as_pixels

__all__ = ["HFClipConfig", "HFImageClassifierConfig", "HFImageEncoderConfig", "HFVideoClassifierConfig"]

INSTEAD = "without it the metrics that need it are listed as absent"


class HFImageClassifierConfig(Config):
    """A picture classifier, e.g. ViT-B/16 on ImageNet: class scores."""

    name: Literal["hf_image_classifier"] = "hf_image_classifier"
    part: Part

    def build(self) -> Backbone:
        """Load the weights and the image processor beside them."""
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        folder = locate(self.part, instead=INSTEAD)
        network = load_whole(AutoModelForImageClassification, folder).eval()
        prepare = AutoImageProcessor.from_pretrained(folder)

        def judge(pictures: NDArray[np.uint8]) -> dict[str, Any]:
            inputs = prepare(images=list(pictures), return_tensors="pt", input_data_format="channels_last")
            return {"logits": network(**inputs).logits}

        label = f"{type(network).__name__} {self.part.label}"
        return Backbone(label, judge, network.config.num_labels, classes=_classes(network))


class HFImageEncoderConfig(Config):
    """A picture encoder without classes, e.g. DINOv2: the class token of the last layer."""

    name: Literal["hf_image_encoder"] = "hf_image_encoder"
    part: Part

    def build(self) -> Backbone:
        """Load the weights and the image processor beside them."""
        from transformers import AutoImageProcessor, AutoModel

        folder = locate(self.part, instead=INSTEAD)
        network = load_whole(AutoModel, folder).eval()
        prepare = AutoImageProcessor.from_pretrained(folder)

        def judge(pictures: NDArray[np.uint8]) -> dict[str, Any]:
            inputs = prepare(images=list(pictures), return_tensors="pt", input_data_format="channels_last")
            return {"embedding": network(**inputs).last_hidden_state[:, 0]}

        return Backbone(f"{type(network).__name__} {self.part.label}", judge)


class HFVideoClassifierConfig(Config):
    """A video classifier, e.g. VideoMAE on Kinetics-400: class scores, and the tokens of the last layer, averaged."""

    name: Literal["hf_video_classifier"] = "hf_video_classifier"
    part: Part
    num_frames: int = Field(default=6, ge=2)
    """Frames it is given, as MinD-Video sets it; VideoMAE's positions are computed, so any even number will do."""

    def build(self) -> Backbone:
        """Load the weights and the image processor beside them."""
        from transformers import AutoImageProcessor, AutoModelForVideoClassification

        folder = locate(self.part, instead=INSTEAD)
        network = load_whole(AutoModelForVideoClassification, folder, num_frames=self.num_frames).eval()
        prepare = AutoImageProcessor.from_pretrained(folder)

        def judge(videos: NDArray[np.uint8]) -> dict[str, Any]:
            moments = np.rint(np.linspace(0, videos.shape[1] - 1, self.num_frames)).astype(int)
            clips = [list(video[moments]) for video in videos]
            inputs = prepare(clips, return_tensors="pt", input_data_format="channels_last")
            found = network(**inputs, output_hidden_states=True)
            return {"logits": found.logits, "embedding": found.hidden_states[-1].mean(1)}

        label = f"{type(network).__name__} {self.part.label}, {self.num_frames} frames"
        return Backbone(label, judge, network.config.num_labels, video=True, classes=_classes(network))


def _classes(network: Any) -> tuple[str, ...]:
    return tuple(network.config.id2label[k] for k in range(network.config.num_labels))


class HFClipConfig(Config):
    """CLIP's image side: the projected embedding."""

    name: Literal["hf_clip"] = "hf_clip"
    part: Part

    def build(self) -> Backbone:
        """Load the image side alone; pictures are resized whole, bicubic, to the size it was trained at."""
        from transformers import CLIPVisionModelWithProjection

        network = load_whole(CLIPVisionModelWithProjection, locate(self.part, instead=INSTEAD)).eval()
        px = int(network.config.image_size)  # type: ignore[arg-type]

        def judge(pictures: NDArray[np.uint8]) -> dict[str, torch.Tensor]:
            return {"embedding": network(pixel_values=as_pixels(pictures, px, OPENAI, kernel="bicubic")).image_embeds}

        return Backbone(f"CLIP {self.part.label}", judge)
