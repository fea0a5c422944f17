"""A run folder with reconstructions of known quality: true clips, blurred and noisy, out of synthetic films."""

from pathlib import Path

import numpy as np

from cineray.core.storage import Store
from cineray.datasets.dataset import Dataset
from cineray.datasets.ingest import ingest
from cineray.datasets.sources.synthetic import SyntheticConfig
from cineray.training.reconstructions import Origin, Reconstruction, Reconstructions
from cineray.training.run import Run

__all__ = ["reconstruct", "synthetic_films"]


def synthetic_films(folder: Path, test_minutes: float = 1.0) -> str:
    """Two people, clips of 2 s at 4 fps, 32 px."""
    source = SyntheticConfig(
        num_subjects=2, minutes=4, test_minutes=test_minutes, run_minutes=4, tr_s=2, fps=4, voxels=(10, 12)
    )
    ingest(source, folder)
    return str(folder)


def reconstruct(
    folder: Path, dataset_url: str, *, noise: float, wrong: bool = False, settings: str = "s", num: int = 0
) -> str:
    """Every test clip of everybody: the truth averaged with noise, or (``wrong``) with another clip's truth."""
    dataset = Dataset.open(dataset_url)
    split = {"train": {"films": ["train"]}, "test": {"films": ["test"]}}
    store = Store.at(folder)
    store.put(
        "run.yaml", Run.parse({"name": folder.name, "view": {"dataset": dataset_url, "split": split}}).dump().encode()
    )
    out = Reconstructions.begin(store, "test", Origin(settings=settings, data=dataset.fingerprint, dataset=dataset_url))
    table = dataset.stimuli().to_pylist()
    rows = [row for row, line in enumerate(table) if line["film"] == "test"][: num or None]
    frames = dataset.gather_stimuli("frames", np.array(rows)).astype(np.float32)
    for number, (subject, k) in enumerate((s, k) for s in dataset.subjects for k in range(len(rows))):
        rng = np.random.default_rng([number, int(10 * noise)])
        source = frames[(k + len(rows) // 2) % len(rows)] if wrong else frames[k]
        video = np.clip(source + rng.normal(0, noise, source.shape), 0, 255).astype(np.uint8)
        line = table[rows[k]]
        blurry = np.repeat(np.repeat(video[:, ::4, ::4], 4, 1), 4, 2)
        out.write(
            Reconstruction(
                example=number, subject=subject, run="test-0", stimulus_id=line["stimulus_id"], video=video, fps=4.0,
                seed=number, caption=line["caption"], keyframe=video[0], blurry=blurry,
            )
        )  # fmt: skip
    out.finish()
    return str(folder)
