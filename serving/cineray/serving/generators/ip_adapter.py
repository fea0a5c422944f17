"""One predicted image embedding to a picture, by Stable Diffusion 1.5 with an IP-Adapter (arXiv 2308.06721)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from cineray.core.config import Config
from cineray.core.errors import DataError
from cineray.core.pretrained import Part, catalogue
from cineray.datasets.encoders.clip import UNIT, range_unit
from cineray.serving.generators.accepts import Accepts
from cineray.serving.generators.base import Condition
from cineray.serving.generators.inert import refuse_inert
from cineray.serving.generators.parts import Precision, load, part_folder
from cineray.serving.generators.pictures import to_frames
from cineray.serving.generators.text import load_text_encoder

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

__all__ = ["IPAdapter", "IPAdapterConfig"]

BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
"""Of Stable Diffusion's training."""
NAMED = catalogue()


class IPAdapterConfig(Config):
    """Settings of the IP-Adapter; its tokens are one CLIP image embedding (1, dim), for the published one 1024 wide."""

    name: Literal["ip_adapter"] = "ip_adapter"
    base: Part = NAMED["sd15"].part
    adapter: Part = NAMED["ip-adapter"].part
    weights: str = "models/ip-adapter_sd15.safetensors"
    """File of the adapter's folder."""
    scale: float = Field(default=1.0, ge=0)
    """Weight of the image beside the prompt."""
    steps: int = Field(default=25, ge=1)
    guidance: float = Field(default=5.0, ge=1)
    prompt: str = "best quality, high quality"
    """Where there is no caption, as in a pipeline, which describes pictures once they are made: that of the adapter's
    own code."""
    negative_prompt: str = "lowres, bad anatomy, worst quality, low quality"
    size: int = Field(default=512, ge=8)
    precision: Precision = "float32"

    @model_validator(mode="after")
    def _each_setting_acts(self) -> Self:
        refuse_inert(self, ("negative_prompt", self.guidance == 1, "guidance=1"))
        return self

    def build(self, *, device: torch.device) -> "IPAdapter":
        """Load pipeline and adapter; `ConfigError` where one is missing."""
        from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

        where: dict[str, Any] = {"device": device, "precision": self.precision}
        text = load_text_encoder(self.base, **where)
        subfolder, _, file = self.weights.rpartition("/")
        folder = part_folder(self.adapter, wanted=self.weights)
        components: dict[str, Any] = {
            "vae": load(AutoencoderKL, self.base, "vae", **where),
            "text_encoder": text.model,
            "tokenizer": text.tokenizer,
            "unet": load(UNet2DConditionModel, self.base, "unet", **where),
            "scheduler": DDIMScheduler(**BETAS, steps_offset=1, clip_sample=False),
            "safety_checker": None,
            "feature_extractor": None,
        }
        pipeline = StableDiffusionPipeline(**components, requires_safety_checker=False)
        pipeline.load_ip_adapter(
            str(folder),
            subfolder=subfolder,
            weight_name=file,
            image_encoder_folder=None,
            local_files_only=True,
            low_cpu_mem_usage=False,
        )
        pipeline.set_ip_adapter_scale(self.scale)
        pipeline.set_progress_bar_config(disable=True)
        return IPAdapter(self, pipeline)


@dataclass(frozen=True)
class IPAdapter:
    """The loaded pipeline."""

    settings: IPAdapterConfig
    pipeline: "StableDiffusionPipeline"

    @property
    def accepts(self) -> Accepts:
        """See `cineray.serving.generators.keyframe.Keyframer`."""
        return Accepts(
            "generator.keyframe.name=ip_adapter",
            ((self._dim,), (1, self._dim)),
            (UNIT, range_unit("zero_one")),
            "train the semantic run on what `cineray features DATA hf_clip output=pooled` computes with the adapter's "
            "own image encoder",
        )

    @torch.inference_mode()
    def __call__(self, conditions: Sequence[Condition]) -> NDArray[np.uint8]:
        """One picture a clip, uint8 (clips, size, size, 3), one after another: alike whoever stands beside it."""
        size = self.settings.size
        pictures = [self._picture(condition) for condition in conditions]
        return np.concatenate(pictures) if pictures else np.zeros((0, size, size, 3), np.uint8)

    def _picture(self, condition: Condition) -> NDArray[np.uint8]:
        s = self.settings
        embedding = self._embedding(condition)
        # The adapter's unconditional branch sees an embedding of zeros, as it did in training.
        both = torch.cat([torch.zeros_like(embedding), embedding]) if s.guidance > 1 else embedding
        made: Any = self.pipeline(
            prompt=condition.caption or s.prompt,
            negative_prompt=s.negative_prompt,
            ip_adapter_image_embeds=[both],
            height=s.size,
            width=s.size,
            num_inference_steps=s.steps,
            guidance_scale=s.guidance,
            generator=torch.Generator().manual_seed(condition.seed),
            output_type="pt",
        )
        return to_frames(made.images * 2 - 1)

    def _embedding(self, condition: Condition) -> Tensor:
        """(1, 1, dim)."""
        dim = self._dim
        if condition.tokens is None or condition.tokens.shape != (1, dim):
            found = "none" if condition.tokens is None else tuple(condition.tokens.shape)
            raise DataError(f"found image tokens {found}, the IP-Adapter expects (1, {dim}); predict that embedding")
        return condition.tokens[None].to(self.pipeline.device, self.pipeline.unet.dtype)

    @property
    def _dim(self) -> int:
        """Of the embedding."""
        projection: Any = self.pipeline.unet.encoder_hid_proj.image_projection_layers[0]
        return projection.image_embeds.in_features
