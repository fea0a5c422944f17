"""Pretrained parts of this machine: brought from the hub at a revision, listed, and verified file by file.

A part's files are trusted when they are first pulled, but for digests that the catalogue or the hub knows beforehand;
from then on they are verified against the record that pulling left.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cineray.core.errors import ConfigError, IntegrityError, StorageError
from cineray.core.pretrained import CatalogueEntry, FileRecord, PartRecord, catalogue, folder_of

__all__ = ["Fetch", "Fetched", "Row", "fetch_from_hub", "listing", "pull", "pulled", "show", "verify"]

CLIENT_NOTES = ".cache"
"""What the hub's client keeps beside the files while it pulls; lets an interrupted pull go on."""
READ_BYTES = 1 << 22


@dataclass(frozen=True)
class Fetched:
    """What the hub said of what it sent."""

    commit: str
    licence: str | None = None
    sha256: dict[str, str] = field(default_factory=dict)
    """Of the files whose digest the hub states."""


Fetch = Callable[[CatalogueEntry, Path], Fetched]
"""Bring an entry's files into a folder."""


@dataclass(frozen=True)
class Row:
    """One line of the list."""

    name: str
    licence: str
    size: str
    revision: str
    """The commit it is pinned to, or that it is unpinned (and its branch, other than main)."""
    sha256: str
    """Its beginning where it is known: of what was pulled, largest file first, else of what the catalogue knows.
    Beside it how many more files there are."""
    present: str
    """The commit that was pulled, or no."""


def pull(name: str, root: Path, fetch: Fetch | None = None) -> PartRecord:
    """Bring a part below ``root`` and record its files; one that is there and whole is left alone.

    Raises:
        StorageError: The hub cannot be reached, or refuses.
        IntegrityError: What came is not what the catalogue or the hub says it is.
    """
    entry = CatalogueEntry.named(name)
    folder = folder_of(entry.part, root)
    if (record := PartRecord.of(folder)) is not None and not any(problems(folder, record)):
        return record
    PartRecord.path(folder).unlink(missing_ok=True)
    fetched = (fetch or fetch_from_hub)(entry, folder)
    files = {str(path.relative_to(folder)): _recorded(path) for path in _files(folder)}
    if not files:
        raise StorageError(f"the hub sent no file of {entry.part.label}; are its patterns {entry.patterns} right?")
    for file, digest in (fetched.sha256 | entry.sha256).items():
        if file in files and files[file].sha256 != digest:
            raise IntegrityError(
                f"{folder / file} has sha256 {files[file].sha256}, expected {digest}; delete it and pull {name} again"
            )
    record = PartRecord(
        hub_id=entry.hub_id,
        revision=entry.revision,
        kind=entry.kind,
        file=entry.file,
        commit=fetched.commit,
        licence=fetched.licence or entry.licence,
        files=files,
    )
    _publish(PartRecord.path(folder), record)
    shutil.rmtree(folder / CLIENT_NOTES, ignore_errors=True)
    return record


def fetch_from_hub(entry: CatalogueEntry, folder: Path) -> Fetched:
    """Through the hub's own client, which resumes an interrupted pull; ``HF_ENDPOINT`` names another hub."""
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    label = entry.part.label
    try:
        info = HfApi().repo_info(entry.hub_id, repo_type=entry.kind, revision=entry.revision, files_metadata=True)
        snapshot_download(
            entry.hub_id,
            repo_type=entry.kind,
            revision=info.sha,
            local_dir=folder,
            allow_patterns=list(entry.patterns) or None,
        )
    except GatedRepoError:
        raise StorageError(f"{label} wants its licence accepted on its page, then `hf auth login`") from None
    except (RepositoryNotFoundError, RevisionNotFoundError):
        data = "" if entry.kind == "dataset" else ", and put datasets/ before it if that is what it is"
        raise StorageError(f"the hub {constants.ENDPOINT} knows no {label}; check name and revision{data}") from None
    except Exception as error:  # the client's errors of the network have no common class
        why = " ".join(str(error).split()) or type(error).__name__
        raise StorageError(
            f"no network: {label} did not come from the hub {constants.ENDPOINT} ({why:.160}); go online and pull it "
            "again, or copy the part's folder here and name it by folder=…"
        ) from error
    stated = {s.rfilename: s.lfs.sha256 for s in info.siblings or () if s.lfs is not None}
    card = getattr(info, "card_data", None)
    return Fetched(str(info.sha), None if card is None else card.get("license"), stated)


def pulled(root: Path) -> dict[str, PartRecord]:
    """Every part below ``root``, by short name."""
    found = {}
    for path in sorted(root.glob("*.json")):
        if (record := PartRecord.of(path.with_suffix(""))) is not None:
            found[CatalogueEntry.parse(record.model_dump(exclude={"commit", "files"})).name] = record
    return found


def verify(names: Sequence[str], root: Path) -> Iterator[tuple[str, list[str]]]:
    """Each part's name and what is wrong with it; every part that was pulled where no names are given."""
    for name in names or pulled(root):
        part = CatalogueEntry.named(name).part
        folder = folder_of(part, root)
        record = PartRecord.of(folder)
        if record is None:
            raise ConfigError(f"the pretrained part {part.label} is not at {folder}; `cineray models pull {name}`")
        yield name, list(problems(folder, record))


def problems(folder: Path, record: PartRecord) -> Iterator[str]:
    """What of a part's files is not as it was pulled."""
    for name, expected in record.files.items():
        path = folder / name
        if not path.is_file():
            yield f"{name} is missing"
        elif (found := path.stat().st_size) != expected.bytes:
            yield f"{name} has {found} bytes, expected {expected.bytes}"
        elif (digest := _sha256(path)) != expected.sha256:
            yield f"{name} has sha256 {digest}, expected {expected.sha256}"


def listing(root: Path) -> list[Row]:
    """The catalogue, and whatever else was pulled."""
    here = pulled(root)
    entries = catalogue() | {name: CatalogueEntry.named(name) for name in here}
    rows = []
    for name, entry in entries.items():
        record = here.get(name)
        size = "?" if entry.size_gb is None else f"~{entry.size_gb:g} GB"
        if record is not None:
            size = f"{sum(f.bytes for f in record.files.values()) / 1e9:.3g} GB"
        branch = "" if entry.revision == "main" else f"{entry.revision}, "
        revision = entry.revision[:12] if entry.pinned else f"{branch}unpinned"
        present = "no" if record is None else record.commit[:12]
        rows.append(Row(name, (record or entry).licence, size, revision, _digests(entry, record), present))
    return rows


def show(rows: Iterable[Row]) -> None:
    """The list on the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("name", overflow="fold", min_width=max(map(len, catalogue())))
    for name in ("size", "revision", "sha256", "present"):
        table.add_column(name, no_wrap=True)
    table.add_column("licence", overflow="fold")
    for row in rows:
        cells = (row.name, row.size, row.revision, row.sha256, row.present, row.licence)
        table.add_row(*(Text(cell) for cell in cells))
    Console().print(table)


def _digests(entry: CatalogueEntry, record: PartRecord | None) -> str:
    files = [] if record is None else sorted(record.files.values(), key=lambda file: -file.bytes)
    known = [file.sha256 for file in files] or list(entry.sha256.values())
    more = f" +{len(known) - 1}" if len(known) > 1 else ""
    return f"{known[0][:12]}{more}" if known else "-"


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and folder / CLIENT_NOTES not in path.parents)


def _recorded(path: Path) -> FileRecord:
    return FileRecord(bytes=path.stat().st_size, sha256=_sha256(path))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _publish(path: Path, record: PartRecord) -> None:
    """Whole or not at all."""
    half = path.with_suffix(".tmp")
    half.write_text(json.dumps(record.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")
    half.replace(path)
