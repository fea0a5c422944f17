"""Single tensors out of a checkpoint: files are checked once, then only the wanted bytes are read.

A shared model of a thousand subjects has a thousand read-ins; a server holds those of the subjects that are asked for.
"""

import hashlib
import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from safetensors.torch import load
from torch import Tensor

from cineray.core.errors import IntegrityError
from cineray.core.storage import Store
from cineray.training.checkpoint import FOLDER, Manifest

__all__ = ["StoredTensors"]


@dataclass(frozen=True)
class Place:
    """Where a tensor's bytes lie."""

    key: str
    dtype: str
    shape: list[int]
    start: int
    num_bytes: int


class StoredTensors:
    """Tensors of one family of a checkpoint's files (``weights`` or ``normaliser``), by name without the family.

    Raises:
        IntegrityError: a file does not match its sha256 in the manifest.
    """

    def __init__(self, store: Store, manifest: Manifest, family: str) -> None:
        self.store = store
        self.places: dict[str, Place] = {}
        for name, entry in manifest.files.items():
            if name.split("-")[0] == family:
                key = f"{FOLDER}/{manifest.step:08d}/{name}"
                data = store.get(key)
                if hashlib.sha256(data).hexdigest() != entry.sha256:
                    raise IntegrityError(
                        f"{store.path(key)} does not match its sha256 in the manifest; serve another copy of the run"
                    )
                found = _places(key, data)
                self.places |= {name.removeprefix(f"{family}/"): place for name, place in found.items()}

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """The named tensors, each read by range."""
        return {name: self._tensor(self.places[name]) for name in names}

    def _tensor(self, place: Place) -> Tensor:
        data = self.store.get_range(place.key, place.start, place.num_bytes) if place.num_bytes else b""
        entry = {"dtype": place.dtype, "shape": place.shape, "data_offsets": [0, place.num_bytes]}
        header = json.dumps({"tensor": entry}).encode()
        return load(struct.pack("<Q", len(header)) + header + data)["tensor"]


def _places(key: str, data: bytes) -> dict[str, Place]:
    """The header of a safetensors file: 8 bytes of length, then JSON with offsets from the header's end."""
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    return {
        name: Place(
            key, e["dtype"], e["shape"], 8 + length + e["data_offsets"][0], e["data_offsets"][1] - e["data_offsets"][0]
        )
        for name, e in header.items()
    }
