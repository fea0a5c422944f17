"""cc2017 as the ready-made tensors of NeuroClips (arXiv 2410.19452), read without unpickling what they contain.

Tensors are mapped, not read whole, and loaded with ``weights_only``. The captions are numpy arrays inside PyTorch's
zip: their pickle is read by `cineray.datasets.pickles`, which makes arrays of words and can call nothing else.
"""

import pickle
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cineray.core.errors import DataError
from cineray.datasets.pickles import read_pickle
from cineray.datasets.sources.cc2017_films import CLIP_S, NUM_CLIPS, TEST, TRAIN, place
from cineray.datasets.video import square

if TYPE_CHECKING:
    import torch

__all__ = ["FPS", "captions", "film_clips", "read_run"]

FPS = 3
"""Pictures a second of the released clips."""

NUM_ROWS = {"train": len(TRAIN) * NUM_CLIPS, "test": len(TEST) * NUM_CLIPS}

ONSET_S = np.arange(NUM_CLIPS, dtype=np.float64) * CLIP_S + 4.0
"""Film time of each row of a run: the trimming left the volume that begins 4 s after the clip."""

ROUNDING = 1e-3
"""How far a brightness may lie outside 0 to 1."""

MAX_CAPTIONS_MB = 100
"""Largest table of captions read; the published one has 3."""


def read_run(folder: Path, subject: int, film: str, repeat: int) -> tuple[NDArray[np.floating], NDArray[np.float64]]:
    """(240, voxels) float32 of one showing, and the film time at which each volume begins, in seconds."""
    where = place(film)
    path = folder / f"subj{subject:02d}_{where.part}_fmri.pt"
    tensor = _tensor(path, (NUM_ROWS[where.part], where.repeats, None))
    return tensor[where.rows, repeat - 1].float().numpy(), ONSET_S.copy()


def film_clips(folder: Path, film: str, size_px: int) -> Iterator[NDArray[np.uint8]]:
    """The 240 clips of a film, one after another: (6, size_px, size_px, 3)."""
    where = place(film)
    path = folder / f"GT_{where.part}_{FPS}fps.pt"
    for clip in _tensor(path, (NUM_ROWS[where.part], round(CLIP_S * FPS), 3, None, None))[where.rows]:
        light = clip.float()
        if not bool((light >= -ROUNDING).all() and (light <= 1 + ROUNDING).all()):
            raise DataError(
                f"{path.name} holds brightness from {light.min():.4g} to {light.max():.4g}, expected 0 to 1; "
                "use the file as published"
            )
        frames = (light.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()
        yield frames if frames.shape[1:3] == (size_px, size_px) else np.stack([square(f, size_px) for f in frames])


def captions(folder: Path, part: str) -> list[str]:
    """A sentence for each row of ``train`` or ``test``, from ``GT_<part>_caption.pt``."""
    path = folder / f"GT_{part}_caption.pt"
    found = _zipped_pickle(path)
    words = isinstance(found, np.ndarray) and all(isinstance(text, str) for text in found.ravel().tolist())
    if not words or found.shape != (NUM_ROWS[part],):
        what = f"an array of {found.dtype} {found.shape}" if isinstance(found, np.ndarray) else type(found).__name__
        raise DataError(f"{path.name} holds {what}, expected {NUM_ROWS[part]} captions; use the file as published")
    return found.tolist()


def _tensor(path: Path, shape: tuple[int | None, ...]) -> "torch.Tensor":
    """The one tensor of a file, mapped; None in ``shape`` takes any size."""
    import torch  # seconds to import, and no other source needs it

    if not path.is_file():
        raise DataError(f"there is no file {path}; copy it there or choose fewer with source.subjects and source.films")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError, KeyError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DataError(f"{path.name} is no tensor that can be mapped ({reason}); copy it again") from None
    size = tuple(found.shape) if isinstance(found, torch.Tensor) else None
    wanted = tuple("any" if n is None else n for n in shape)
    if size is None or len(size) != len(shape) or any(n not in (None, m) for n, m in zip(shape, size, strict=True)):
        what = f"a tensor of shape {size}" if size is not None else f"a {type(found).__name__}"
        raise DataError(f"{path.name} holds {what}, expected a tensor of shape {wanted}; use the file as published")
    return found


def _zipped_pickle(path: Path) -> object:
    """What PyTorch saved that is not a tensor: the pickle inside its zip."""
    if not path.is_file():
        raise DataError(f"there is no file {path}; correct source.captions or leave it out")
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith("/data.pkl")]
            if len(members) != 1 or members[0].file_size > MAX_CAPTIONS_MB * 1e6:
                raise DataError(f"{path.name} holds no table of captions; use the file as published")
            data = archive.read(members[0])
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise DataError(f"{path.name} cannot be read ({error}); copy it again") from None
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / path.name  # the same name, so that errors tell it
        copy.write_bytes(data)
        return read_pickle(copy)
