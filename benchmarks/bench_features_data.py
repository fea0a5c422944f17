"""Clips of noise, a vision transformer of random weights, a watched encoder: what the benchmark works on."""

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from cineray.core.config import Config
from cineray.core.pretrained import Part
from cineray.datasets.dataset import Dataset
from cineray.datasets.encoders.clip import HFClipConfig
from cineray.datasets.encoders.pool import Pool, PoolConfig
from cineray.datasets.ingest import ingest
from cineray.datasets.schema import TensorSpec
from cineray.datasets.signal import SignalConfig
from cineray.datasets.sources.base import Recording, Stimulus

NUM_SCANS = 32
FILE_ROWS = 64
"""Rows of each of the peer's files, one row group each: blocks of 25 MB."""


class NoiseClips(Config):
    """Clips of noise, seen by nobody in particular."""

    name: Literal["noise_clips"] = "noise_clips"
    clips: int
    frames: int
    side: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (self.frames, self.side, self.side, 3)

    def targets(self) -> dict[str, TensorSpec]:
        return {"frames": TensorSpec("uint8", self.shape, "frames height width channels", "sRGB")}

    def stimuli(self) -> Iterator[Stimulus]:
        rng = np.random.default_rng(0)
        for i in range(self.clips):
            frames = {"frames": rng.integers(0, 256, self.shape, np.uint8)}
            yield Stimulus(f"clip-{i}", "film", 2.0 * i, 2.0, f"clip-{i}", f"clip {i}", frames)

    def recordings(self) -> Iterator[Recording]:
        brain = np.random.default_rng(1).standard_normal((NUM_SCANS, 4))
        shown: list[str | None] = [f"clip-{i}" for i in range(NUM_SCANS)]
        yield Recording(
            "sub-01", "run", 0, 2.0, brain, np.arange(0.0, 2.0 * NUM_SCANS, 2.0), shown, np.zeros(NUM_SCANS)
        )

    def notes(self) -> dict[str, object]:
        return {}


def make_clips(folder: Path, clips: int, frames: int, side: int) -> Dataset:
    """A published data set of noise."""
    ingest(NoiseClips(clips=clips, frames=frames, side=side), folder, signal=SignalConfig(zscore="none"))
    return Dataset.open(folder)


def write_plain(folder: Path, dataset: Dataset) -> list[str]:
    """The same frames as Ray Data likes them best: fixed-shape tensors in plain Parquet."""
    folder.mkdir()
    shape, paths = dataset.target_specs["frames"].shape, []
    for first in range(0, dataset.num_stimuli, FILE_ROWS):
        rows = np.arange(first, min(first + FILE_ROWS, dataset.num_stimuli))
        frames = dataset.gather_stimuli("frames", rows)
        kind = pa.fixed_shape_tensor(pa.uint8(), shape)
        values = pa.FixedSizeListArray.from_arrays(pa.array(frames.reshape(-1)), int(np.prod(shape)))
        column = pa.ExtensionArray.from_storage(kind, values)
        paths.append(str(folder / f"{first:06d}.parquet"))
        table = pa.table({"stimulus_id": [f"clip-{row}" for row in rows], "frames": column})
        pq.write_table(table, paths[-1], compression="none", use_dictionary=False)
    return paths


def make_transformer(folder: Path, side: int) -> HFClipConfig:
    """CLIP's image tower with 6 layers of width 192, random weights, stored as the real one is."""
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=3,
        image_size=side,
        patch_size=16,
        projection_dim=64,
    )
    CLIPVisionModelWithProjection(config).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side}).save_pretrained(folder)
    return HFClipConfig(part=Part(folder=str(folder)))


def rss_anon(pid: int | str = "self") -> int:
    """Anonymous memory of a process in bytes, 0 where it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


class NotedPoolConfig(PoolConfig):
    """The pool, whose process writes to a log who it is and what it held before the first clip."""

    log: str

    def build(self, device: torch.device | str) -> Pool:
        with open(self.log, "a") as file:
            file.write(f"{os.getpid()} {rss_anon()}\n")
        return super().build(device)


class WatchedConfig(Config):
    """Takes its time, and writes the number of every clip that a batch begins with, and its process, to a log."""

    reads_frames: ClassVar[bool] = True
    version: ClassVar[int] = 1
    name: Literal["watched"] = "watched"
    target: str = "watched"
    log: str
    seconds: float

    def spec(self, dataset: Dataset) -> TensorSpec:
        return TensorSpec("float32", (1,), "dim", "mean pixel")

    def build(self, device: torch.device | str) -> "WatchedConfig":
        return self

    def encode(self, frames: NDArray[np.uint8], captions: Sequence[str]) -> NDArray[Any]:
        with open(self.log, "a") as file:
            file.write(f"{captions[0].split()[1]} {os.getpid()}\n")
        time.sleep(self.seconds)
        return frames.mean((1, 2, 3, 4), dtype=np.float64)[:, None].astype(np.float32)
