"""A picture network on every frame of a video, for data on which no video network was trained."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cineray.training.backbones.base import Backbone

__all__ = ["framewise"]


def framewise(network: Backbone) -> Backbone:
    """Mean class scores over frames; embeddings as mean and mean step from frame to frame, which carries motion."""

    def judge(videos: NDArray[np.uint8]) -> dict[str, Any]:
        num, frames = videos.shape[:2]
        found = network(videos.reshape(-1, *videos.shape[2:]))
        found = {name: values.reshape(num, frames, -1) for name, values in found.items()}
        outputs = {"logits": found["logits"].mean(1)} if "logits" in found else {}
        if "embedding" in found:
            steps = np.abs(np.diff(found["embedding"], axis=1)).mean(1)
            outputs["embedding"] = np.concatenate([found["embedding"].mean(1), steps], 1)
        return outputs

    return Backbone(f"{network.name}, frame by frame", judge, network.num_classes, True, network.classes)
