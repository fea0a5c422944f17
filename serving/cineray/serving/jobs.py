"""A reconstruction as a job: what there is to do, one piece of it done, and where the results stand. Knows no Ray.

A piece is a stretch of one recording; its videos are written first, then its clips, each in one atomic step. Whoever
is killed loses the piece in work; the same job run again does the pieces that are not complete.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cineray.core.config import Config, recorded_fingerprint
from cineray.core.errors import ConfigError, DataError
from cineray.core.storage import Store
from cineray.datasets.dataset import Dataset
from cineray.datasets.split import make_split
from cineray.datasets.video import write_mp4
from cineray.serving.clips import Clip, by_recording, clip_scans, clips_of, clips_of_recording
from cineray.serving.repeats import brain_of, mean_clips
from cineray.serving.video_pipeline import VideoPipeline, VideoPipelineConfig
from cineray.training.checkpoint import best, read_manifest
from cineray.training.predict import SPLITS, read_run
from cineray.training.reconstructions import Origin, Reconstruction, Reconstructions
from cineray.training.row_labels import AVERAGED, SINGLE, selection

__all__ = ["SETTINGS", "Job", "Piece", "write_piece"]

SETTINGS = "reconstruct.yaml"

PIECE_CLIPS = 12
"""Clips decoded together and lost together: four chains of three."""


@dataclass(frozen=True)
class Piece:
    """A stretch of one recording."""

    clips: tuple[Clip, ...]
    path: Path | None
    """File of the recording; None where it is a run of the data set."""


@dataclass(frozen=True)
class Job:
    """All pieces of one split, or of one recording."""

    config: VideoPipelineConfig
    store: Store
    name: str
    """Of the split or recording: its results are below ``reconstructions/<name>/``."""
    origin: Origin
    pieces: tuple[Piece, ...]

    @classmethod
    def of_split(cls, config: VideoPipelineConfig, out: str | Path, split: str) -> Self:
        """Every showing of a stimulus in a split of the semantic run, or the mean of its showings."""
        if split not in SPLITS:
            raise ConfigError(f"found split '{split}', expected one of {', '.join(SPLITS)}")
        config = config.located()
        view = read_run(Store.at(config.semantic.run_dir)).view
        dataset = Dataset.open(view.dataset)
        parts = make_split(dataset, view.split, view.subjects, view.window)
        clips = clips_of(dataset, getattr(parts, split))
        if not clips:
            raise ConfigError(f"the {split} split of {view.dataset} is empty; name another one")
        notes = parts.notes
        if config.repeats == "mean":
            clips = mean_clips(clips)
            fewest, most = (f(len(clip.showings) for clip in clips) for f in (min, max))
            notes = (*notes, f"every clip is the mean of its showings ({fewest} to {most})")
        origin = Origin(
            settings=_settings(config),
            data=dataset.fingerprint,
            dataset=dataset.store.url,
            run_dir=Store.at(config.semantic.run_dir).url,
            notes=notes,
            labels=(AVERAGED if config.repeats == "mean" else SINGLE, *_selection(config)),
        )
        pieces = [piece for part in by_recording(clips).values() for piece in _pieces(part, None)]
        return cls(config, Store.at(out), split, origin, tuple(pieces))

    @classmethod
    def of_recording(cls, config: VideoPipelineConfig, out: str | Path, path: Path, subject: str) -> Self:
        """A file ``.npy`` (scans, voxels), prepared as the data set was (same mask, detrended, z-scored)."""
        path, config = path.resolve(), config.located()
        recording = _read(path)
        step = clip_scans(Dataset.open(read_run(Store.at(config.semantic.run_dir)).view.dataset))
        clips = clips_of_recording(subject, path.stem, len(recording), step)
        digest = hashlib.sha256(np.ascontiguousarray(recording).tobytes()).hexdigest()[:16]
        labels = (SINGLE, *_selection(config))
        origin = Origin(settings=_settings(config), data=digest, dataset=str(path), labels=labels)
        return cls(config, Store.at(out), f"{subject}-{path.stem}", origin, tuple(_pieces(clips, path)))

    @classmethod
    def of_folder(cls, config: VideoPipelineConfig, out: str | Path, folder: Path) -> list[Self]:
        """Every ``<subject>/<recording>.npy`` below a folder, as a job of its own."""
        paths = sorted(folder.glob("*/*.npy"))
        if not paths:
            raise ConfigError(f"found no <subject>/<recording>.npy below {folder}, expected at least one; put it there")
        return [cls.of_recording(config, out, path, path.parent.name) for path in paths]

    @property
    def folder(self) -> str:
        """Where the results are."""
        return f"reconstructions/{self.name}"

    def begin(self) -> list[Piece]:
        """Start, or go on: the pieces with a clip that is not there yet.

        Raises:
            ConfigError: the folder holds clips of other settings, checkpoints or data.
        """
        if self.store.exists(SETTINGS):
            text = self.store.get(SETTINGS)
            VideoPipelineConfig.loads(text, origin=self.store.path(SETTINGS))
            if (found := recorded_fingerprint(text)) != self.origin.settings:
                raise ConfigError(
                    f"{self.store.path(SETTINGS)} has fingerprint {found}, these settings, weights and checkpoints "
                    f"have {self.origin.settings}; write into another folder (out=…)"
                )
        self.store.put(SETTINGS, self.config.dump(self.origin.settings).encode())
        done = Reconstructions.begin(self.store, self.name, self.origin).done()
        return [piece for piece in self.pieces if not {clip.example for clip in piece.clips} <= done]

    def finish(self) -> None:
        """The index, once every piece is done."""
        Reconstructions(self.store, self.name, self.origin).finish()

    def run(self, pipeline: VideoPipeline, pieces: Sequence[Piece]) -> Iterator[Piece]:
        """The pieces in this process, one after another."""
        for piece in pieces:
            write_piece(self, pipeline, piece)
            yield piece


def write_piece(job: Job, pipeline: VideoPipeline, piece: Piece) -> None:
    """Reconstruct one piece; an mp4 for each clip and for each chain of several, then the clips."""
    results = pipeline.reconstruct(*_brain(pipeline, piece))
    for chain in _chains(results):
        for clip in chain:
            _put_mp4(job, f"{clip.example:06d}", clip.video, clip.fps)
        if len(chain) > 1:
            whole = np.concatenate([clip.video for clip in chain])
            _put_mp4(job, f"chain-{chain[0].example:06d}", whole, chain[0].fps)
    folder = Reconstructions(job.store, job.name, job.origin)
    for clip in results:
        folder.write(clip)


def _brain(pipeline: VideoPipeline, piece: Piece) -> tuple[NDArray[np.floating], Sequence[Clip]]:
    """(scans, voxels), and the clips of the piece in it."""
    if piece.path:
        return _read(piece.path), piece.clips
    return brain_of(pipeline.semantic.dataset, piece.clips, pipeline.window)


def _chains(results: Iterable[Reconstruction]) -> list[list[Reconstruction]]:
    found: list[list[Reconstruction]] = []
    for clip in results:
        if clip.carried:
            found[-1].append(clip)
        else:
            found.append([clip])
    return found


def _put_mp4(job: Job, name: str, video: NDArray[np.uint8], fps: float) -> None:
    with job.store.scratch() as scratch:
        path = Path(scratch) / f"{name}.mp4"
        write_mp4(video, fps, path)
        job.store.put_file(f"{job.folder}/{name}.mp4", path, consume=True)


def _pieces(clips: Sequence[Clip], path: Path | None) -> list[Piece]:
    """Cuts at fixed places, so that what is linked to what never depends on who does it or on what is left to do."""
    return [Piece(tuple(clips[first : first + PIECE_CLIPS]), path) for first in range(0, len(clips), PIECE_CLIPS)]


def _settings(config: VideoPipelineConfig) -> str:
    """Fingerprint of the settings, weights and checkpoints that decide the pixels, wherever those lie."""
    values = config.by_content(exclude={"name": True, **{part: {"run_dir"} for part in config.trained}})
    values["checkpoints"] = [_checkpoint(Store.at(run_dir)) for run_dir in config.run_dirs]
    return _Values(values=values).fingerprint()


def _checkpoint(store: Store) -> dict[str, Any]:
    """What tells a trained network from others: its settings, its data and its tensors."""
    return read_manifest(store, best(store)).model_dump(mode="json", include={"identity", "data", "files"})


def _selection(config: VideoPipelineConfig) -> list[str]:
    """What is to be told of how the checkpoints were chosen, each once."""
    return sorted({label for run_dir in config.run_dirs for label in selection(read_run(Store.at(run_dir)))})


class _Values(Config):
    values: dict[str, Any]


def _read(path: Path) -> NDArray[np.floating]:
    """A recording, never unpickled."""
    if not path.is_file():
        raise DataError(f"there is no recording {path}; correct the name")
    try:
        recording = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{path} is not an .npy file of numbers ({error}); write it with numpy.save") from None
    if recording.ndim != 2 or not np.issubdtype(recording.dtype, np.floating) or not np.isfinite(recording).all():
        raise DataError(
            f"{path} holds {recording.dtype} {recording.shape}, expected finite floating-point (scans, voxels)"
        )
    return recording
