"""Manifests: which recordings make up a dataset, in Townlet's three dialects and our own.

Dialects: a list of sample paths; a list of objects with `sample`; an object with `metadata` and `samples`. Ours is the
third, with a `format` in its metadata; a large capture names `arrays` where the others name `samples`. Nothing is left
out in silence: rejected entries are counted, a missing file is an error, a path that means two files is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from townlet_train.data.storage import load_json
from townlet_train.errors import DataError
from townlet_train.files import PARTIAL, sha256_of

SUFFIX = "_manifest.json"
FORMAT = "townlet-train/capture"
FORMAT_VERSION = 1
RECAPTURE = "Capture it again or remove the entry."


@dataclass(frozen=True)
class Entry:
    """One sample of a dataset, its paths resolved."""

    number: int  # as counted in the manifest, from 1
    sample: Path
    metadata: Path


@dataclass(frozen=True)
class Manifest:
    """What a manifest says, with every path found on this machine."""

    path: Path
    metadata: Mapping[str, Any]
    entries: tuple[Entry, ...]
    rejected: tuple[int, ...] = ()  # numbers of entries marked `accepted: false`
    duplicates: tuple[int, ...] = ()  # numbers of entries naming a sample an earlier one named; left out

    @property
    def label(self) -> str:
        """What the dataset is called: the manifest's stem."""
        return self.path.name.removesuffix(SUFFIX) if self.path.name.endswith(SUFFIX) else self.path.stem


def find_manifest(directory: Path) -> Path:
    """The one manifest of a capture directory."""
    if directory.name.endswith(PARTIAL):
        raise DataError(f"{directory} was left by a capture that was killed. Delete it and capture again.")
    found = sorted(directory.glob(f"*{SUFFIX}"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise DataError(f"{directory} holds no *{SUFFIX}. Name a manifest or a sample inside it.")
    names = ", ".join(path.name for path in found)
    raise DataError(f"{directory} holds {len(found)} manifests ({names}). Name the one you mean.")


def load_document(path: Path) -> Any:
    """The manifest as plain values: JSON when its suffix says so, YAML otherwise."""
    if path.suffix in (".json", ".jsonl"):
        return load_json(path, "Manifest")
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"Manifest {path} does not exist.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"Manifest {path} cannot be read: {error}.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}" if mark is not None else ""
        raise DataError(f"Manifest {path} is not YAML{place}.") from error


def load_manifest(path: Path) -> Manifest:
    """Read a manifest of samples and find every file it names.

    Raises `DataError` for a missing file (entry number, path, places looked), an ambiguous path, a foreign document.
    """
    return parse_manifest(path, load_document(path))


def parse_manifest(path: Path, document: Any, refuse: Callable[[DataError], None] | None = None) -> Manifest:
    """The manifest at `path` whose content is `document`.

    An entry that cannot be used raises `DataError`; with `refuse`, it is handed the error and the entry is left out.
    """
    metadata, rows = _rows(path, document)
    bases = search_bases(path, metadata)
    entries: list[Entry] = []
    rejected: list[int] = []
    duplicates: list[int] = []
    seen: set[Path] = set()
    for number, row in enumerate(rows, start=1):
        try:
            fields = _fields(path, number, row)
            if fields.get("accepted", True) is False:
                rejected.append(number)
                continue
            entry = _entry(path, number, fields, bases)
        except DataError as error:
            if refuse is None:
                raise
            refuse(error)
            continue
        if entry.sample.resolve() in seen:
            duplicates.append(number)
            continue
        seen.add(entry.sample.resolve())
        entries.append(entry)
    if not entries:
        raise DataError(f"Manifest {path} leaves no sample: {len(rows)} entries, {len(rejected)} rejected.")
    return Manifest(path, metadata, tuple(entries), tuple(rejected), tuple(duplicates))


def resolve(manifest: Path, number: int, name: str, bases: Sequence[Path]) -> Path:
    """The one file an entry means, relative to any of `bases`."""
    given = Path(name)
    found = [base / given for base in bases if (base / given).is_file()]
    if not found:
        places = ", ".join(str(base) for base in bases[:2]) + (" and above" if len(bases) > 2 else "")
        raise DataError(
            f"{manifest}, entry {number}: {name} does not exist (looked in {places}). {RECAPTURE}"
        )
    others = [path for path in found[1:] if not path.samefile(found[0]) and not _same_bytes(path, found[0])]
    if others:
        raise DataError(
            f"{manifest}, entry {number}: {name} means two different files, {found[0]} and {others[0]}. "
            f"Move the manifest or write the path so that it means one."
        )
    return found[0]


def search_bases(manifest: Path, metadata: Mapping[str, Any]) -> list[Path]:
    """Where a manifest's relative paths may start.

    Ours count from the manifest. Townlet's count from there, from the working directory or from the root of the
    repository they were made in, so those are looked for in the working directory and in every directory above.
    """
    here = manifest.resolve().parent
    if metadata.get("format") == FORMAT:
        return [here]
    return list(dict.fromkeys([here, Path.cwd(), *here.parents]))


def _same_bytes(one: Path, other: Path) -> bool:
    return one.stat().st_size == other.stat().st_size and sha256_of(one) == sha256_of(other)


def encode_manifest(metadata: Mapping[str, Any], body: Mapping[str, Any]) -> bytes:
    """Our dialect: `metadata` with the format in it, then `samples` or `arrays` and `episodes`."""
    document = {"metadata": {"format": FORMAT, "format_version": FORMAT_VERSION, **metadata}, **body}
    return (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def check_format(path: Path, metadata: Mapping[str, Any]) -> None:
    """Refuse a capture of ours written by a later release."""
    version = metadata.get("format_version")
    if metadata.get("format") == FORMAT and version != FORMAT_VERSION:
        raise DataError(
            f"Manifest {path} has format version {version!r}; this release reads {FORMAT_VERSION}. "
            f"Update townlet-train or capture it again."
        )


def _rows(path: Path, document: Any) -> tuple[Mapping[str, Any], list[Any]]:
    """The metadata and the raw entries of any dialect."""
    if isinstance(document, list):
        return {}, document
    if isinstance(document, dict) and isinstance(document.get("samples"), list):
        metadata = document.get("metadata") or {}
        if not isinstance(metadata, dict):
            raise DataError(
                f"Manifest {path}: `metadata` is a {type(metadata).__name__}; expected an object."
            )
        check_format(path, metadata)
        return metadata, document["samples"]
    raise DataError(
        f"Manifest {path} is {_foreign(document)}; expected a list of samples or an object with `samples`."
    )


def _foreign(document: Any) -> str:
    """What a document that is no manifest seems to be."""
    if isinstance(document, dict):
        inner = [value for value in document.values() if isinstance(value, dict)]
        manifests = [str(value["manifest"]) for value in inner if "manifest" in value]
        if manifests:
            return f"a catalogue of datasets (their manifests: {', '.join(manifests)})"
        if inner and all("sha256" in value for value in inner):
            return "a table of checksums"
        return "an object without `samples`"
    return "empty" if document is None else f"a {type(document).__name__}"


def _fields(path: Path, number: int, row: Any) -> Mapping[str, Any]:
    if isinstance(row, str):
        return {"sample": row}
    if not isinstance(row, dict) or not isinstance(row.get("sample"), str):
        raise DataError(
            f"{path}, entry {number}: expected a path or an object with `sample`, got {row!r:.80}."
        )
    accepted = row.get("accepted", True)
    if not isinstance(accepted, bool):
        raise DataError(f"{path}, entry {number}: `accepted` is {accepted!r}; expected true or false.")
    return row


def _entry(path: Path, number: int, fields: Mapping[str, Any], bases: Sequence[Path]) -> Entry:
    sample = resolve(path, number, fields["sample"], bases)
    meta = fields.get("meta")
    if meta is None:
        return Entry(number, sample, sample.with_suffix(".json"))
    if not isinstance(meta, str):
        raise DataError(f"{path}, entry {number}: `meta` is a {type(meta).__name__}; expected a path.")
    return Entry(number, sample, resolve(path, number, meta, bases))
