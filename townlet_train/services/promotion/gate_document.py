"""What promotion takes from a gate's JSON document, as `townlet-train gate --json` prints it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from townlet_train.errors import UsageError
from townlet_train.results import GateDTO
from townlet_train.results.promotion import PromotionStatus
from townlet_train.services.documents import check_version
from townlet_train.services.promotion.protocol import PromotionCandidate

_SHA256 = re.compile(r"[0-9a-f]{64}")
VERDICTS = ("PASS", "HOLD", "FAIL")
EXPECTED = "Pass what `townlet-train gate --json` prints."


@dataclass(frozen=True)
class GateEvidence:
    """A verdict, whom it is about, and on which seeds and against which release it was found."""

    status: PromotionStatus
    candidate: PromotionCandidate
    seeds: tuple[int, ...]
    release_sha256: str | None


def read_gate_document(text: str, source: str) -> GateEvidence:
    """The evidence in what a gate printed; `source` names it in errors.

    Raises:
        UsageError: it is no JSON object, or not what `gate_evidence` needs.
    """
    try:
        document: Any = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{source} is not JSON ({error}). {EXPECTED}") from error
    if not isinstance(document, Mapping):
        raise UsageError(f"{source} is no JSON object. {EXPECTED}")
    return gate_evidence(document, source)


def gate_evidence(document: Mapping[str, Any], source: str = "The gate's document") -> GateEvidence:
    """The evidence in a gate's document; `source` names it in errors.

    Raises:
        UsageError: it does not say which verdict, on which seeds, about the bytes of which checkpoint; or it is of a
            newer version.
    """
    if "verdict" not in document:
        raise UsageError(f"{source} has no `verdict`, so no gate printed it. {EXPECTED}")
    check_version(document, GateDTO, source)
    verdict = document["verdict"]
    if verdict not in VERDICTS:
        raise UsageError(f"{source}: `verdict` is {verdict!r}, expected PASS, HOLD or FAIL. {EXPECTED}")
    if document.get("candidate_sha256") is None:
        raise UsageError(
            f"{source} has no `candidate_sha256`, so it is about returns and not about a checkpoint. "
            f"Gate the checkpoint itself."
        )
    return GateEvidence(
        status=cast("PromotionStatus", verdict),
        candidate=PromotionCandidate(
            Path(_text(document, "candidate", source)),
            _hash(document, "candidate_sha256", source),
            _scorecard(document),
        ),
        seeds=_seeds(document.get("seeds", ()), source),
        release_sha256=_hash(document, "release_sha256", source) if document.get("release_sha256") else None,
    )


def _text(document: Mapping[str, Any], name: str, source: str) -> str:
    value = document.get(name)
    if not isinstance(value, str) or not value:
        raise UsageError(f"{source}: `{name}` is {value!r}, expected a text.")
    return value


def _hash(document: Mapping[str, Any], name: str, source: str) -> str:
    value = _text(document, name, source)
    if not _SHA256.fullmatch(value):
        raise UsageError(f"{source}: `{name}` is {value!r}, expected a sha256 of 64 hex digits.")
    return value


def _seeds(value: Any, source: str) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or not all(type(seed) is int for seed in value):
        raise UsageError(f"{source}: `seeds` is no list of whole numbers.")
    return tuple(value)


def _scorecard(document: Mapping[str, Any]) -> dict[str, float | None]:
    """What was measured of the candidate: by criterion, or under `scorecard` where a document has one."""
    named = document.get("scorecard")
    if named is None:
        criteria = document.get("criteria") or ()
        named = {
            item.get("criterion"): item.get("candidate") for item in criteria if isinstance(item, Mapping)
        }
    if not isinstance(named, Mapping):
        return {}
    return {str(name): float(number) for name, number in named.items() if type(number) in (int, float)}
