"""The light generator: nothing is trained and nothing downloaded, pixels come from the training clips.

The keyframe is the training picture most like what was decoded, by tokens and by latents; the video is that picture
moved along the blurry video or by a decoded flow, with the blurry video's low frequencies. So each of the decoded
streams decides what it knows: the tokens what is seen, the blurry video where it is, and either how it moves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator

from cineray.core.config import Config
from cineray.core.errors import DataError
from cineray.serving.generators.base import Condition
from cineray.serving.generators.blend import blend, recoloured, resized
from cineray.serving.generators.inert import refuse_inert
from cineray.serving.generators.pictures import in_step
from cineray.serving.generators.warp import dense_flow, displaced
from cineray.serving.library import Library

__all__ = ["NearestConfig", "NearestGenerator"]


class NearestConfig(Config):
    """Settings of the nearest-neighbour generator; the default where no weights are given."""

    name: Literal["nearest"] = "nearest"
    agreement: float = Field(default=0.0, ge=0)
    """Say of the latents in the choice of the keyframe, beside the tokens' 1."""
    moves: Literal["blurry", "flow", "nothing"] = "blurry"
    """By what the picture is moved. ``blurry``: as a whole, along the blurry video: right for a thing before an empty
    background, wrong for filmed scenes, whose background stands still. ``flow``: place by place, by decoded motion,
    which a run of its own predicts (the pipeline's ``motion``)."""
    faint: float = Field(default=0.0, ge=0)
    """Of a decoded flow: speed, in frame widths per frame step, that is taken for noise
    (`cineray.serving.generators.warp.dense_flow`)."""
    light: float = Field(default=1.0, ge=0, le=1)
    """Share of the low frequencies that come from the blurry video; the rest are the picture's own."""
    cutoff: float = Field(default=0.15, gt=0)
    """Standard deviation, in frame widths, of the Gaussian below whose frequencies the blurry video decides."""
    doubt: float = Field(default=0.004, gt=0)
    """How readily the picture is spread over several places where the blurry video is faint
    (`cineray.serving.generators.blend.places`); towards 0 it stands at the likeliest alone."""

    @model_validator(mode="after")
    def _each_setting_acts(self) -> Self:
        moves, light = self.moves, self.light
        inert = {"faint": moves != "flow", "doubt": moves != "blurry", "cutoff": moves != "blurry" and light == 0}
        refuse_inert(self, *[(name, idle, f"moves={moves} and light={light:g}") for name, idle in inert.items()])
        return self

    def build(self, *, library: Library) -> "NearestGenerator":
        """Make the generator over these training clips."""
        return NearestGenerator(self, library)


@dataclass(frozen=True)
class NearestGenerator:
    """`cineray.serving.generators.base.Generator` over a `Library`."""

    config: NearestConfig
    library: Library

    @property
    def fps(self) -> float:
        """That of the training clips."""
        return self.library.fps

    def keyframes(self, conditions: Sequence[Condition]) -> NDArray[np.uint8]:
        """The middle frame of the nearest training clip."""
        return np.stack([clip[len(clip) // 2] for clip in map(self._nearest, conditions)])

    def videos(self, conditions: Sequence[Condition], keyframes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """As many frames as a training clip has.

        Without a blurry video the picture stands still: there is nothing to say how it moves. A first frame carried
        over from the clip before takes the keyframe's place.
        """
        return np.stack([self._video(c, keyframe) for c, keyframe in zip(conditions, keyframes, strict=True)])

    def _nearest(self, condition: Condition) -> NDArray[np.uint8]:
        if condition.tokens is None:
            raise DataError("generator 'nearest' got no tokens, which it looks its keyframe up by; give a semantic run")
        compared = condition.latents if self.config.agreement > 0 else None
        latents = None if compared is None else compared[None]
        row = int(self.library.nearest(condition.tokens[None], latents, self.config.agreement, (condition.seed,))[0])
        return self.library.frames(row)

    def _video(self, condition: Condition, keyframe: NDArray[np.uint8]) -> NDArray[np.uint8]:
        frames, height, width = self.library.shape
        picture = keyframe if condition.first_frame is None else condition.first_frame
        picture = resized(picture[None], height, width)[0]
        if condition.blurry is None:
            return np.repeat(picture[None], frames, axis=0)
        blurry = in_step(torch.from_numpy(resized(condition.blurry, height, width)).float(), frames).numpy()
        if self.config.moves == "blurry":
            return blend(picture, blurry, self.config.cutoff, self.config.doubt, self.config.light)
        video = self._moved(picture, condition) if self.config.moves == "flow" else picture
        return recoloured(video, blurry, self.config.cutoff, self.config.light)

    def _moved(self, picture: NDArray[np.uint8], condition: Condition) -> NDArray[np.uint8]:
        """A keyframe found by tokens stands in the middle, one carried over or of the blurry video first."""
        if condition.flow is None:
            raise DataError("generator 'nearest' got no flow, which moves=flow moves its picture by; give a motion run")
        flow = dense_flow(condition.flow, *self.library.shape, self.config.faint)
        begins = condition.first_frame is not None or condition.tokens is None
        return displaced(picture, flow, 0 if begins else self.library.shape[0] // 2)
