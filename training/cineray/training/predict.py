"""Predictions of one split, in one npz: what evaluation reads instead of a model.

Values are in the units of training (targets z-scored with the training rows' statistics, which are stored along), so
that nothing is lost between a model and its score.
"""

import io
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cineray.core.errors import ConfigError, IntegrityError
from cineray.core.storage import Store
from cineray.datasets.dataset import Dataset
from cineray.datasets.manifest import require_data
from cineray.datasets.normaliser import Normaliser
from cineray.datasets.split import make_split
from cineray.datasets.stream import Stream
from cineray.training.checkpoint import best, read_manifest, read_tensors
from cineray.training.models.base import Sizes
from cineray.training.resume import require_settings
from cineray.training.run import Run

__all__ = ["Predictions", "Restored", "predict", "predict_stream", "read_run", "restore"]

SPLITS = ("train", "val", "test")

DAMAGED = (ValueError, OSError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What numpy and zipfile raise over a file that was cut or changed (a changed flag asks for a password)."""


@dataclass(frozen=True)
class Predictions:
    """One row per example, all of the first subject in row order, then the next."""

    step: int
    """Training step of the checkpoint."""
    data: str
    """Fingerprint of what was read of the data set (`cineray.datasets.manifest.Manifest.fingerprint_of`)."""
    notes: NDArray[np.str_]
    """What the split says a reader must know (`cineray.datasets.split.Split`)."""
    subject: NDArray[np.str_]
    run: NDArray[np.str_]
    film: NDArray[np.str_]
    time_s: NDArray[np.float64]
    """Onset of the anchor scan in its run."""
    example: NDArray[np.int64]
    """Number in the split."""
    sample_row: NDArray[np.int64]
    stimulus_row: NDArray[np.int64]
    predicted: dict[str, NDArray[np.float32]]
    """Target -> (rows, ...)."""
    scale: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]] = field(default_factory=dict)
    """Target -> mean and deviation that bring its stored values to the units of ``predicted``; none where as stored."""

    def dumps(self) -> bytes:
        """The npz; tensors by ``predicted/TARGET``, ``mean/TARGET`` and ``sd/TARGET``."""
        plain = {k: v for k, v in vars(self).items() if k not in ("predicted", "scale")}
        tensors = {f"predicted/{k}": v for k, v in self.predicted.items()}
        scales = {f"{kind}/{k}": v[i] for i, kind in enumerate(("mean", "sd")) for k, v in self.scale.items()}
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **plain, **tensors, **scales)
        return buffer.getvalue()

    @classmethod
    def loads(cls, data: bytes, origin: str) -> Self:
        """Read back what `dumps` wrote."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as found:
                arrays = {name: found[name] for name in found.files}
        except DAMAGED as error:
            raise IntegrityError(
                f"{origin} is damaged ({error}); predict this split again with `cineray eval`"
            ) from None
        plain = {k: v for k, v in arrays.items() if "/" not in k and k not in ("step", "data")}
        predicted = {k.removeprefix("predicted/"): v for k, v in arrays.items() if k.startswith("predicted/")}
        scale = {k: (arrays[f"mean/{k}"], arrays[f"sd/{k}"]) for k in predicted if f"mean/{k}" in arrays}
        return cls(step=int(arrays["step"]), data=str(arrays["data"]), **plain, predicted=predicted, scale=scale)

    @classmethod
    def read(cls, store: Store, split: str) -> Self:
        """The predictions of a run folder."""
        if not store.exists(key := f"predictions/{split}.npz"):
            raise ConfigError(f"{store.url} holds no {key}; write it with `cineray eval {store.url} split={split}`")
        return cls.loads(store.get(key), store.path(key))


@dataclass(frozen=True)
class Restored:
    """A trained run, read back."""

    run: Run
    model: nn.Module
    normaliser: Normaliser | None
    step: int
    data: str
    """Fingerprint of what it was trained on (`cineray.datasets.manifest.Manifest.fingerprint_of`)."""


def read_run(store: Store) -> Run:
    """The settings of a run folder."""
    if not store.exists("run.yaml"):
        raise ConfigError(f"{store.url} holds no run.yaml; give the folder of a run that `cineray train` wrote")
    return Run.loads(store.get("run.yaml"), origin=store.path("run.yaml"))


def restore(store: Store, step: int | None = None, device: torch.device | str = "cpu") -> Restored:
    """Model and normaliser of a checkpoint, by default the best on validation data.

    Raises:
        ConfigError: ``run.yaml`` is not what the checkpoint was trained with.
    """
    run = read_run(store)
    manifest = read_manifest(store, best(store) if step is None else step)
    require_settings(run, manifest, store)
    tensors = read_tensors(store, manifest, ("weights", "normaliser"))
    families = {
        family: {k.removeprefix(f"{family}/"): v for k, v in tensors.items() if k.startswith(f"{family}/")}
        for family in ("weights", "normaliser")
    }
    sizes = manifest.sizes
    model = run.model.build(Sizes(sizes.voxels, sizes.scans, sizes.targets))
    model.load_state_dict(families["weights"])
    known = families["normaliser"]
    normaliser = Normaliser.of_state(known) if known else None
    return Restored(run, model.to(device).eval(), normaliser, manifest.step, manifest.data)


def predict(
    run_dir: str | Path, split: str = "test", *, step: int | None = None, device: torch.device | str = "cpu"
) -> Predictions:
    """Predict a split of the run's own view and write ``predictions/<split>.npz`` in one atomic step."""
    if split not in SPLITS:
        raise ConfigError(f"found split '{split}', expected one of {', '.join(SPLITS)}")
    store = Store.at(run_dir)
    restored = restore(store, step, device)
    view, optim = restored.run.view, restored.run.optim
    dataset = Dataset.open(view.dataset)
    require_data(dataset.fingerprint_of(view.targets), restored.data, url=view.dataset, user=store.url)
    parts = make_split(dataset, view.split, view.subjects, view.window)
    examples = getattr(parts, split)
    if not len(examples):
        raise ConfigError(f"the {split} split of {view.dataset} is empty; change view.split.{split} and train again")
    stream = Stream(
        dataset,
        view,
        examples,
        batch_size=optim.batch_size,
        seed=restored.run.seed,
        normaliser=restored.normaliser,
        device=device,
    )
    predictions = predict_stream(restored.model, stream, step=restored.step, notes=parts.notes)
    store.put(f"predictions/{split}.npz", predictions.dumps())
    return predictions


def predict_stream(model: nn.Module, stream: Stream, *, step: int = 0, notes: Sequence[str] = ()) -> Predictions:
    """Every example of a stream, subject after subject, in row order; the model is left in evaluation mode."""
    model.eval()
    parts: dict[str, list[NDArray[np.float32]]] = {name: [] for name in stream.target_specs}
    examples, stimuli = [], []
    with torch.inference_mode():
        for subject in stream.examples.subjects:
            for batch in stream.in_order(subject):
                out = model(batch.brain)
                for name, rows in parts.items():
                    rows.append(out[name].float().cpu().numpy())
                examples.append(batch.example.cpu().numpy())
                stimuli.append(batch.stimulus_row.cpu().numpy())
    example = np.concatenate(examples)
    rows = stream.examples.rows(example)
    runs = [stream.dataset.runs[i] for i in stream.examples.run_index(example)]
    onset = stream.dataset.samples(["onset_s"])["onset_s"].to_numpy()
    known = stream.normaliser.targets if stream.normaliser else {}
    return Predictions(
        step=step,
        data=stream.dataset.fingerprint_of(stream.target_specs),
        notes=np.array(notes, np.str_),
        subject=np.array([r.subject for r in runs]),
        run=np.array([r.run for r in runs]),
        film=np.array([r.film for r in runs]),
        time_s=onset[rows],
        example=example,
        sample_row=rows,
        stimulus_row=np.concatenate(stimuli),
        predicted={name: np.concatenate(part) for name, part in parts.items()},
        scale={k: (m.mean.cpu().numpy(), m.sd.cpu().numpy()) for k, m in known.items() if k in parts},
    )
