"""What a gate judges: episode returns and events of one policy, from an evaluation or from its JSON."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_train.errors import UsageError
from townlet_train.results import EvaluationDTO
from townlet_train.services.documents import check_version

Values = NDArray[np.float64]
LARGEST = 1e100  # squares of what is larger are no numbers
EXPECTED = '{"episode_returns": [...], "seeds": [...]} as `townlet-train evaluate --json` prints it'
PER_10K = 10.0  # `events` in JSON are per 1 000 agent-ticks, the gate's rates per 10 000


@dataclass(frozen=True)
class Measured:
    """One policy's episodes; one that is damaged has `problems` instead."""

    name: str
    seeds: tuple[int, ...] = ()
    returns: Values = field(default_factory=lambda: np.empty(0))  # (n,)
    events: Mapping[str, Values] = field(default_factory=dict)  # (n,) each: per 10 000 agent-ticks
    rates_only: bool = False  # events are one rate for all episodes, so nothing is known of their spread
    sha256: str | None = None
    env: str | None = None
    problems: tuple[str, ...] = ()
    deterministic: bool | None = None  # None: not known, or it makes no difference to the policy

    def first(self, n: int) -> Measured:
        """The first n episodes."""
        events = {name: values[:n] for name, values in self.events.items()}
        return replace(self, seeds=self.seeds[:n], returns=self.returns[:n], events=events)


def read_returns(path: Path) -> Measured:
    """Episodes from a JSON file as `evaluate --json` writes it.

    Raises:
        UsageError: it is no such file; one sentence says what is wrong where.
    """
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON ({error}); expected {EXPECTED}.") from error
    if not isinstance(document, dict):
        raise UsageError(f"{path} holds no JSON object; expected {EXPECTED}.")
    check_version(document, EvaluationDTO, str(path))
    returns = _numbers(path, document, "episode_returns")
    seeds = _seeds(path, document)
    if len(seeds) != len(returns):
        raise UsageError(f"{path} has {len(returns)} episode_returns and {len(seeds)} seeds; each has one.")
    rates = _rates(path, document)
    env = document.get("env")
    return Measured(
        name=str(path),
        seeds=seeds,
        returns=returns,
        events={name: np.full(len(returns), PER_10K * rate) for name, rate in rates.items()},
        rates_only=True,
        env=env if isinstance(env, str) else None,
        deterministic=_deterministic(path, document),
    )


def check_comparable(candidate: Measured, release: Measured | None, fewest: int) -> None:
    """Raise `UsageError` when episodes are too few, repeat a seed, or are not the release's."""
    for measured in (candidate, *([release] if release is not None else [])):
        [(seed, times), *_] = Counter(measured.seeds).most_common(1) or [(0, 0)]
        if times > 1:
            raise UsageError(f"{measured.name} has seed {seed} {times} times; a seed is one episode.")
        if len(measured.seeds) < fewest:
            raise UsageError(
                f"{measured.name} has {counted(len(measured.seeds), 'episode')}, a gate needs at least {fewest}."
            )
        if not np.isfinite(measured.returns).all():
            index = int(np.flatnonzero(~np.isfinite(measured.returns))[0])
            raise UsageError(f"{measured.name}, episode_returns[{index}] is not a finite number.")
        if np.abs(measured.returns).max() > LARGEST:
            raise UsageError(
                f"{measured.name} has episode_returns beyond {LARGEST:g}, which cannot be computed with."
            )
    if release is None:
        return
    if candidate.env is not None and release.env is not None and candidate.env != release.env:
        raise UsageError(
            f"{candidate.name} is of {candidate.env!r} and {release.name} of {release.env!r}; a gate compares "
            f"within one environment."
        )
    if {candidate.deterministic, release.deterministic} == {True, False}:
        greedy, sampled = (candidate, release) if candidate.deterministic else (release, candidate)
        raise UsageError(
            f"{greedy.name} was evaluated with the most probable actions and {sampled.name} with sampled ones; a gate "
            f"compares like with like. Evaluate both with --sampled, or both with --deterministic."
        )
    if candidate.seeds == release.seeds:
        return
    apart = set(candidate.seeds) ^ set(release.seeds)
    if apart:
        raise UsageError(
            f"{candidate.name} and {release.name} have different seeds ({len(apart)} are in one alone, first "
            f"{min(apart)}). Evaluate both on the same ones."
        )
    raise UsageError(
        f"{candidate.name} and {release.name} have the same seeds in another order, and episodes are paired by their "
        f"place. Evaluate both with the same --seed and --episodes, or sort the seeds of each, and its returns alike."
    )


def counted(n: int, what: str) -> str:
    """A number of things.

    >>> counted(1, "episode"), counted(2, "episode")
    ('1 episode', '2 episodes')
    """
    return f"{n} {what}{'' if n == 1 else 's'}"


def _numbers(path: Path, document: Mapping[str, Any], key: str) -> Values:
    values = _list(path, document, key)
    for index, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UsageError(f"{path}, {key}[{index}] is {_shown(value)}, expected a finite number.")
    return np.array(values, np.float64)


def _seeds(path: Path, document: Mapping[str, Any]) -> tuple[int, ...]:
    seeds = _list(path, document, "seeds")
    for index, seed in enumerate(seeds):
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise UsageError(f"{path}, seeds[{index}] is {_shown(seed)}, expected a whole number.")
    return tuple(seeds)


def _rates(path: Path, document: Mapping[str, Any]) -> dict[str, float]:
    rates = document.get("events", {})
    if not isinstance(rates, dict):
        raise UsageError(f"{path}, events is {_shown(rates)}, expected rates by name.")
    for name, rate in rates.items():
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not math.isfinite(rate) or rate < 0:
            raise UsageError(f"{path}, events.{name} is {_shown(rate)}, expected a rate of at least 0.")
    return dict(rates)


def _deterministic(path: Path, document: Mapping[str, Any]) -> bool | None:
    """Whether a checkpoint's most probable actions were taken; a scripted policy has but one way to act."""
    found, policy = document.get("deterministic"), document.get("policy")
    if found is not None and not isinstance(found, bool):
        raise UsageError(f"{path}, deterministic is {_shown(found)}, expected true or false.")
    return None if isinstance(policy, str) and may_be_scripted(Path(policy)) else found


def may_be_scripted(policy: Path) -> bool:
    """Whether it reads as the name of a scripted policy: neither in a folder nor with an ending."""
    return policy.suffix == "" and len(policy.parts) == 1


def _list(path: Path, document: Mapping[str, Any], key: str) -> Sequence[Any]:
    if key not in document:
        raise UsageError(f"{path} lacks {key!r}; expected {EXPECTED}.")
    values = document[key]
    if not isinstance(values, list):
        raise UsageError(f"{path}, {key} is {_shown(values)}, expected a list.")
    return values


def _shown(value: object) -> str:
    return f"{json.dumps(value):.60}"
