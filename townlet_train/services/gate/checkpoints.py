"""Candidates and release played on the gate's seeds, and judged."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np

from townlet_train.config import GateSettings, RunConfig
from townlet_train.data.checkpoint import load_checkpoint
from townlet_train.envs.build import build_env
from townlet_train.envs.episodes import Report, run_episodes
from townlet_train.envs.processes import Processes
from townlet_train.envs.protocol import VectorEnv
from townlet_train.errors import CheckpointError, UsageError
from townlet_train.files import sha256_of
from townlet_train.policies.experts import EXPERTS, Experts
from townlet_train.policies.network import NetworkPolicy
from townlet_train.policies.protocol import Policy
from townlet_train.policies.scripted import scripted_policy
from townlet_train.results import GateDTO
from townlet_train.services.evaluation import MOST_ENVS
from townlet_train.services.gate.blocks import block_name, block_seeds, check_block_unseen
from townlet_train.services.gate.integrity import (
    NO_CHECKS,
    GateChecks,
    check_is_file,
    inspect_candidate,
    integrity_problems,
)
from townlet_train.services.gate.judge import FIRST_LOOK, best_of, judge_all, judge_sequentially
from townlet_train.services.gate.measured import Measured, may_be_scripted

LOOK_EVERY = 16  # pairs that a sequential gate plays between looks


class Player(NamedTuple):
    """A policy that may be played, or what is wrong with it."""

    name: str
    policy: Policy | None
    sha256: str | None = None
    problems: tuple[str, ...] = ()


def gate_checkpoints(
    config: RunConfig,
    candidates: Sequence[Path],
    release: str | Path | None,
    *,
    sequential: bool = False,
    report: Report = lambda done, total: None,
    experts: Experts = EXPERTS,
    checks: GateChecks = NO_CHECKS,
    processes: Processes | None = None,
) -> GateDTO:
    """The verdict on candidates beside a release, a checkpoint or a scripted policy's name, in `config.env`.

    What one of `checks` objects to in a candidate is a reason to FAIL.

    Raises:
        UsageError: a candidate is named twice, or is one of several and the release itself; there is nothing to compare
            with, or seeds that select are the gate's.
        CheckpointError: a file is missing, the only candidate is no checkpoint, or the release is damaged or of another
            environment.
    """
    _check_named(candidates, release)
    check_block_unseen(config)
    n_envs = min(config.gate.episodes, LOOK_EVERY if sequential else MOST_ENVS)
    with closing(build_env(config, n_envs, n_workers=None, processes=processes)) as env:
        settings = with_threshold_of(env, config.gate, release)
        alone = len(candidates) == 1
        players = [_candidate(path, env, config, checks, alone=alone) for path in candidates]
        reference = None if release is None else _release(release, env, config, experts)
        if sequential:
            return _play_sequentially(players, reference, env, settings, report)
        playing = [player for player in (*players, reference) if player is not None and not player.problems]
        seeds = block_seeds(settings)
        measured = {
            player.name: measure(player, env, seeds, _part(index, len(playing), report))
            for index, player in enumerate(playing)
        }
        judged = [measured.get(player.name, _unplayed(player, env)) for player in players]
        verdict = judge_all(judged, None if reference is None else measured[reference.name], settings)
    if verdict.candidate_sha256 is None or verdict.candidate_sha256 != verdict.release_sha256:
        return verdict
    same = "Candidate and release are the same file, byte for byte, so this says nothing of a better one."
    return verdict.model_copy(update={"reasons": (same, *verdict.reasons)})


def evaluate_pair(
    config: RunConfig,
    candidate: Path,
    release: str | Path,
    *,
    report: Report = lambda done, total: None,
    experts: Experts = EXPERTS,
    checks: GateChecks = NO_CHECKS,
) -> tuple[Measured, Measured]:
    """Candidate and release measured on the same seeds of the gate's block; `judge` says what follows.

    A candidate that one of `checks` objects to is not played; that it failed is among what was measured.

    Raises:
        CheckpointError: as `gate_checkpoints`.
    """
    _check_named([candidate], release)
    with closing(build_env(config, min(config.gate.episodes, MOST_ENVS), n_workers=None)) as env:
        ours, theirs = _candidate(candidate, env, config, checks), _release(release, env, config, experts)
        seeds = block_seeds(config.gate)
        first = _unplayed(ours, env) if ours.problems else measure(ours, env, seeds, _part(0, 2, report))
        return first, measure(theirs, env, seeds, _part(1, 2, report))


def measure(
    player: Player, env: VectorEnv, seeds: Sequence[int], report: Report = lambda done, total: None
) -> Measured:
    """One policy's episodes, with events per 10 000 agent-ticks of each.

    Raises:
        UsageError: it has problems, and so may not be played.
    """
    if player.policy is None:
        raise UsageError(f"{player.name} cannot be played: {' '.join(player.problems)}")
    episodes = run_episodes(player.policy.act, env, seeds, report)
    per_10k = 10_000 / (episodes.lengths * env.n_agents)
    return Measured(
        name=player.name,
        seeds=tuple(seeds),
        returns=episodes.returns.mean(axis=1),
        events={name: counts * per_10k for name, counts in episodes.events.items()},
        sha256=player.sha256,
        env=env.spec.env_id,
    )


def with_threshold_of(env: VectorEnv, settings: GateSettings, release: str | Path | None) -> GateSettings:
    """A first release, with nothing to compare with, must reach the return at which the environment is solved."""
    if release is not None or settings.threshold is not None:
        return settings
    return settings.model_copy(update={"threshold": env.spec.reward_threshold})


def _play_sequentially(
    players: Sequence[Player],
    reference: Player | None,
    env: VectorEnv,
    settings: GateSettings,
    report: Report,
) -> GateDTO:
    """Pairs are played a few at a time until every candidate is decided or the episodes are used up."""
    if reference is None:
        raise UsageError("A sequential gate compares signs, so it needs a release: name one with --against.")
    if settings.episodes < FIRST_LOOK:
        raise UsageError(
            f"A sequential gate looks from {FIRST_LOOK} episodes on, {settings.episodes} were asked for."
        )
    seeds, level = block_seeds(settings), settings.alpha / len(players)
    open_cases = {player.name: _unplayed(player, env) for player in players}
    verdicts: dict[str, GateDTO] = {}
    released = _unplayed(reference, env)
    playing = {player.name: player for player in players}
    for start in range(0, len(seeds), LOOK_EVERY):
        block = seeds[start : start + LOOK_EVERY]
        released = _joined(released, measure(reference, env, block))
        for name, so_far in list(open_cases.items()):
            if not so_far.problems:
                open_cases[name] = so_far = _joined(so_far, measure(playing[name], env, block))
                if len(so_far.seeds) < FIRST_LOOK:
                    continue
            verdicts[name] = judge_sequentially(so_far, released, settings, level=level)
            if verdicts[name].verdict != "HOLD":
                del open_cases[name]
        report(start + len(block), len(seeds))
        if not open_cases:
            break
    return best_of([verdicts[player.name] for player in players])


def _check_named(candidates: Sequence[Path], release: str | Path | None) -> None:
    """Refuse, before anything is built, files that are not there and candidates that nobody needs to judge."""
    if len({path.resolve() for path in candidates}) < len(candidates):
        raise UsageError("A candidate is named twice; each is judged once.")
    released = None if release is None or _is_scripted(release) else Path(release)
    for path in (*candidates, *([] if released is None else [released])):
        check_is_file(path)
    if released is None or len(candidates) == 1:
        return
    of_release = sha256_of(released)
    for path in candidates:
        if sha256_of(path) == of_release:
            raise UsageError(
                f"{path} and the release {released} are the same file, byte for byte, and beside other candidates it "
                f"would only share their alpha. Leave it out."
            )


def _is_scripted(release: str | Path) -> bool:
    """Whether a scripted policy is meant; a file wins over one of that name."""
    return isinstance(release, str) and not Path(release).exists() and may_be_scripted(Path(release))


def _candidate(
    path: Path, env: VectorEnv, config: RunConfig, checks: GateChecks = NO_CHECKS, *, alone: bool = True
) -> Player:
    found = inspect_candidate(path, env.spec, block_seeds(config.gate), block_name(config.gate), alone=alone)
    if found.checkpoint is None or found.problems:
        return Player(str(path), None, found.sha256, found.problems)
    objections = tuple(said for check in checks.values() for said in check(found.checkpoint))
    if objections:
        return Player(str(path), None, found.sha256, objections)
    deterministic = config.evaluation.deterministic
    policy = NetworkPolicy(found.checkpoint, deterministic=deterministic, name=str(path))
    return Player(str(path), policy, found.sha256)


def _release(release: str | Path, env: VectorEnv, config: RunConfig, experts: Experts) -> Player:
    """The policy to compare with."""
    path = Path(release)
    if _is_scripted(release):
        return Player(str(release), scripted_policy(str(release), env.spec, experts))
    checkpoint = load_checkpoint(path)
    checkpoint.info.check_matches(env.spec)
    problems = integrity_problems(checkpoint, env.spec, block_seeds(config.gate), block_name(config.gate))
    if problems:
        raise CheckpointError(f"The release {path} cannot be compared with. {' '.join(problems)}")
    policy = NetworkPolicy(checkpoint, deterministic=config.evaluation.deterministic, name=str(path))
    return Player(str(path), policy, sha256_of(path))


def _unplayed(player: Player, env: VectorEnv) -> Measured:
    return Measured(player.name, sha256=player.sha256, env=env.spec.env_id, problems=player.problems)


def _joined(first: Measured, second: Measured) -> Measured:
    """Episodes of one policy, and more of them."""
    events = {
        name: np.concatenate([first.events.get(name, np.empty(0)), values])
        for name, values in second.events.items()
    }
    return Measured(
        name=first.name,
        seeds=first.seeds + second.seeds,
        returns=np.concatenate([first.returns, second.returns]),
        events=events,
        sha256=first.sha256,
        env=first.env,
    )


def _part(index: int, n_parts: int, report: Report) -> Report:
    """A report of one of several equal parts as a report of the whole."""
    return lambda done, total: report(index * total + done, n_parts * total)
