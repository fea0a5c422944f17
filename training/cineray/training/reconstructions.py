"""Reconstructed clips on disk: what a pipeline writes and evaluation reads, so that neither knows the other.

``<run folder>/reconstructions/<split>/``: ``origin.json`` first (which settings made them), one npz a clip, and
``index.json`` last. A folder without its index is unfinished; whoever goes on skips the clips that are there.
"""

import io
import json
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cineray.core.config import Config
from cineray.core.errors import ConfigError, ConflictError, DataError, IntegrityError
from cineray.core.storage import Store
from cineray.training.predict import DAMAGED

__all__ = ["Entry", "Origin", "Reconstruction", "Reconstructions"]

PICTURES = {"video": 4, "keyframe": 3, "blurry": 4}
"""Name -> number of axes; the last is three colours."""
REQUIRED = {"video", "fps", "seed", "subject", "run", "stimulus_id", "caption", "carried"}


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """One reconstructed clip (or picture: one frame) of one brain."""

    example: int
    """Number in the split."""
    subject: str
    run: str
    stimulus_id: str
    video: NDArray[np.uint8]
    """sRGB (frames, height, width, 3)."""
    fps: float
    seed: int
    caption: str = ""
    """What the pipeline believes is shown."""
    keyframe: NDArray[np.uint8] | None = None
    """sRGB (height, width, 3); None where the pipeline makes none."""
    blurry: NDArray[np.uint8] | None = None
    """sRGB (frames, height, width, 3); None likewise."""
    carried: bool = False
    """Whether its first frame is carried over from the clip before, whose scene it goes on with."""

    def __post_init__(self) -> None:
        for name, num_axes in PICTURES.items():
            found = getattr(self, name)
            if found is None:
                continue
            if found.dtype != np.uint8 or found.ndim != num_axes or found.shape[-1] != 3 or not found.size:
                raise DataError(
                    f"clip {self.example}: found {name} {found.dtype} {found.shape}, expected uint8 with {num_axes} "
                    "axes, the last of them red, green, blue"
                )
        if not self.fps > 0:
            raise DataError(f"clip {self.example}: found {self.fps:g} frames per second, expected more than 0")

    def dumps(self) -> bytes:
        """The npz, losslessly compressed."""
        arrays: dict[str, Any] = {k: v for k, v in vars(self).items() if v is not None and k != "example"}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        return buffer.getvalue()

    @classmethod
    def loads(cls, data: bytes, example: int, origin: str) -> Self:
        """Read back what `dumps` wrote; ``origin`` names it in errors."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as found:
                arrays = {name: found[name] for name in found.files}
        except DAMAGED as error:
            raise IntegrityError(f"{origin} is damaged ({error}); remove it and reconstruct again") from None
        if missing := REQUIRED - set(arrays):
            raise IntegrityError(f"{origin} lacks {', '.join(sorted(missing))}; remove it and reconstruct again")
        return cls(
            example=example,
            **{k: str(arrays[k]) for k in ("subject", "run", "stimulus_id", "caption")},
            fps=float(arrays["fps"]),
            seed=int(arrays["seed"]),
            carried=bool(arrays["carried"]),
            **{k: arrays[k] for k in PICTURES if k in arrays},
        )


class Origin(Config):
    """What made a folder of reconstructions."""

    settings: str
    """Fingerprint of everything that decides the pixels."""
    data: str
    """Fingerprint of the data set the brains came from."""
    dataset: str
    """Where that data set lay."""
    run_dir: str = ""
    """Run whose split the clips are of, where it is not the folder they are in."""
    notes: tuple[str, ...] = ()
    """What a reader of the results must know."""
    labels: tuple[str, ...] = ()
    """What stands beside every score (`cineray.training.row_labels`)."""


@dataclass(frozen=True)
class Entry:
    """A line of the index."""

    example: int
    subject: str
    run: str
    stimulus_id: str


class Reconstructions:
    """The reconstructions of one split. Several processes may write; one of them, last, writes the index."""

    def __init__(self, store: Store, split: str, origin: Origin, entries: tuple[Entry, ...] = ()) -> None:
        self.store = store
        self.split = split
        self.origin = origin
        self.entries = entries
        """In the order of their examples; empty while the folder is written."""

    @classmethod
    def begin(cls, store: Store, split: str, origin: Origin) -> Self:
        """Start a folder, or go on with one of the same settings and data, which may lie elsewhere by then.

        Raises:
            ConfigError: the folder holds clips that other settings or data made.
        """
        key = f"{_folder(split)}/origin.json"
        try:
            store.create(key, origin.model_dump_json(indent=1).encode())
        except ConflictError:
            found = Origin.loads(store.get(key), origin=store.path(key))
            for what in ("settings", "data"):
                if getattr(found, what) != getattr(origin, what):
                    raise ConfigError(
                        f"{store.path(_folder(split))} holds clips of {what} {getattr(found, what)}, these are "
                        f"{getattr(origin, what)}; remove that folder or write into another run folder"
                    ) from None
            if found != origin:
                store.put(key, origin.model_dump_json(indent=1).encode())
        return cls(store, split, origin)

    @classmethod
    def open(cls, store: Store, split: str) -> Self:
        """A finished folder."""
        folder = _folder(split)
        if not store.exists(f"{folder}/index.json"):
            begun = store.exists(f"{folder}/origin.json")
            raise ConfigError(
                f"{store.path(folder)} {'is not finished' if begun else 'does not exist'}; "
                f"write it with `cineray reconstruct {store.url} split={split}`"
            )
        try:
            index = json.loads(store.get(f"{folder}/index.json"))
            entries = tuple(Entry(**line) for line in index["clips"])
        except (ValueError, KeyError, TypeError):
            raise IntegrityError(f"{store.path(folder)}/index.json is damaged; reconstruct again") from None
        origin = Origin.loads(store.get(f"{folder}/origin.json"), origin=store.path(f"{folder}/origin.json"))
        return cls(store, split, origin, entries)

    def done(self) -> set[int]:
        """Examples that are there; each was written in one atomic step."""
        names = (key.rpartition("/")[2] for key in self.store.list(f"{_folder(self.split)}/"))
        return {int(name.removesuffix(".npz")) for name in names if name.endswith(".npz")}

    def write(self, clip: Reconstruction) -> None:
        """Add or replace one clip."""
        self.store.put(self._key(clip.example), clip.dumps())

    def read(self, example: int) -> Reconstruction:
        """One clip."""
        key = self._key(example)
        return Reconstruction.loads(self.store.get(key), example, self.store.path(key))

    def finish(self) -> None:
        """Write the index over every clip that is there: from here on the folder may be evaluated."""
        clips = [self.read(example) for example in sorted(self.done())]
        if not clips:
            raise DataError(f"{self.store.path(_folder(self.split))} holds no clip; reconstruct some before the index")
        self.entries = tuple(Entry(c.example, c.subject, c.run, c.stimulus_id) for c in clips)
        text = json.dumps({"clips": [asdict(entry) for entry in self.entries]}, indent=1, ensure_ascii=False)
        self.store.put(f"{_folder(self.split)}/index.json", text.encode())

    def _key(self, example: int) -> str:
        return f"{_folder(self.split)}/{example:06d}.npz"


def _folder(split: str) -> str:
    return f"reconstructions/{split}"
