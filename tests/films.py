"""A small source whose every value is known: what the tests of the data plane ingest."""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from pydantic import Field

from cineray.core.config import Config
from cineray.core.storage import Store
from cineray.datasets.dataset import Dataset
from cineray.datasets.manifest import MANIFEST_KEY
from cineray.datasets.schema import TensorSpec
from cineray.datasets.sources.base import Recording, Stimulus


class FilmSource(Config):
    """Two films, some subjects with different numbers of voxels; values are functions of their place."""

    name: Literal["film"] = "film"
    voxels: dict[str, int] = Field(default={"sub-a": 9, "sub-b": 5})
    scans: int = 300
    clips: int = 260
    seed: int = 0

    def targets(self) -> dict[str, TensorSpec]:
        return {
            "features": TensorSpec("float32", (3,), "dim", "z-score"),
            "frames": TensorSpec("uint8", (2, 4, 4), "frames height width", "grey"),
        }

    def notes(self) -> dict[str, object]:
        return {"licence": "CC0"}

    def stimuli(self) -> Iterator[Stimulus]:
        rng = np.random.default_rng(self.seed)
        for number in range(2 * self.clips):
            film, clip = divmod(number, self.clips)
            targets: dict[str, Any] = {
                "features": rng.standard_normal(3).astype(np.float32),
                "frames": rng.integers(0, 256, (2, 4, 4), np.uint8),
            }
            yield Stimulus(f"film{film}-{clip:04d}", f"film{film}", 1.0 * clip, 1.0, f"scene{clip // 10}", "é", targets)

    def recordings(self) -> Iterator[Recording]:
        for subject, voxels in self.voxels.items():
            for film in range(2):
                yield self.recording(subject, voxels, film)

    def recording(self, subject: str, voxels: int, film: int) -> Recording:
        rng = np.random.default_rng([self.seed, film, voxels])
        onset_s = np.arange(self.scans) * 1.0
        shown = np.arange(self.scans) < self.clips
        return Recording(
            subject=subject,
            run=f"run-{film}",
            repeat=0,
            tr_s=1.0,
            brain=rng.standard_normal((self.scans, voxels)).astype(np.float32),
            onset_s=onset_s,
            stimulus_id=[f"film{film}-{i:04d}" if on else None for i, on in enumerate(shown)],
            offset_s=np.where(shown, 0.0, np.nan),
        )


def visible(store: Store) -> tuple[str, bytes] | None:
    """What a reader sees: the commit, and every value."""
    if not store.exists(MANIFEST_KEY):
        return None
    dataset = Dataset.open(store.url)
    values = [dataset.gather_samples(np.array(run.rows)).tobytes() for run in dataset.runs]
    values.append(dataset.gather_stimuli("frames", np.arange(dataset.num_stimuli)).tobytes())
    return dataset.manifest.commit, b"".join(values)
