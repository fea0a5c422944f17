"""Multi-fMRI fusion: whether two neighbouring clips show the same scene, and the chains that follow from it.

NeuroClips (arXiv 2410.19452, section 3.4): where the keyframes of two neighbouring scans belong to one scene, the
second clip goes on from the last frame of the first. The paper leaves the classifier's sizes, data and threshold open;
here they are settings. A clip's embedding is the mean of its *predicted* image tokens, in training as in use, so that
both see the same kind of input.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from cineray.core.config import Config
from cineray.core.errors import DataError, IntegrityError

__all__ = ["Link", "LinkConfig", "Pairs", "chains", "crossfade", "embedding", "fit_link", "threshold_of"]


class LinkConfig(Config):
    """Settings of the scene link."""

    name: Literal["mlp"] = "mlp"
    max_clips: int = Field(default=3, ge=1)
    """Longest chain: three clips of two seconds are the 6 s of the paper."""
    precision: float = Field(default=0.9, gt=0, le=1)
    """Of "same scene" on validation pairs; the threshold is the lowest that reaches it."""
    crossfade_frames: int = Field(default=0, ge=0)
    """Frames over which a clip that goes on from another one fades in."""
    hidden: int = Field(default=256, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    steps: int = Field(default=400, ge=1)
    batch_size: int = Field(default=64, ge=2)
    lr: float = Field(default=1e-3, gt=0)
    seed: int = 0


@dataclass(frozen=True)
class Pairs:
    """Neighbouring clips of one recording."""

    first: Tensor
    """(pairs, dim) embeddings."""
    second: Tensor
    same: Tensor
    """(pairs,) bool: whether both belong to one scene."""


class LinkNetwork(nn.Module):
    """[e1, e2, |e1 - e2|, e1 * e2] to the log odds of "same scene"."""

    def __init__(self, dim: int, config: LinkConfig) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(4 * dim, config.hidden), nn.GELU(), nn.Dropout(config.dropout), nn.Linear(config.hidden, 1)
        )

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Two (pairs, dim) of any length to (pairs,)."""
        a, b = (nn.functional.normalize(x.float(), dim=-1) for x in (first, second))
        return self.body(torch.cat([a, b, (a - b).abs(), a * b], dim=-1)).squeeze(-1)


@dataclass(frozen=True)
class Link:
    """A trained classifier and its threshold."""

    config: LinkConfig
    network: LinkNetwork
    threshold: float
    """Of the probability; above 1 where no threshold reached the precision: nothing is linked then."""

    @torch.inference_mode()
    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """Two (pairs, dim) embeddings to (pairs,) probabilities that each pair shows one scene."""
        return self.network.eval()(first, second).sigmoid()

    def chains(self, embeddings: Tensor, follows: Sequence[bool]) -> list[list[int]]:
        """Chains of the clips (clips, dim); ``follows[i]`` says whether clip i comes right after clip i - 1."""
        same = self(embeddings[:-1], embeddings[1:]) >= self.threshold
        linked = [False, *same.tolist()][: len(embeddings)]
        return chains([a and b for a, b in zip(linked, follows, strict=True)], self.config.max_clips)

    def dumps(self) -> bytes:
        """Safetensors; settings and threshold in the header."""
        # One entry: safetensors writes several in any order, and equal links shall be equal bytes.
        header = json.dumps({"config": self.config.model_dump(mode="json"), "threshold": self.threshold})
        return safetensors.torch.save(self.network.state_dict(), metadata={"link": header})

    @classmethod
    def loads(cls, data: bytes, origin: str) -> Self:
        """Read back what `dumps` wrote."""
        try:
            state = safetensors.torch.load(data)
            size = int.from_bytes(data[:8], "little")
            header = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["link"])
            config, threshold = LinkConfig.parse(header["config"]), float(header["threshold"])
        except (safetensors.SafetensorError, ValueError, KeyError) as error:
            raise IntegrityError(f"{origin} is not a scene link ({error}); delete it, it is made again") from None
        network = LinkNetwork(state["body.0.weight"].shape[1] // 4, config)
        network.load_state_dict(state)
        return cls(config, network.eval(), threshold)


def embedding(tokens: Tensor) -> Tensor:
    """(clips, tokens, dim) predicted image tokens to (clips, dim) of length 1."""
    return nn.functional.normalize(tokens.float().mean(1), dim=-1)


def fit_link(config: LinkConfig, train: Pairs, judge: Pairs) -> Link:
    """Train on balanced batches (half of each: same scene or not), then choose the threshold on ``judge``.

    Raises:
        DataError: one of the two kinds of pair is missing.
    """
    for name, pairs in (("training", train), ("judging", judge)):
        if pairs.same.all() or not pairs.same.any():
            raise DataError(
                f"found {int(pairs.same.sum())} of {len(pairs.same)} neighbouring {name} clips within one scene, "
                "expected pairs of both kinds; leave the link out (link=null)"
            )
    generator = torch.Generator().manual_seed(config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = LinkNetwork(train.first.shape[1], config).train()
        optimiser = torch.optim.AdamW(network.parameters(), lr=config.lr)
        kinds = [torch.nonzero(train.same == kind).squeeze(1) for kind in (True, False)]
        for _ in range(config.steps):
            half = config.batch_size // 2
            rows = torch.cat([kind[torch.randint(len(kind), (half,), generator=generator)] for kind in kinds])
            odds = network(train.first[rows], train.second[rows])
            loss = nn.functional.binary_cross_entropy_with_logits(odds, train.same[rows].float())
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    link = Link(config, network.eval(), 2.0)
    probability = link(judge.first, judge.second).numpy()
    return Link(config, link.network, threshold_of(probability, judge.same.numpy(), config.precision))


def threshold_of(probability: NDArray[np.floating], same: NDArray[np.bool_], precision: float) -> float:
    """The lowest threshold whose pairs are of one scene in at least ``precision`` of the cases; 2 where there is none.

    Pairs of equal probability stand or fall together.
    """
    order = np.argsort(-probability, kind="stable")
    hits = np.cumsum(same[order]) / np.arange(1, len(order) + 1)
    last = np.append(np.diff(probability[order]) != 0, True)
    good = np.flatnonzero((hits >= precision) & last)
    return float(probability[order][good[-1]]) if len(good) else 2.0


def chains(linked: Sequence[bool], max_clips: int) -> list[list[int]]:
    """Clips 0 … n - 1 in chains of at most ``max_clips``; ``linked[i]`` says whether clip i may go on from i - 1."""
    found: list[list[int]] = []
    for clip, goes_on in enumerate(linked):
        if goes_on and found and len(found[-1]) < max_clips:
            found[-1].append(clip)
        else:
            found.append([clip])
    return found


def crossfade(last_frame: NDArray[np.uint8], video: NDArray[np.uint8], num_frames: int) -> NDArray[np.uint8]:
    """The first frames of ``video`` fade in from the last frame of the clip before; 0 frames leave it as it is."""
    num = min(num_frames, len(video))
    share = (np.arange(1, num + 1) / (num + 1))[:, None, None, None]
    faded = last_frame + share * (video[:num].astype(np.float64) - last_frame)
    return np.concatenate([np.rint(faded).astype(np.uint8), video[num:]])
