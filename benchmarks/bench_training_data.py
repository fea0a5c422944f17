"""What is trained: synthetic brains of several subjects, image tokens and captions, and the run over them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cineray.core.config import Config
from cineray.datasets.ingest import ingest
from cineray.datasets.schema import TensorSpec
from cineray.datasets.signal import SignalConfig
from cineray.datasets.sources.base import Recording, Stimulus
from cineray.datasets.split import Selection, SplitConfig
from cineray.datasets.view import ViewConfig
from cineray.training.losses import BiMixCoConfig, InfoNCEConfig, SoftCLIPConfig
from cineray.training.models.semantic import SemanticConfig
from cineray.training.optim import OptimConfig
from cineray.training.run import FaultConfig, Run

VOXELS = {"sub-01": 3931, "sub-02": 3569, "sub-03": 3259, "sub-04": 3170}
TOKENS, WIDTH, DIM = 64, 192, 1024
"""NeuroClips' network and the voxels of four people of NSD, all widths divided by four: 27 million parameters."""
BATCH = 64
"""MindEye2 trains several people on 63 rows a step."""
CLIPS, EPOCHS = 320, 3
STEPS = CLIPS * len(VOXELS) // BATCH * EPOCHS
"""Of a whole run: 20 in each of the three epochs, the first with BiMixCo and two with SoftCLIP."""
HIDDEN = 32
"""Numbers that decide a clip's tokens and every brain's answer."""
NO_CLIPPING = 1e9
"""As the recipe has it: published loops do not clip (ours measures the norm all the same)."""


class ClipsSource(Config):
    """Every subject sees every clip once; brains and tokens are linear codes of the same few numbers, plus noise."""

    name: Literal["bench"] = "bench"

    def targets(self) -> dict[str, TensorSpec]:
        return {
            "clip_tokens": TensorSpec("float16", (TOKENS, WIDTH), "tokens dim", "1"),
            "clip_text": TensorSpec("float16", (WIDTH,), "dim", "1"),
        }

    def _hidden(self) -> np.ndarray:
        return np.random.default_rng(0).standard_normal((CLIPS + 1, HIDDEN), np.float32)

    def stimuli(self) -> Iterator[Stimulus]:
        chance = np.random.default_rng(1)
        of_tokens = chance.standard_normal((HIDDEN, TOKENS * WIDTH), np.float32)
        of_text = chance.standard_normal((HIDDEN, WIDTH), np.float32)
        for i, hidden in enumerate(self._hidden()):
            tokens = (hidden @ of_tokens).reshape(TOKENS, WIDTH).astype(np.float16)
            targets = {"clip_tokens": tokens, "clip_text": (hidden @ of_text).astype(np.float16)}
            film = "train" if i < CLIPS else "held out"
            yield Stimulus(f"clip-{i}", film, 2.0 * i, 2.0, f"clip-{i}", targets=targets)

    def recordings(self) -> Iterator[Recording]:
        hidden = self._hidden()
        for number, (subject, voxels) in enumerate(VOXELS.items()):
            chance = np.random.default_rng(2 + number)
            code = chance.standard_normal((HIDDEN, voxels), np.float32) / HIDDEN**0.5
            brain = hidden @ code + chance.standard_normal((CLIPS + 1, voxels), np.float32)
            onset_s, offset_s = 2.0 * np.arange(CLIPS + 1, dtype=np.float64), np.zeros(CLIPS + 1)
            shown: list[str | None] = [f"clip-{i}" for i in range(CLIPS + 1)]
            yield Recording(subject, "run-1", 0, 2.0, brain.astype(np.float16), onset_s, shown, offset_s)

    def notes(self) -> dict[str, object]:
        return {}


def make_data(folder: Path) -> Path:
    """Write the data set; the folder."""
    ingest(ClipsSource(), folder, signal=SignalConfig(zscore="none"))
    return folder


def make_run(dataset: Path, **changes: Any) -> Run:
    """The semantic reconstructor with the published losses, dotted settings changed at will."""
    split = SplitConfig(train=Selection(films=("train",)), test=Selection(films=("held out",)))
    targets = ("clip_tokens", "clip_text")
    run = Run(
        name="bench-training",
        view=ViewConfig(dataset=str(dataset), targets=targets, raw_targets=targets, split=split),
        model=SemanticConfig(text_target="clip_text", dim=DIM),
        losses=(
            BiMixCoConfig(target="clip_tokens", phase=(0.0, 0.34)),
            SoftCLIPConfig(target="clip_tokens", phase=(0.34, 1.0), last_temperature=0.0075),
            InfoNCEConfig(target="clip_text", temperature=0.1, weight=0.25),
        ),
        optim=OptimConfig(lr=3e-4, batch_size=BATCH, epochs=EPOCHS, clip_norm=NO_CLIPPING, warmup_fraction=1 / EPOCHS),
        fault=FaultConfig(checkpoint_every_steps=10 * STEPS),
    )
    return run.override({key.replace("__", "."): value for key, value in changes.items()})
