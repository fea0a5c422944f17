"""Checkpoints: safetensors and a JSON manifest with the sha256 of every file; the manifest comes last.

``checkpoints/<step>/`` holds ``weights-*``, ``moments-*`` and ``normaliser-*`` files. Their names end in their hash, so
writing a step again never touches bytes that a manifest speaks of. Nothing here is pickled, and nothing is read
before its hash is checked.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, Self

from safetensors.torch import load, save
from torch import Tensor

from cineray.core.config import Config
from cineray.core.errors import ConfigError, IntegrityError
from cineray.core.storage import Store

__all__ = ["Manifest", "Position", "committed", "latest", "prune", "read_manifest", "read_tensors", "write_checkpoint"]

SHARD_BYTES = 256 << 20
"""Tensors of one file: what is copied at a time, and what a retry sends again."""

FOLDER = "checkpoints"


class Position(Config):
    """Where training stands: the next step to take, and the best epoch so far."""

    step: int = 0
    """Steps taken since the beginning."""
    epoch: int = 0
    epoch_step: int = 0
    """Steps taken of ``epoch``."""
    best_step: int | None = None
    best_value: float | None = None
    """Validation loss at ``best_step``."""


class StoredFile(Config):
    """One file of a checkpoint."""

    sha256: str
    num_bytes: int


class StoredSizes(Config):
    """`cineray.training.models.base.Sizes`, written down."""

    voxels: dict[str, int]
    scans: int
    targets: dict[str, tuple[int, ...]]


class Manifest(Config):
    """What a checkpoint is; whatever is not named here does not belong to it."""

    format: Literal[1] = 1
    position: Position
    world_size: int
    strategy: str
    identity: str
    """Fingerprint of the settings that decide the weights (`cineray.training.resume.identity`)."""
    data: str
    """Fingerprint of what was read of the data set (`cineray.datasets.manifest.Manifest.fingerprint_of`)."""
    sizes: StoredSizes
    metrics: dict[str, float]
    files: dict[str, StoredFile]

    @property
    def step(self) -> int:
        """Steps taken."""
        return self.position.step

    def to_bytes(self) -> bytes:
        """JSON with its own hash around it."""
        text = self.model_dump_json()
        return json.dumps({"manifest": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}).encode()

    @classmethod
    def of_bytes(cls, data: bytes, origin: str) -> Self:
        """Read back what `to_bytes` wrote."""
        try:
            outer = json.loads(data)
            intact = hashlib.sha256(outer["manifest"].encode()).hexdigest() == outer["sha256"]
        except (ValueError, KeyError, TypeError, AttributeError):
            intact = False
        if not intact:
            raise IntegrityError(f"{origin} does not match its own checksum; {ADVICE}")
        return cls.parse(json.loads(outer["manifest"]))


ADVICE = "delete that checkpoint's folder and the run goes on from the one before"


def write_checkpoint(
    store: Store, manifest: Manifest, tensors: Mapping[str, Tensor], *, shard_bytes: int = SHARD_BYTES
) -> Manifest:
    """Write tensors named ``kind/...`` file by file, then the manifest; only then does the checkpoint exist.

    Kinds: ``weights``, ``exp_avg``, ``exp_avg_sq``, ``steps`` (`Engine.full_state`) and ``normaliser``.
    """
    files = {}
    for family, shard in _shards(tensors, shard_bytes):
        data = save(shard)
        digest = hashlib.sha256(data).hexdigest()
        name = f"{family}-{len(files):05d}-{digest[:8]}.safetensors"
        store.put(f"{_folder(manifest.step)}/{name}", data)
        files[name] = StoredFile(sha256=digest, num_bytes=len(data))
    manifest = manifest.model_copy(update={"files": files})
    store.put(f"{_folder(manifest.step)}/manifest.json", manifest.to_bytes())
    return manifest


def read_manifest(store: Store, step: int) -> Manifest:
    """The manifest of a committed checkpoint."""
    key = f"{_folder(step)}/manifest.json"
    return Manifest.of_bytes(store.get(key), store.path(key))


def read_tensors(store: Store, manifest: Manifest, families: Iterable[str] = ("weights",)) -> dict[str, Tensor]:
    """Tensors by full name of some families of files: ``weights``, ``moments``, ``normaliser``."""
    wanted, found = tuple(families), {}
    for name, entry in manifest.files.items():
        if name.split("-")[0] in wanted:
            key = f"{_folder(manifest.step)}/{name}"
            data = store.get(key)
            if hashlib.sha256(data).hexdigest() != entry.sha256:
                raise IntegrityError(f"{store.path(key)} does not match its sha256 in the manifest; {ADVICE}")
            found |= load(data)
    return found


def committed(store: Store) -> list[int]:
    """Steps that have a whole checkpoint, in order."""
    keys = (key.split("/") for key in store.list(f"{FOLDER}/"))
    return sorted(int(parts[1]) for parts in keys if parts[-1] == "manifest.json")


def latest(store: Store) -> int | None:
    """The newest step with a checkpoint, None before the first."""
    return max(committed(store), default=None)


def best(store: Store) -> int:
    """The step to evaluate and serve: least validation loss, or the newest where nothing was validated."""
    newest = latest(store)
    if newest is None:
        raise ConfigError(f"{store.url} holds no checkpoint; train the run first with `cineray train`")
    found = read_manifest(store, newest).position.best_step
    return newest if found is None else found


def prune(store: Store, keep: int, best_step: int | None) -> None:
    """Remove all but the newest ``keep`` checkpoints and the best; a manifest goes before its files."""
    for step in committed(store)[:-keep]:
        if step != best_step:
            keys = store.list(f"{_folder(step)}/")
            for key in sorted(keys, key=lambda key: not key.endswith("/manifest.json")):
                store.delete(key)


def snapshot(state: Iterator[tuple[str, Tensor]], *, keep: bool) -> dict[str, Tensor]:
    """Copies in host memory of a collective state; a rank that does not ``keep`` only takes part."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in state if keep}


def _shards(tensors: Mapping[str, Tensor], shard_bytes: int) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Families of files, cut so that each holds at most ``shard_bytes`` unless one tensor alone is larger."""
    families: dict[str, list[str]] = {"weights": [], "moments": [], "normaliser": []}
    for name in tensors:
        kind = name.split("/")[0]
        families[kind if kind in families else "moments"].append(name)
    for family, names in families.items():
        shard: dict[str, Tensor] = {}
        for name in names:
            if shard and _num_bytes(shard.values()) + _num_bytes([tensors[name]]) > shard_bytes:
                yield family, shard
                shard = {}
            shard[name] = tensors[name]
        if shard:
            yield family, shard


def _num_bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def _folder(step: int) -> str:
    return f"{FOLDER}/{step:08d}"
