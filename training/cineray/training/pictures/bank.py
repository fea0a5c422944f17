"""Videos at the frames that are compared, each described once however often it is compared."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cineray.training.backbones import Backbone, TextBackbone
from cineray.training.backbones.base import output_of

__all__ = ["Bank", "Pairing"]

AT_ONCE = 32
"""Videos that go through a network together."""


@dataclass(frozen=True, eq=False)
class Bank:
    """Some videos (or pictures: one frame each) and what was found out about them."""

    videos: Sequence[NDArray[np.uint8]]
    """Each (frames, height, width, 3), sRGB."""
    captions: Sequence[str] = ()
    labels: Sequence[str | None] = ()
    """Annotated class of each, None where it has none."""
    _known: dict[Hashable, list[Any]] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.videos)

    def described(self, key: Hashable, describe: Callable[[NDArray[np.uint8]], Any]) -> list[Any]:
        """One description a video; ``key`` names what ``describe`` does."""
        if key not in self._known:
            self._known[key] = [describe(video) for video in self.videos]
        return self._known[key]

    def by_frame(self, backbone: Backbone, output: str) -> list[NDArray[np.float32]]:
        """(frames, ...) of each video, from a network that looks at single frames."""
        return self._through(backbone, output, self._frames)

    def by_video(self, backbone: Backbone, output: str) -> list[NDArray[np.float32]]:
        """(...,) of each video, from a network that looks at whole videos."""
        return self._through(backbone, output, lambda videos, network: network(np.stack(videos)))

    def by_caption(self, backbone: TextBackbone) -> list[NDArray[np.float32]]:
        """(dim,) of each video's caption."""
        if backbone not in self._known:
            self._known[backbone] = list(backbone(self.captions))
        return self._known[backbone]

    def _through(
        self, backbone: Backbone, output: str, batch: Callable[[Sequence[NDArray[np.uint8]], Backbone], dict[str, Any]]
    ) -> list[NDArray[np.float32]]:
        if (backbone, output) not in self._known:
            found: dict[str, list[Any]] = {}
            for first in range(0, len(self), AT_ONCE):
                for name, values in batch(self.videos[first : first + AT_ONCE], backbone).items():
                    found.setdefault(name, []).extend(values)
            output_of(found, output, backbone.name)
            self._known.update({(backbone, name): values for name, values in found.items()})
        return self._known[backbone, output]

    @staticmethod
    def _frames(videos: Sequence[NDArray[np.uint8]], network: Backbone) -> dict[str, Any]:
        edges = np.cumsum([len(video) for video in videos])[:-1]
        return {name: np.split(values, edges) for name, values in network(np.concatenate(videos)).items()}


@dataclass(frozen=True, eq=False)
class Pairing:
    """Which prediction stands beside which truth: each in its place, or beside wrong clips, or a baseline."""

    predicted: Bank
    truth: Bank
    rows: NDArray[np.int64]
    """(pairs,) number of the prediction."""
    own: NDArray[np.int64]
    """(pairs,) number of the truth beside it."""
    pool: NDArray[np.int64]
    """(candidates,) truths that the true one is to be told from; every ``own`` is among them."""
    fps: float
    """Compared frames a second."""
    brain: Any = None
    """`Brain` of whose reconstructions these are, where its responses are known."""

    def each(self, compare: Callable[[Any, Any], float], predicted: Sequence[Any], truth: Sequence[Any]) -> NDArray:
        """(pairs,) of ``compare``, computed once for pairs that occur several times."""
        pairs, back = np.unique(np.stack([self.rows, self.own], 1), axis=0, return_inverse=True)
        return np.array([compare(predicted[i], truth[j]) for i, j in pairs], np.float64)[back.reshape(-1)]
