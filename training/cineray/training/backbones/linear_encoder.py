"""An encoding model: what each voxel of one brain is expected to answer to a picture."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cineray.core.errors import ConfigError
from cineray.training.backbones.base import Backbone, output_of, read_weights

__all__ = ["linear_encoder"]


def linear_encoder(network: Backbone, weights_file: str) -> Backbone:
    """Voxels as weighted sums of a network's embedding (Naselaris et al. 2011).

    ``weights_file`` holds ``weight`` (voxels, dim) and ``bias`` (voxels,), fitted on training trials alone.
    """
    weights = read_weights(weights_file)
    if set(weights) != {"weight", "bias"} or weights["weight"].shape[:1] != weights["bias"].shape:
        shapes = {name: tuple(value.shape) for name, value in weights.items()}
        raise ConfigError(f"{weights_file} holds {shapes}, expected weight (voxels, dim) and bias (voxels,)")
    weight, bias = weights["weight"].float(), weights["bias"].float()

    def judge(pictures: NDArray[np.uint8]) -> dict[str, Any]:
        embedding = torch.from_numpy(output_of(network(pictures), "embedding", network.name).reshape(len(pictures), -1))
        if embedding.shape[1] != weight.shape[1]:
            raise ConfigError(
                f"{weights_file} reads {weight.shape[1]} values, {network.name} gives {embedding.shape[1]}; "
                "name the network it was fitted on"
            )
        return {"embedding": embedding @ weight.T + bias}

    return Backbone(f"{network.name}, linear to {len(bias)} voxels of {Path(weights_file).name}", judge)
