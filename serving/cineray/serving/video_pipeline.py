"""From a brain to a video: predicted tokens and blurry latents, a keyframe, a caption, a video (NeuroClips).

Everything here is one process and knows no Ray; `cineray.serving.reconstruct` spreads it over actors.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import model_validator
from torch import Tensor

from cineray.core.config import Config
from cineray.core.errors import ConfigError
from cineray.core.storage import Store
from cineray.datasets.encoders.motion import UNIT, expanded
from cineray.datasets.view import Window
from cineray.serving.captions import Captioner, CaptionsConfig, NearestCaptionsConfig
from cineray.serving.clips import CLOCK_S, Clip
from cineray.serving.generators import GeneratorConfig
from cineray.serving.generators.accepts import Accepts
from cineray.serving.generators.base import Condition, Generator
from cineray.serving.generators.codecs import Codec, CodecConfig, PoolCodecConfig
from cineray.serving.generators.latent_diffusion import LatentDiffusionConfig
from cineray.serving.generators.nearest import NearestConfig
from cineray.serving.library import Library
from cineray.serving.link import Link, LinkConfig, crossfade, embedding
from cineray.serving.outputs import Output, OutputConfig
from cineray.serving.repeats import Repeats
from cineray.serving.scenes import link_of
from cineray.training.reconstructions import Reconstruction

__all__ = ["VideoPipeline", "VideoPipelineConfig", "clip_seed"]


class VideoPipelineConfig(Config):
    """Everything that decides a reconstruction; saved beside the results as ``reconstruct.yaml``."""

    name: str = "video"
    semantic: OutputConfig
    """Predicts image tokens, (dim,) or (tokens, dim): what is seen."""
    perception: OutputConfig
    """Predicts latents (frames, channels, height, width): where it is and how it moves."""
    motion: OutputConfig | None = None
    """Predicts pooled flow (stretches, 2, places, places) as encoder ``motion`` has it: which way things go. For a
    generator that moves pictures by it (``generator.moves=flow``); without it the perception stream alone says."""
    frames: str = "frames"
    """Target of the data set that holds the training pictures."""
    codec: CodecConfig = PoolCodecConfig()
    """What turns latents into pixels: the counterpart of the encoder that made the perception run's target."""
    generator: GeneratorConfig = NearestConfig()
    captions: CaptionsConfig = NearestCaptionsConfig()
    link: LinkConfig | None = None
    """None keeps every clip to itself."""
    use_keyframe: bool = True
    """False generates from the blurry video alone: its first frame is the keyframe, and there is no caption."""
    use_blurry: bool = True
    """False generates from the keyframe and the caption alone: neither blurry video nor motion."""
    repeats: Repeats = "each"
    """How stimuli of a split are reconstructed that were shown several times; the scene link learns likewise."""
    seed: int = 0

    @property
    def run_dirs(self) -> list[str]:
        """Folders of all trained runs it stands on."""
        return [getattr(self, name).run_dir for name in self.trained]

    def located(self) -> Self:
        """The same with absolute run folders: Ray's processes may work in folders of their own."""
        parts = {name: getattr(self, name) for name in self.trained}
        urls = {name: Store.at(part.run_dir).url for name, part in parts.items()}
        return self.model_copy(
            update={name: part.model_copy(update={"run_dir": urls[name]}) for name, part in parts.items()}
        )

    @property
    def trained(self) -> list[str]:
        """Fields that name a trained run."""
        own = ["generator"] if isinstance(self.generator, LatentDiffusionConfig) else []
        return ["semantic", "perception", *(["motion"] if self.motion else []), *own]

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.use_keyframe and not self.use_blurry:
            raise ConfigError("found use_keyframe=false and use_blurry=false, expected one of them to be true")
        wanted = isinstance(self.generator, NearestConfig) and self.generator.moves == "flow"
        if wanted != (self.motion is not None):
            found = (
                "generator.moves=flow without motion" if wanted else "motion beside a generator that has no use for it"
            )
            raise ConfigError(
                f"found {found}, expected both or neither: generator.name=nearest generator.moves=flow motion.run_dir=…"
            )
        return self


MOTION = Accepts(
    "motion",
    (("stretches", 2, "places", "places"),),
    (UNIT,),
    "name a run on what `cineray features DATA motion` computes",
)
"""Any other target would be squared, and pixels moved by it."""


@dataclass
class VideoPipeline:
    """The opened parts. Not thread-safe."""

    config: VideoPipelineConfig
    semantic: Output
    perception: Output
    motion: Output | None
    library: Library
    codec: Codec
    generator: Generator
    captioner: Captioner
    link: Link | None

    @classmethod
    def open(cls, config: VideoPipelineConfig, device: str = "cpu") -> Self:
        """Load every part; a scene link that was never trained is trained first, and kept in the semantic run's folder.

        Raises:
            ConfigError: a run does not predict what is asked of it, or what codec and generator read; the runs differ
                in data or split; or a pretrained part is missing.
        """
        semantic, perception = config.semantic.build(device=device), config.perception.build(device=device)
        motion = config.motion.build(device=device) if config.motion else None
        for other in filter(None, (perception, motion)):
            semantic.require_same_split(other)
        if motion:
            motion.require(MOTION)
        view = semantic.pipeline.run.view
        library = Library.of(semantic.dataset, view, semantic.target, config.frames, perception.target)
        codec = config.codec.build(size=library.shape[1:], device=device)
        perception.require(codec.accepts)
        return cls(
            config,
            semantic,
            perception,
            motion,
            library,
            codec,
            _generator(config, semantic, perception, library, codec, device),
            config.captions.build(library=library, device=device),
            None if config.link is None else link_of(config.link, semantic, config.repeats),
        )

    @property
    def window(self) -> Window:
        """Scans around a clip that any of the runs reads."""
        outputs = filter(None, (self.semantic, self.perception, self.motion))
        read = [output.pipeline.run.view.window for output in outputs]
        return Window(first=min(w.first for w in read), last=max(w.last for w in read))

    def reconstruct(self, recording: NDArray[np.floating], clips: Sequence[Clip]) -> list[Reconstruction]:
        """Clips of one recording (scans, voxels), in rising order.

        Pixels depend on the recording, the settings and each clip's own name; through the link also on the clips before
        it in the same call. (The same clips in other company agree up to the rounding of sums.)
        """
        if not clips:
            return []
        tokens, latents = self.semantic.tokens(recording, clips), self.perception.predict(recording, clips)
        blurry = np.stack([self.codec.decode(clip) for clip in latents])
        flows = None if self.motion is None else _flows(self.motion.predict(recording, clips))
        conditions = self._conditions(clips, tokens, latents, blurry, flows)
        keyframes, captions = blurry[:, 0], [""] * len(clips)
        if self.config.use_keyframe:
            keyframes = self.generator.keyframes(conditions)
            captions = self.captioner.caption_reconstructions(tokens, keyframes)
        conditions = [
            replace(old, caption=caption, seed=clip_seed(self.config.seed, clip, "video"))
            for old, caption, clip in zip(conditions, captions, clips, strict=True)
        ]
        chains = self._chains(clips, tokens)
        videos = self._videos(conditions, keyframes, chains)
        carried = {i for chain in chains for i in chain[1:]}
        return [
            Reconstruction(
                example=clip.example,
                subject=clip.subject,
                run=clip.run,
                stimulus_id=clip.stimulus_id,
                video=videos[i],
                fps=self.generator.fps,
                seed=conditions[i].seed,
                caption=captions[i],
                keyframe=keyframes[i],
                blurry=blurry[i],
                carried=i in carried,
            )
            for i, clip in enumerate(clips)
        ]

    def _conditions(
        self,
        clips: Sequence[Clip],
        tokens: Tensor,
        latents: Tensor,
        blurry: NDArray[np.uint8],
        flows: NDArray[np.float32] | None,
    ) -> list[Condition]:
        """What the keyframes are made of."""
        config = self.config
        return [
            Condition(
                tokens=tokens[i] if config.use_keyframe else None,
                blurry=blurry[i] if config.use_blurry else None,
                latents=latents[i] if config.use_blurry else None,
                flow=flows[i] if config.use_blurry and flows is not None else None,
                seed=clip_seed(config.seed, clip, "keyframe"),
            )
            for i, clip in enumerate(clips)
        ]

    def _chains(self, clips: Sequence[Clip], tokens: Tensor) -> list[list[int]]:
        if self.link is None or not self.config.use_keyframe:  # what is seen must then decide nothing
            return [[i] for i in range(len(clips))]
        return self.link.chains(embedding(tokens), [clip.follows for clip in clips])

    def _videos(
        self, conditions: Sequence[Condition], keyframes: NDArray[np.uint8], chains: Sequence[Sequence[int]]
    ) -> list[NDArray[np.uint8]]:
        """All chains side by side, the clips of a chain one after another."""
        videos: dict[int, NDArray[np.uint8]] = {}
        for position in range(max(map(len, chains))):
            here = [chain for chain in chains if len(chain) > position]
            before = [videos[chain[position - 1]][-1] if position else None for chain in here]
            numbers = [chain[position] for chain in here]
            given = [replace(conditions[i], first_frame=frame) for i, frame in zip(numbers, before, strict=True)]
            made = self.generator.videos(given, keyframes[numbers])
            for i, frame, video in zip(numbers, before, made, strict=True):
                fade = self.config.link.crossfade_frames if self.config.link else 0
                videos[i] = video if frame is None else crossfade(frame, video, fade)
        return [videos[i] for i in range(len(conditions))]


def _flows(values: Tensor) -> NDArray[np.float32]:
    """Values of encoder ``motion`` (clips, stretches, 2, places, places) as (clips, stretches, places, places, 2)."""
    return np.moveaxis(expanded(values.numpy()), 2, -1)


def clip_seed(seed: int, clip: Clip, stage: str) -> int:
    """63 bits of a hash of (seed, subject, clip, stage): the same whatever is reconstructed beside it, or where."""
    run, scan = clip.showings[0] if clip.showings else (clip.run, clip.scan)
    text = "\0".join([str(seed), clip.subject, run, str(scan), clip.stimulus_id, stage])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def _generator(
    config: VideoPipelineConfig, semantic: Output, perception: Output, library: Library, codec: Codec, device: str
) -> Generator:
    chosen = config.generator
    if isinstance(chosen, NearestConfig):
        return chosen.build(library=library)
    if isinstance(chosen, LatentDiffusionConfig):
        predicted = {"tokens": semantic.target, "latents": perception.target}
        return chosen.build(library=library, codec=codec, **predicted, device=device)
    made_s, needed_s = chosen.num_frames / chosen.fps, library.shape[0] / library.fps
    if abs(made_s - needed_s) > CLOCK_S:
        raise ConfigError(
            f"generator '{chosen.name}' makes videos of {made_s:g} s, the clips last {needed_s:g} s; "
            "set generator.num_frames or generator.fps"
        )
    made = chosen.build(device=torch.device(device))
    if config.use_keyframe:
        semantic.require(made.keyframer.accepts)
    return made
