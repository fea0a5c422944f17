"""Blurry video, keyframe and caption to a clip, by a video transformer (LTX-Video) trained as a rectified flow.

The keyframe is the first latent frame, held at noise level zero; the others start between the blurry video's latents
and noise. Same interface as `animatediff`, another family of models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from cineray.core.config import Config
from cineray.core.errors import ConfigError, DataError
from cineray.core.pretrained import Part, catalogue
from cineray.serving.generators.base import Condition
from cineray.serving.generators.inert import refuse_inert
from cineray.serving.generators.keyframe import KeyframeConfig, Keyframer, UnclipConfig
from cineray.serving.generators.parts import Precision, load, part_folder
from cineray.serving.generators.pictures import in_step, noise, to_frames, to_tensor

if TYPE_CHECKING:
    from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
    from transformers import T5EncoderModel

__all__ = ["VideoDit", "VideoDitConfig", "shift_of"]

TOKENS = 128
"""Length of the text; what is longer is cut."""
NAMED = catalogue()


class VideoDitConfig(Config):
    """Settings of the video transformer."""

    name: Literal["video_dit"] = "video_dit"
    keyframe: KeyframeConfig = UnclipConfig()
    base: Part = NAMED["ltx-video"].part
    """Pipeline folder with tokenizer, text_encoder, transformer, vae and scheduler."""
    steps: int = Field(default=50, ge=1)
    guidance: float = Field(default=3.0, ge=1)
    strength: float = Field(default=0.6, gt=0, le=1)
    """How far the result may go from the blurry video; to be chosen on validation data."""
    negative_prompt: str = "worst quality, inconsistent motion, blurry, jittery, distorted"
    num_frames: int = Field(default=16, ge=1)
    fps: float = Field(default=8.0, gt=0)
    size: int = Field(default=256, ge=32)
    precision: Precision = "float32"

    @model_validator(mode="after")
    def _each_setting_acts(self) -> Self:
        refuse_inert(self, ("negative_prompt", self.guidance == 1, "guidance=1"))
        return self

    def build(self, *, device: torch.device) -> "VideoDit":
        """Load every part onto ``device``; `ConfigError` where one is missing."""
        from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler, LTXVideoTransformer3DModel
        from transformers import AutoTokenizer, T5EncoderModel

        where: dict[str, Any] = {"device": device, "precision": self.precision}
        transformer = load(LTXVideoTransformer3DModel, self.base, "transformer", **where)
        if (transformer.config.patch_size, transformer.config.patch_size_t) != (1, 1):
            raise ConfigError(f"the transformer of {self.base.label} has patches, expected one token a latent")
        vae = load(AutoencoderKLLTXVideo, self.base, "vae", **where)
        if self.size % vae.spatial_compression_ratio:
            raise ConfigError(f"found size={self.size}, expected a multiple of {vae.spatial_compression_ratio}")
        scheduler = part_folder(self.base, "scheduler", wanted="scheduler_config.json")
        noise_levels: Any = FlowMatchEulerDiscreteScheduler.load_config(scheduler, local_files_only=True)
        tokenizer = part_folder(self.base, "tokenizer", wanted="tokenizer_config.json")
        return VideoDit(
            settings=self,
            keyframer=self.keyframe.build(device=device),
            tokenizer=AutoTokenizer.from_pretrained(tokenizer, local_files_only=True),
            text=load(T5EncoderModel, self.base, "text_encoder", **where),
            vae=vae,
            transformer=transformer,
            noise_levels=noise_levels,
        )


@dataclass(frozen=True)
class VideoDit:
    """Every part loaded, on one device."""

    settings: VideoDitConfig
    keyframer: Keyframer
    tokenizer: Any
    text: "T5EncoderModel"
    vae: "AutoencoderKLLTXVideo"
    transformer: "LTXVideoTransformer3DModel"
    noise_levels: dict[str, Any]
    """Settings of the scheduler."""

    @property
    def fps(self) -> float:
        """Frames per second of the videos."""
        return self.settings.fps

    def keyframes(self, conditions: Sequence[Condition]) -> NDArray[np.uint8]:
        """One picture a clip, from its image tokens."""
        return self.keyframer(conditions)

    @torch.inference_mode()
    def videos(self, conditions: Sequence[Condition], keyframes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """One video a clip, uint8 (clips, num_frames, size, size, 3), one after another."""
        if len(conditions) != len(keyframes):
            raise DataError(f"found {len(keyframes)} keyframes for {len(conditions)} clips, expected one each")
        s = self.settings
        clips = [self._clip(c, key) for c, key in zip(conditions, keyframes, strict=True)]
        return np.stack(clips) if clips else np.zeros((0, s.num_frames, s.size, s.size, 3), np.uint8)

    def _clip(self, condition: Condition, keyframe: NDArray[np.uint8]) -> NDArray[np.uint8]:
        s, device = self.settings, self.transformer.device
        first_frame = keyframe if condition.first_frame is None else condition.first_frame
        held = self._encoded(to_tensor(first_frame[None], s.size))
        blurry = None if condition.blurry is None else self._encoded(self._padded(condition.blurry))
        num = (self._num_frames - 1) // self.vae.temporal_compression_ratio + 1
        shape = (held.shape[0], num, *held.shape[2:])
        fresh = noise([torch.Generator().manual_seed(condition.seed)], shape, device)[0]
        scheduler = self._scheduler(shape)
        begin = 0 if blurry is None else s.steps - max(1, int(s.steps * s.strength))
        scheduler.set_begin_index(begin)
        level = scheduler.sigmas[begin].to(device)
        sample = level * fresh if blurry is None else (1 - level) * blurry + level * fresh
        context = self._context(condition.caption)
        for t in scheduler.timesteps[begin:]:
            velocity = self._velocity(torch.cat([held, sample[:, 1:]], dim=1), t, context)
            sample = scheduler.step(velocity, t, sample, return_dict=False)[0]
        return self._decoded(torch.cat([held, sample[:, 1:]], dim=1))

    def _velocity(self, latents: Tensor, t: Tensor, context: tuple[Tensor, Tensor]) -> Tensor:
        """The guided velocity of latents (channels, frames, height, width); tokens of the first frame are clean."""
        channels, frames, height, width = latents.shape
        branches = len(context[0])
        times = t.to(latents.device).expand(frames, height * width).clone()
        times[0] = 0
        ratio = self.vae.spatial_compression_ratio
        out = self.transformer(
            hidden_states=latents.flatten(1).T[None].expand(branches, -1, -1).to(self.transformer.dtype),
            encoder_hidden_states=context[0],
            timestep=times.flatten()[None].expand(branches, -1),
            encoder_attention_mask=context[1],
            num_frames=frames,
            height=height,
            width=width,
            rope_interpolation_scale=(self.vae.temporal_compression_ratio / self.fps, ratio, ratio),
            return_dict=False,
        )[0].float()
        negative, positive = out[0], out[-1]
        guided = positive if branches == 1 else negative + self.settings.guidance * (positive - negative)
        return guided.T.view(channels, frames, height, width)

    def _context(self, caption: str) -> tuple[Tensor, Tensor]:
        """Text (branches, tokens, dim) and its mask, the negative prompt first where there is guidance."""
        texts = [self.settings.negative_prompt, caption] if self.settings.guidance > 1 else [caption]
        coded = self.tokenizer(texts, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt")
        device = self.transformer.device
        # As the pipeline of these weights does, the encoder itself sees the padding; only the transformer masks it.
        context = self.text(coded.input_ids.to(device)).last_hidden_state
        return context.to(self.transformer.dtype), coded.attention_mask.to(device)

    def _scheduler(self, shape: Sequence[int]) -> Any:
        """Noise levels for latents of this shape, shifted towards noise the more tokens there are."""
        from diffusers import FlowMatchEulerDiscreteScheduler

        scheduler: Any = FlowMatchEulerDiscreteScheduler.from_config(self.noise_levels)
        steps = self.settings.steps
        levels = np.linspace(1.0, 1 / steps, steps)
        # Ignored where the scheduler's settings do not shift.
        shift = shift_of(int(np.prod(shape[1:])), scheduler.config)
        scheduler.set_timesteps(sigmas=levels, mu=shift, device=self.transformer.device)
        return scheduler

    @property
    def _num_frames(self) -> int:
        """The autoencoder's next number of frames: a multiple of its compression, and one."""
        ratio = self.vae.temporal_compression_ratio
        return -(-(self.settings.num_frames - 1) // ratio) * ratio + 1

    def _padded(self, blurry: NDArray[np.uint8]) -> Tensor:
        """The blurry video at the clip's frames, the last repeated to the autoencoder's number."""
        frames = in_step(to_tensor(blurry, self.settings.size), self.settings.num_frames)
        return torch.cat([frames, frames[-1:].expand(self._num_frames - len(frames), -1, -1, -1)])

    def _encoded(self, frames: Tensor) -> Tensor:
        """Frames (n, 3, height, width) to normalised float32 latents (channels, frames, height, width)."""
        video = frames.movedim(0, 1)[None].to(self.vae.device, self.vae.dtype)
        coded: Any = self.vae.encode(video)
        mean, std = self._moments()
        return (coded.latent_dist.mode()[0].float() - mean) * self.vae.config.scaling_factor / std

    def _decoded(self, latents: Tensor) -> NDArray[np.uint8]:
        mean, std = self._moments()
        whole = (latents * std / self.vae.config.scaling_factor + mean)[None].to(self.vae.dtype)
        level = whole.new_zeros(1) if self.vae.config.timestep_conditioning else None
        frames = self.vae.decode(whole, level, return_dict=False)[0][0]
        return to_frames(frames.movedim(0, 1)[: self.settings.num_frames])

    def _moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents' channels."""
        return tuple(x.float().view(-1, 1, 1, 1) for x in (self.vae.latents_mean, self.vae.latents_std))  # type: ignore


def shift_of(tokens: int, config: Any) -> float:
    """Shift of the noise levels for so many tokens, linear between the two numbers that the settings name."""
    low, high = config.base_image_seq_len, config.max_image_seq_len
    return config.base_shift + (config.max_shift - config.base_shift) * (tokens - low) / (high - low)
