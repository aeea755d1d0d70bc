"""What a policy earns: one fixed episode per seed, the same whatever other seeds are evaluated beside it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from townlet_train.config import RunConfig, flatten
from townlet_train.data.checkpoint import Checkpoint, Lineage, load_checkpoint
from townlet_train.envs.build import build_env
from townlet_train.envs.episodes import Episodes, Report, run_episodes
from townlet_train.envs.processes import Processes
from townlet_train.envs.protocol import VectorEnv
from townlet_train.envs.streams import stream
from townlet_train.errors import UsageError
from townlet_train.policies.experts import EXPERTS, Experts
from townlet_train.policies.network import NetworkPolicy
from townlet_train.policies.protocol import Policy
from townlet_train.policies.scripted import RandomPolicy, scripted_policy
from townlet_train.results import EvaluationDTO
from townlet_train.services.statistics import (
    bootstrap_interval,
    iqm,
    mean_estimate,
    resample_indices,
    studentise,
)

MOST_ENVS = 128
ONE_SIDED, BOUND_RESAMPLES = 0.05, 2_000
INTERVAL_SEED = 20251013  # the interval's resampling is fixed, so that equal returns give equal intervals


def evaluate(
    policy: Policy,
    env: VectorEnv,
    seeds: Sequence[int],
    *,
    deterministic: bool,
    report: Report = lambda done, total: None,
    warnings: Sequence[str] = (),
) -> EvaluationDTO:
    """Episode returns of `policy` on `seeds`, one episode each, as many at a time as `env` holds.

    The return of an episode is the mean over agent slots of the summed reward, across respawns. `report` hears, at
    every tick, what is done and to do, and may raise to stop.
    """
    episodes = run_episodes(policy.act, env, seeds, report)
    returns = episodes.returns.mean(axis=1)
    interval = bootstrap_interval(returns, stream(INTERVAL_SEED, "bootstrap"))
    thousands = float(episodes.lengths.sum()) * env.n_agents / 1000
    return EvaluationDTO(
        policy=policy.name,
        env=env.spec.env_id,
        deterministic=deterministic,
        seeds=tuple(seeds),
        episode_returns=tuple(returns.tolist()),
        episode_lengths=tuple(episodes.lengths.tolist()),
        mean=float(returns.mean()),
        iqm=iqm(returns),
        ci_low=interval.low,
        ci_high=interval.high,
        events={name: float(counts.sum()) / thousands for name, counts in episodes.events.items()},
        event_bounds=event_bounds(episodes, env.n_agents),
        warnings=tuple(warnings),
    )


def evaluate_as_configured(
    config: RunConfig,
    *,
    checkpoint: Path | None = None,
    scripted: str | None = None,
    report: Report = lambda done, total: None,
    experts: Experts = EXPERTS,
    processes: Processes | None = None,
) -> EvaluationDTO:
    """Evaluate one checkpoint or one scripted policy in `config.env` on the seeds of `config.evaluation`.

    The scripted policy "expert" is the environment's own among `experts`. Seeds the checkpoint was trained on give a
    warning. More than one process steps the environments only where `processes` keeps them, since starting one costs as
    much as short episodes.

    Raises:
        CheckpointError: it cannot be loaded, or was trained on other features or actions than the environment has.
        EnvironmentCreationError: the environment cannot be built.
        UsageError: neither is named.
    """
    wanted = config.evaluation
    seeds = range(wanted.seed, wanted.seed + wanted.episodes)
    n_workers = 1 if processes is None else None
    with closing(
        build_env(config, min(len(seeds), MOST_ENVS), n_workers=n_workers, processes=processes)
    ) as env:
        deterministic = wanted.deterministic
        policy: Policy
        if checkpoint is not None:
            loaded = load_checkpoint(checkpoint)
            loaded.info.check_matches(env.spec)
            policy = NetworkPolicy(loaded, deterministic=deterministic, name=str(checkpoint))
            warnings = (*warn_of_seen_seeds(loaded.info.lineage, seeds), *warn_of_other_rules(loaded, config))
        elif scripted is not None:
            policy, warnings = scripted_policy(scripted, env.spec, experts), ()
            deterministic = not isinstance(policy, RandomPolicy)
        else:
            raise UsageError("Name one thing to evaluate: a checkpoint or a scripted policy.")
        return evaluate(policy, env, seeds, deterministic=deterministic, report=report, warnings=warnings)


def warn_of_seen_seeds(lineage: Lineage, seeds: Sequence[int]) -> tuple[str, ...]:
    """A sentence when training saw some of `seeds`, so that the returns are not held-out ones."""
    seen = lineage.trained_on(seeds)
    if not seen:
        return ()
    return (
        f"{len(seen)} of {len(seeds)} evaluation seeds were trained on ({seen[0]} to {seen[-1]}), so these are no "
        f"held-out returns. Choose another --seed.",
    )


def warn_of_other_rules(checkpoint: Checkpoint, config: RunConfig) -> tuple[str, ...]:
    """A sentence when a town has other rules than the one the policy was trained in, as far as its checkpoint tells.

    An anneal pays other social rewards from stage to stage, which is no other town.
    """
    saved = checkpoint.state.get("config", {})
    if config.env != "town" or saved.get("env") != config.env:
        return ()
    trained_in, now = (dict(flatten(town)) for town in (saved["town"], config.town.model_dump(mode="json")))
    other = [key for key in now if key != "reward.social_stage" and now[key] != trained_in.get(key, now[key])]
    if not other:
        return ()
    first = f"town.{other[0]} is {now[other[0]]!r} and was {trained_in[other[0]]!r}"
    more = f", and {len(other) - 1} more differ" if len(other) > 1 else ""
    return (f"This town has other rules than the one the policy was trained in: {first}{more}.",)


def event_bounds(episodes: Episodes, n_agents: int) -> dict[str, tuple[float, float]]:
    """What each event's rate per 1 000 agent-ticks is above and below, bounded as the gate bounds it."""
    n = len(episodes.lengths)
    if n < 2:
        return {}
    indices = resample_indices(n, BOUND_RESAMPLES, stream(INTERVAL_SEED, "events"))
    thousands = episodes.lengths * n_agents / 1000
    found = {
        name: studentise(mean_estimate, counts / thousands, indices=indices)
        for name, counts in episodes.events.items()
    }
    return {name: (max(0.0, rate.low(ONE_SIDED)), rate.high(ONE_SIDED)) for name, rate in found.items()}
