"""Manifests: which recordings make up a dataset, in Townlet's three dialects and our own.

Dialects: a list of sample paths; a list of objects with `sample`; an object with `metadata` and `samples`. Ours is the
third, with a `format` in its metadata; a large capture names `arrays` where the others name `samples`. Nothing is left
out in silence: rejected entries are counted, a missing file is an error, a path that means two files is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from townlet_train.data.schema import CaptureMetadata, SampleRow, check_document, check_format
from townlet_train.data.storage import load_json
from townlet_train.errors import DataError
from townlet_train.files import PARTIAL, sha256_of

SUFFIX = "_manifest.json"
METRICS_SUFFIX = "_metrics.json"  # what lies beside the samples of a capture
FORMAT = "townlet-train/capture"
FORMAT_VERSION = 1
FORMAT_KEYS = ("format", "format_version")  # stand first in every manifest of ours
RECAPTURE = "Capture it again or remove the entry."


@dataclass(frozen=True)
class Entry:
    """One sample of a dataset, its paths resolved."""

    number: int  # as counted in the manifest, from 1
    sample: Path
    metadata: Path
    sample_sha256: str | None = None  # of the bytes that were captured; None where the manifest does not say
    metadata_sha256: str | None = None

    def check_sums(self) -> Iterator[str]:
        """One sentence for each file whose bytes are not those that were captured."""
        for path, expected in ((self.sample, self.sample_sha256), (self.metadata, self.metadata_sha256)):
            if expected is not None and path.is_file() and sha256_of(path) != expected:
                yield f"{path}: the bytes are not those that were captured (sha256 differs)."


@dataclass(frozen=True)
class Manifest:
    """What a manifest says, with every path found on this machine."""

    path: Path
    metadata: Mapping[str, Any]
    capture: CaptureMetadata | None  # what it says of the capture it is of, when that is one of ours
    entries: tuple[Entry, ...]
    rejected: tuple[int, ...] = ()  # numbers of entries marked `accepted: false`
    duplicates: tuple[int, ...] = ()  # numbers of entries naming a sample an earlier one named; left out


def find_manifest(directory: Path) -> Path:
    """The one manifest of a capture directory."""
    if directory.name.endswith(PARTIAL):
        raise DataError(f"{directory} was left by a capture that was killed. Delete it and capture again.")
    found = sorted(directory.glob(f"*{SUFFIX}"))
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(path.name for path in found)
        raise DataError(f"{directory} holds {len(found)} manifests ({names}). Name the one you mean.")
    others = ", ".join(path.name for path in sorted(directory.glob("*.json")) if _looks_like_manifest(path))
    what_to_name = (
        f"Name one of the manifests inside it: {others}." if others else "Name a manifest or a sample."
    )
    raise DataError(f"{directory} holds no *{SUFFIX}. {what_to_name}")


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


def parse_manifest(path: Path, document: Any, refuse: Callable[[DataError], None] | None = None) -> Manifest:
    """The manifest at `path` whose content is `document`, with every file it names found.

    Raises `DataError` for a missing file (entry number, path, places looked), an ambiguous path, a foreign document.
    With `refuse`, an entry that cannot be used is left out and its error handed over.
    """
    metadata, rows = _rows(path, document)
    capture = None
    if check_format(metadata, FORMAT, FORMAT_VERSION, path):
        capture = check_document(CaptureMetadata, metadata, f"Manifest {path}, `metadata`")
    bases = [path.resolve().parent] if capture is not None else search_bases(path)
    entries: list[Entry] = []
    rejected: list[int] = []
    duplicates: list[int] = []
    seen: set[Path] = set()
    for number, row in enumerate(rows, start=1):
        try:
            fields = _fields(path, number, row)
            if not fields.accepted:
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
    return Manifest(path, metadata, capture, tuple(entries), tuple(rejected), tuple(duplicates))


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


def search_bases(manifest: Path) -> list[Path]:
    """Where the relative paths of a manifest that is not ours may start; ours count from the manifest.

    Townlet's count from there, from the working directory or from the root of the repository they were made in, so
    those are looked for in the working directory and in every directory above.
    """
    here = manifest.resolve().parent
    return list(dict.fromkeys([here, Path.cwd(), *here.parents]))


def names_of_capture(manifest: Path) -> set[str]:
    """What a capture of ours wrote beside its manifest, that and its parts included, by name; nothing if not ours."""
    document = _ours(manifest)
    if document is None:
        return set()
    prefix = manifest.name.removesuffix(SUFFIX)
    named = _files_of(document) | {manifest.name, f"{prefix}{METRICS_SUFFIX}"}
    others = [path for path in manifest.parent.glob("*.json") if path.name not in named]
    return named | {path.name for path in others if _is_part(path, named)}


def _is_part(path: Path, named: set[str]) -> bool:
    """Whether a manifest is what a split wrote of those files, and of no other."""
    document = _ours(path)
    return document is not None and "split" in document["metadata"] and _files_of(document) <= named


def _ours(manifest: Path) -> dict[str, Any] | None:
    """A manifest in our dialect; None where it is none."""
    try:
        document = load_document(manifest)
    except DataError:
        return None
    metadata = document.get("metadata") if isinstance(document, dict) else None
    return document if isinstance(metadata, dict) and metadata.get("format") == FORMAT else None


def _files_of(document: Mapping[str, Any]) -> set[str]:
    """Every file that a manifest in our dialect names, as it names it."""
    arrays, samples = document.get("arrays"), document.get("samples")
    rows = [
        document.get("final_features"),
        *(arrays.values() if isinstance(arrays, dict) else ()),
        *(samples if isinstance(samples, list) else ()),
    ]
    named = {row.get(key) for row in rows if isinstance(row, dict) for key in ("file", "sample", "meta")}
    return {name for name in named if isinstance(name, str)}


def _same_bytes(one: Path, other: Path) -> bool:
    return one.stat().st_size == other.stat().st_size and sha256_of(one) == sha256_of(other)


def encode_manifest(metadata: Mapping[str, Any], body: Mapping[str, Any]) -> bytes:
    """Our dialect: `metadata` with the format in it, then `samples` or `arrays` and `episodes`."""
    format_of = dict(zip(FORMAT_KEYS, (FORMAT, FORMAT_VERSION), strict=True))
    document = {"metadata": {**format_of, **metadata}, **body}
    return (json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


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


def _looks_like_manifest(path: Path) -> bool:
    """Whether a JSON file names samples or arrays; the metadata of a sample beside it is not opened."""
    if path.with_suffix(".npz").exists():
        return False
    try:
        document = load_document(path)
    except DataError:
        return False
    if isinstance(document, dict):
        return isinstance(document.get("samples"), list) or "arrays" in document
    return isinstance(document, list)


def _fields(path: Path, number: int, row: Any) -> SampleRow:
    if isinstance(row, str):
        return SampleRow(sample=row)
    if not isinstance(row, dict) or not isinstance(row.get("sample"), str):
        raise DataError(
            f"{path}, entry {number}: expected a path or an object with `sample`, got {row!r:.80}."
        )
    return check_document(SampleRow, row, f"{path}, entry {number}")


def _entry(path: Path, number: int, row: SampleRow, bases: Sequence[Path]) -> Entry:
    sample = resolve(path, number, row.sample, bases)
    metadata = sample.with_suffix(".json") if row.meta is None else resolve(path, number, row.meta, bases)
    return Entry(number, sample, metadata, row.sha256, row.meta_sha256)
