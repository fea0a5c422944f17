"""Blurry video, keyframe and caption to a clip, by AnimateDiff with SparseCtrl (NeuroClips, section 3.3).

Stable Diffusion 1.5 with motion layers denoises all frames together; SparseCtrl holds the first to the keyframe; the
latents of the blurry video are where the denoising starts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from cineray.core.config import Config
from cineray.core.errors import ConfigError, DataError
from cineray.core.pretrained import Part, catalogue
from cineray.serving.generators.autoencoder import Autoencoder, load_autoencoder
from cineray.serving.generators.base import Condition
from cineray.serving.generators.inert import refuse_inert
from cineray.serving.generators.keyframe import KeyframeConfig, Keyframer, UnclipConfig
from cineray.serving.generators.lora import fold_adapter
from cineray.serving.generators.motion import load_motion
from cineray.serving.generators.parts import Precision, load
from cineray.serving.generators.pictures import in_step, noise, to_frames, to_tensor
from cineray.serving.generators.start import PURE_NOISE, AlphaMode, start_of
from cineray.serving.generators.text import load_text_encoder

if TYPE_CHECKING:
    from diffusers import SparseControlNetModel, UNetMotionModel

__all__ = ["SCHEDULERS", "AnimateDiff", "AnimateDiffConfig"]

BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "linear"}
"""Of the motion modules' training."""


def _scheduler(kind: str, **settings: Any) -> Any:
    import diffusers

    return getattr(diffusers, kind)(**BETAS, **settings)


SCHEDULERS = {
    "ddim": partial(_scheduler, "DDIMScheduler", steps_offset=1, clip_sample=False),
    "lcm": partial(_scheduler, "LCMScheduler"),
    "lightning": partial(_scheduler, "EulerDiscreteScheduler", timestep_spacing="trailing"),
}
NAMED = catalogue()


class AnimateDiffConfig(Config):
    """Settings of the AnimateDiff generator; the defaults are NeuroClips' but for ``alpha_mode``.

    A few-step variant names motion layers distilled for it, and the UNet's LoRA where they have one: docs/models.md.
    """

    name: Literal["animatediff"] = "animatediff"
    keyframe: KeyframeConfig = UnclipConfig()
    base: Part = NAMED["sd15"].part
    """Pipeline folder; its tokenizer, text encoder and autoencoder are used."""
    unet: Part = NAMED["realistic-vision"].part
    """Pipeline folder whose ``unet`` is used."""
    motion: Part = NAMED["animatediff-v3"].part
    adapter: Part | None = None
    """LoRA of the UNet that the motion layers were trained beside: ``animatediff-v3-adapter``, as NeuroClips takes, or
    ``animate-lcm-lora`` at ``adapter_scale=0.8``."""
    adapter_scale: float = Field(default=1.0, ge=0)
    control: Part = NAMED["sparsectrl-rgb"].part
    vae: Part | None = None
    """An autoencoder of its own, as the tiny one; that of ``base`` where it is None."""
    scheduler: Literal["ddim", "lcm", "lightning"] = "ddim"
    steps: int = Field(default=25, ge=1)
    guidance: float = Field(default=8.5, ge=1)
    """Classifier-free; at 1 the negative prompt is not evaluated and a step costs half."""
    alpha_mode: AlphaMode = "img2img"
    strength: float = Field(default=0.3, gt=0, le=1)
    """How far the result may go from the blurry video; to be chosen on validation data."""
    control_scale: float = Field(default=1.0, ge=0)
    """Hold of the keyframe on the first frame; 0 leaves it out."""
    suffix: str = ", 8k uhd, dslr, soft lighting, high quality, film grain"
    negative_prompt: str = (
        "semi-realistic, cgi, 3d, render, sketch, cartoon, drawing, anime, text, cropped, out of frame, "
        "worst quality, low quality, jpeg artifacts, ugly, duplicate, mutilated, deformed, blurry, bad anatomy"
    )
    num_frames: int = Field(default=16, ge=1)
    fps: float = Field(default=8.0, gt=0)
    size: int = Field(default=256, ge=8)
    """Height and width in pixels."""
    clips_together: int = Field(default=1, ge=1)
    """Clips denoised in one batch. With more than one, kernels may round a clip differently beside other clips."""
    precision: Precision = "float32"
    compiled: bool = False
    """Compile UNet and SparseCtrl: minutes at the first clip, faster steps afterwards."""

    @model_validator(mode="after")
    def _each_setting_acts(self) -> Self:
        refuse_inert(
            self,
            ("strength", self.alpha_mode == "released", "alpha_mode=released"),
            ("adapter_scale", self.adapter is None, "adapter=null"),
            ("negative_prompt", self.guidance == 1, "guidance=1"),
        )
        return self

    def build(self, *, device: torch.device) -> "AnimateDiff":
        """Load every part onto ``device``; `ConfigError` where one is missing."""
        from diffusers import SparseControlNetModel, UNet2DConditionModel, UNetMotionModel

        where: dict[str, Any] = {"device": device, "precision": self.precision}
        vae, subfolder = (self.base, "vae") if self.vae is None else (self.vae, "")
        flat = load(UNet2DConditionModel, self.unet, "unet", **where)
        if self.adapter is not None:
            fold_adapter(flat, self.adapter, self.adapter_scale)
        unet: Any = UNetMotionModel.from_unet2d(flat, load_motion(self.motion, **where))
        unet.to(device=device).eval().requires_grad_(False)  # the library puts it together on the CPU
        control = load(SparseControlNetModel, self.control, **where)
        if not control.use_simplified_condition_embedding:
            raise ConfigError(
                f"the part {self.control.label} takes pictures, expected the RGB variant, which takes latents"
            )
        if self.compiled:
            unet.compile()
            control.compile()
        return AnimateDiff(
            settings=self,
            keyframer=self.keyframe.build(device=device),
            text=load_text_encoder(self.base, **where),
            autoencoder=load_autoencoder(vae, subfolder, **where),
            unet=unet,
            control=control,
        )


@dataclass(frozen=True)
class AnimateDiff:
    """Every part loaded, on one device."""

    settings: AnimateDiffConfig
    keyframer: Keyframer
    text: Callable[[Sequence[str]], Tensor]
    """Texts to (texts, tokens, dim)."""
    autoencoder: Autoencoder
    unet: "UNetMotionModel"
    control: "SparseControlNetModel"

    @property
    def fps(self) -> float:
        """Frames per second of the videos."""
        return self.settings.fps

    def keyframes(self, conditions: Sequence[Condition]) -> NDArray[np.uint8]:
        """One picture a clip, from its image tokens."""
        return self.keyframer(conditions)

    @torch.inference_mode()
    def videos(self, conditions: Sequence[Condition], keyframes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """One video a clip, uint8 (clips, num_frames, size, size, 3).

        A condition without a blurry video starts from pure noise; one with a first frame is held to that instead of
        its keyframe.
        """
        if len(conditions) != len(keyframes):
            raise DataError(f"found {len(keyframes)} keyframes for {len(conditions)} clips, expected one each")
        together = self.settings.clips_together
        parts = [
            to_frames(self._decoded(self._latents(conditions[k : k + together], keyframes[k : k + together])))
            for k in range(0, len(conditions), together)
        ]
        s = self.settings
        return np.concatenate(parts) if parts else np.zeros((0, s.num_frames, s.size, s.size, 3), np.uint8)

    def _latents(self, conditions: Sequence[Condition], keyframes: NDArray[np.uint8]) -> Tensor:
        """Denoised latents (clips, channels, frames, height, width)."""
        s, device = self.settings, self.unet.device
        scheduler = SCHEDULERS[s.scheduler]()
        scheduler.set_timesteps(s.steps, device=device)
        generators = [torch.Generator().manual_seed(c.seed) for c in conditions]
        side = s.size // self.autoencoder.factor
        fresh = noise(generators, (self.autoencoder.channels, s.num_frames, side, side), device)
        starts = [PURE_NOISE if c.blurry is None else start_of(scheduler, s.alpha_mode, s.strength) for c in conditions]
        if len(set(starts)) > 1:
            raise DataError("found clips with and without a blurry video in one call, expected either; call twice")
        blurry = None if conditions[0].blurry is None else torch.stack([self._coded(c) for c in conditions])
        sample, timesteps = starts[0].sample(scheduler, blurry, fresh)
        context = self._context(conditions)
        held, mask = self._held(conditions, keyframes)
        for t in timesteps:
            predicted = self._predicted(scheduler.scale_model_input(sample, t), t, context, held, mask)
            sample = scheduler.step(predicted, t, sample, generator=generators).prev_sample
        return sample

    def _predicted(self, sample: Tensor, t: Tensor, context: Tensor, held: Tensor, mask: Tensor) -> Tensor:
        """The guided noise estimate; context holds the negative branch first where there is guidance."""
        branches = len(context) // (len(sample) * self.settings.num_frames)
        x = torch.cat([sample] * branches).to(self.unet.dtype)
        down, mid = self.control(
            x,
            t,
            encoder_hidden_states=context,
            controlnet_cond=torch.cat([held] * branches),
            conditioning_mask=torch.cat([mask] * branches),
            conditioning_scale=self.settings.control_scale,
            return_dict=False,
        )
        out = self.unet(
            x,
            t,
            encoder_hidden_states=context,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
        ).sample.float()
        if branches == 1:
            return out
        negative, positive = out.chunk(2)
        return negative + self.settings.guidance * (positive - negative)

    def _context(self, conditions: Sequence[Condition]) -> Tensor:
        """Text of each frame of each clip, after that of the negative prompt."""
        texts = [c.caption + self.settings.suffix for c in conditions]
        if self.settings.guidance > 1:
            texts = [self.settings.negative_prompt] * len(texts) + texts
        return self.text(texts).to(self.unet.dtype).repeat_interleave(self.settings.num_frames, dim=0)

    def _coded(self, condition: Condition) -> Tensor:
        """Latents (channels, frames, height, width) of the blurry video, spread over the clip's frames."""
        assert condition.blurry is not None
        frames = in_step(to_tensor(condition.blurry, self.settings.size), self.settings.num_frames)
        return self.autoencoder.encode(frames).movedim(0, 1).to(self.unet.device)

    def _held(self, conditions: Sequence[Condition], keyframes: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
        """What SparseCtrl sees: the first frame's latents and zeros, and a mask of ones on the first frame."""
        s = self.settings
        firsts = [k if c.first_frame is None else c.first_frame for c, k in zip(conditions, keyframes, strict=True)]
        pictures = torch.cat([to_tensor(first[None], s.size) for first in firsts])
        coded = self.autoencoder.encode(pictures).to(self.unet.device, self.control.dtype)
        held = coded.new_zeros((*coded.shape[:2], s.num_frames, *coded.shape[2:]))
        held[:, :, 0] = coded
        mask = torch.zeros_like(held[:, :1])
        mask[:, :, 0] = 1
        return held, mask

    def _decoded(self, latents: Tensor) -> Tensor:
        """Latents (clips, channels, frames, ...) to pictures (clips, frames, 3, size, size)."""
        flat = latents.movedim(1, 2).flatten(0, 1)
        return self.autoencoder.decode(flat).unflatten(0, latents.shape[0:1] + latents.shape[2:3])
