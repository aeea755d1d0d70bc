"""Whether a checkpoint may be judged at all: whole, finite, for the same spaces, and ignorant of the gate's seeds."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from townlet_train.data.checkpoint import MANIFEST, Checkpoint, Spaces, load_checkpoint, task_of
from townlet_train.errors import CheckpointError
from townlet_train.files import sha256_of
from townlet_train.policies.network import FEATURE_MEAN, FEATURE_STD, NetworkPolicy

GateChecks = Mapping[str, Callable[[Checkpoint], Iterable[str]]]  # of plugins, by name: what they object to
NO_CHECKS: GateChecks = MappingProxyType({})


class Inspected(NamedTuple):
    """A candidate's checkpoint as far as it can be read, and what is wrong with it."""

    path: Path
    sha256: str
    checkpoint: Checkpoint | None
    problems: tuple[str, ...]


def inspect_candidate(
    path: Path, spaces: Spaces, seeds: Sequence[int], block: str, *, alone: bool = True
) -> Inspected:
    """Read a candidate and find what is wrong with it; a problem is a reason to FAIL.

    Raises:
        CheckpointError: there is no file; or the only candidate is no checkpoint of ours: no archive, or another
            program's.
    """
    check_is_file(path)
    if alone:
        _check_is_ours(path)
    digest = sha256_of(path)
    try:
        checkpoint = load_checkpoint(path)
    except CheckpointError as error:
        return Inspected(path, digest, None, (str(error),))
    problems = integrity_problems(checkpoint, spaces, seeds, block)
    return Inspected(path, digest, checkpoint, problems)


def integrity_problems(
    checkpoint: Checkpoint, spaces: Spaces, seeds: Sequence[int], block: str
) -> tuple[str, ...]:
    """What is wrong with a checkpoint that can be read, a sentence each."""
    problems = []
    trained_in, played = checkpoint.info.env_id, spaces.env_id
    if trained_in and played and task_of(trained_in) != task_of(played):
        return (
            f"It was trained in environment {trained_in!r}, and this gate plays {played!r}. Gate it by itself, with "
            f"--env {trained_in}, beside a release of that environment.",
        )
    for check in (lambda: checkpoint.info.check_matches(spaces), lambda: NetworkPolicy(checkpoint)):
        try:
            check()
        except CheckpointError as error:
            problems.append(str(error))
    problems += _normaliser_problems(checkpoint)
    for name, array in sorted(checkpoint.weights.items()):
        if not problems and np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            problems.append(f"The checkpoint's array {name!r} holds numbers that are not finite.")
    seen = checkpoint.info.lineage.trained_on(seeds)
    if seen:
        problems.append(
            f"It was trained on {len(seen)} of the {len(seeds)} seeds of block {block} ({seen[0]} to {seen[-1]}), so "
            f"its returns there are not held-out ones; choose another --block."
        )
    return tuple(problems)


def _normaliser_problems(checkpoint: Checkpoint) -> list[str]:
    std = checkpoint.weights.get(FEATURE_STD)
    if std is None or FEATURE_MEAN not in checkpoint.weights or not np.isfinite(std).all():
        return []  # `NetworkPolicy` has said so
    if (std <= 0).any():
        index = int(np.flatnonzero(std <= 0)[0])
        return [f"The normaliser's deviation of feature {index} is {std[index]:g}, expected more than 0."]
    return []


def check_is_file(path: Path) -> None:
    """Raise as `load_checkpoint` does where there is no file to read."""
    if not path.is_file():
        load_checkpoint(path)


def _check_is_ours(path: Path) -> None:
    """Raise as `load_checkpoint` does where there is no archive with a manifest; one that is damaged may pass."""
    try:
        with zipfile.ZipFile(path) as archive:
            ours = MANIFEST in archive.namelist()
    except (OSError, zipfile.BadZipFile, NotImplementedError):
        ours = False
    if not ours:
        load_checkpoint(path)
