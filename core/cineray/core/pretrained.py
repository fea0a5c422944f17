"""Pretrained parts: what they are called, where they come from, where they lie. Knows no network and no torch.

Below the parts folder each part has a folder of its own and beside it, written last, a record of every file's sha256:
a part without its record was not pulled to the end.
"""

import json
import os
import re
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import yaml
from pydantic import Field, field_validator, model_validator

from cineray.core.config import Config
from cineray.core.content import Local
from cineray.core.errors import ConfigError, IntegrityError

__all__ = [
    "PARTS_VARIABLE",
    "CatalogueEntry",
    "FileRecord",
    "Part",
    "PartRecord",
    "catalogue",
    "folder_of",
    "locate",
    "parts_folder",
    "short_name",
]

CATALOGUE = "pretrained.yaml"
PARTS_VARIABLE = "CINERAY_MODELS"
Kind = Literal["model", "dataset"]
"""Of the hub's repositories; it keeps weights in both."""
DATASETS = "datasets/"
UNSTATED = "as its page states"
INSTEAD = "without pretrained parts the light generator (generator.name=nearest) makes the videos"


class Part(Config):
    """A pretrained part by local folder, or by the hub's name and revision."""

    example: ClassVar[str] = "{key}.folder=… or {key}.hub_id=…, as `cineray models list` names known parts"
    folder: Local | None = None
    """Made absolute, for Ray's processes work in folders of their own."""
    hub_id: str | None = None
    """``owner/name``."""
    revision: str | None = None
    """Branch, tag or commit; the main branch where it is None."""
    file: str | None = None
    """The one file that is the part, where a repository of the hub holds several parts; its path there."""

    @field_validator("folder")
    @classmethod
    def _absolute(cls, folder: str | None) -> str | None:
        return folder and str(Path(folder).expanduser().absolute())

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.folder is None) == (self.hub_id is None):
            raise ValueError(f"found folder={self.folder} and hub_id={self.hub_id}, expected exactly one of them")
        for name in ("revision", "file"):
            if self.folder is not None and (found := getattr(self, name)) is not None:
                raise ValueError(f"found {name}={found} of a local folder, expected it only beside hub_id")
        if self.hub_id is not None and self.hub_id.count("/") != 1:
            raise ValueError(f"found hub_id={self.hub_id}, expected owner/name")
        return self

    @property
    def label(self) -> str:
        """How errors and folders name it: ``owner/name@revision`` or ``owner/name@revision:file``, or the folder."""
        return self.folder or f"{self.hub_id}@{self.revision or 'main'}" + (f":{self.file}" if self.file else "")


class CatalogueEntry(Config):
    """A part that cineray knows by a short name."""

    hub_id: str
    revision: str = "main"
    kind: Kind = "model"
    licence: str
    """As its page on the hub states it."""
    size_gb: float | None = Field(default=None, gt=0)
    """About; to know before pulling. None of parts that the catalogue does not have."""
    used_for: str = ""
    file: str | None = None
    """See `Part`."""
    files: tuple[str, ...] = ()
    """Patterns of the files wanted where the part is more than one; all of them where it is empty."""
    sha256: dict[str, str] = Field(default_factory=dict)
    """Of files whose digest is known beforehand; the others are trusted on first pull and verified from then on."""

    @property
    def part(self) -> Part:
        """As settings name it."""
        return Part(hub_id=self.hub_id, revision=self.revision, file=self.file)

    @property
    def patterns(self) -> tuple[str, ...]:
        """Of the files to bring; all of them where there is none."""
        return self.files if self.file is None else (self.file,)

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit: branches and tags move."""
        return re.fullmatch("[0-9a-f]{40}", self.revision) is not None

    @classmethod
    def named(cls, name: str) -> "CatalogueEntry":
        """The part of a short name, or of ``owner/name@revision:file``.

        Without a revision it is the main branch, without a file the whole repository. A repository of data has
        ``datasets/`` before its owner, as in the hub's addresses.
        """
        known = catalogue()
        if name in known:
            return known[name]
        repository, _, file = name.removeprefix(DATASETS).partition(":")
        hub_id, _, revision = repository.partition("@")
        if hub_id.count("/") != 1:
            raise ConfigError(f"found part '{name}', expected owner/name@revision or one of {', '.join(known)}")
        kind: Kind = "dataset" if name.startswith(DATASETS) else "model"
        return cls(hub_id=hub_id, revision=revision or "main", kind=kind, file=file or None, licence=UNSTATED)

    @property
    def name(self) -> str:
        """What `named` finds it by: the short name, else the long one."""
        long = f"{DATASETS if self.kind == 'dataset' else ''}{self.part.label}"
        return short if (short := short_name(self.part)) in catalogue() else long


class FileRecord(Config):
    """One pulled file."""

    bytes: int
    sha256: str


class PartRecord(Config):
    """What was pulled; lies beside the part's folder."""

    hub_id: str
    revision: str
    """As it was asked for."""
    kind: Kind = "model"
    file: str | None = None
    commit: str
    """What that revision was when it was pulled."""
    licence: str
    files: dict[str, FileRecord]

    @classmethod
    def of(cls, folder: Path) -> "PartRecord | None":
        """The record beside a part's folder; None where the part was not pulled to the end."""
        path = cls.path(folder)
        if not path.is_file() or not folder.is_dir():
            return None
        try:
            values: Any = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise IntegrityError(f"{path} is not JSON ({error}); pull the part again") from None
        return cls.parse(values)

    @staticmethod
    def path(folder: Path) -> Path:
        """Where the record of a part's folder lies."""
        return folder.with_name(f"{folder.name}.json")


def catalogue() -> dict[str, CatalogueEntry]:
    """Every part by its short name."""
    text = files("cineray.core").joinpath(CATALOGUE).read_text(encoding="utf-8")
    return {name: CatalogueEntry.parse(values) for name, values in yaml.safe_load(text).items()}


def parts_folder() -> Path:
    """``$CINERAY_MODELS``, made absolute, else a folder of the user's cache."""
    named = os.environ.get(PARTS_VARIABLE)
    return Path(named).expanduser().absolute() if named else Path.home() / ".cache" / "cineray" / "models"


def folder_of(part: Part, root: Path) -> Path:
    """Where a part of the hub lies below the parts folder."""
    return root / re.sub("[/:]", "--", part.label)


def locate(part: Part, *, root: Path | None = None, instead: str = INSTEAD) -> Path:
    """The local folder of a part.

    Args:
        part: What is looked for.
        root: The parts folder; `parts_folder` where it is None.
        instead: How the error ends: what can be done without this part.

    Raises:
        ConfigError: The part is not there; says how to get it.
    """
    if part.folder is not None:
        path = Path(part.folder)
        if not path.is_dir():
            raise ConfigError(f"found no folder '{part.folder}', expected a pretrained part there; {instead}")
        return path
    path = folder_of(part, root or parts_folder())
    if PartRecord.of(path) is None:
        raise ConfigError(
            f"the pretrained part {part.label} is not at {path}; `cineray models pull {short_name(part)}` brings it "
            f"from the hub, or name a local folder; {instead}"
        )
    return path


def short_name(part: Part) -> str:
    """What `cineray models pull` calls it: its name in the catalogue, else ``owner/name@revision:file``."""
    return next((name for name, entry in catalogue().items() if entry.part.label == part.label), part.label)
