"""Capture: let a policy act in an environment and leave behind what it saw, did and got."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from townlet_train.config import RunConfig, TownConfig, config_hash
from townlet_train.data.episodes import EpisodeSpan, episodes_ended
from townlet_train.data.landing import check_output, check_room, leftovers, sole_writer
from townlet_train.data.layout import Layout, describe_bounds, within_bounds
from townlet_train.data.metrics import action_metrics, entropy
from townlet_train.data.plan import CapturePlan
from townlet_train.data.sample_writer import SampleWriter
from townlet_train.data.store_writer import StoreWriter, store_bytes
from townlet_train.envs.build import build_env
from townlet_train.envs.episodes import Report
from townlet_train.envs.protocol import Actions, EnvSpec, Step, VectorEnv, episodes_over
from townlet_train.envs.streams import policy_uniforms
from townlet_train.errors import DataError, UsageError
from townlet_train.files import atomic_directory
from townlet_train.policies.experts import EXPERTS, Experts
from townlet_train.policies.protocol import Policy
from townlet_train.results import RolloutCaptureDTO

StoreName = Literal["npz", "memmap"]

STUB_POLICIES = ("idle",)
REPORTS = 1000


class Writer(Protocol):
    """Where a capture goes, tick by tick."""

    @property
    def episodes(self) -> list[EpisodeSpan]: ...

    def append_decision(
        self,
        *,
        features: NDArray[Any],
        maps: NDArray[Any],
        action_mask: NDArray[Any],
        actions: NDArray[Any],
    ) -> None: ...

    def append_outcome(
        self,
        *,
        rewards: NDArray[Any],
        terminated: NDArray[Any],
        truncated: NDArray[Any],
        final_features: Mapping[int, NDArray[Any]],
    ) -> None: ...

    def finish(self, metadata: Mapping[str, Any]) -> Path: ...

    def close(self) -> None: ...


class RolloutCaptureService:
    """Captures rollouts. `config_sha256` goes into every manifest, so that a dataset can be told from another."""

    def __init__(self, config_sha256: str | None = None) -> None:
        self._config_sha256 = config_sha256

    def capture(
        self,
        env: VectorEnv,
        policy: Policy,
        *,
        ticks: int,
        seeds: Sequence[int],
        output: Path,
        store: StoreName = "npz",
        compress: bool = True,
        prefix: str = "rollout_sample",
        with_maps: bool = True,
        overwrite: bool = False,
        report: Report | None = None,
    ) -> RolloutCaptureDTO:
        """Step every environment `ticks` times from its own seed and write the whole capture to `output`, or nothing.

        Raises:
            UsageError: no ticks, no agents, seeds that do not fit, or an output directory that is in use.
            DataError: the disk has no room for it, or it could not be written.
        """
        _check_arguments(env, ticks, seeds, prefix)
        with sole_writer(output):
            check_output(output, overwrite=overwrite)
            layout = layout_of(env.spec)
            plan = CapturePlan(
                layout=layout,
                seeds=tuple(int(seed) for seed in seeds),
                n_agents=env.n_agents,
                n_steps=ticks,
                prefix=prefix,
                with_maps=with_maps and 0 not in layout.map_shape,
                compress=compress,
            )
            if store == "memmap":
                check_room(output, store_bytes(plan))
            started = time.perf_counter()
            tally = Tally(env)
            try:
                with atomic_directory(output) as directory:
                    writer = (
                        StoreWriter(directory, plan) if store == "memmap" else SampleWriter(directory, plan)
                    )
                    with closing(writer):
                        record(env, policy, writer, tally, plan, report)
                        manifest = writer.finish(self._metadata(env, policy, plan, tally))
                    check_output(output, overwrite=overwrite)  # again, for a capture takes its time
                    size = sum(path.stat().st_size for path in directory.iterdir())
            except OSError as error:
                raise DataError(
                    f"The capture could not be written to {output}: {error}. Nothing was left there."
                ) from error
        duration = time.perf_counter() - started
        return RolloutCaptureDTO(
            warnings=tuple(_warnings(policy, output, tally)),
            output=str(output),
            manifest=str(output / manifest.name),
            store=store,
            env=env.spec.env_id,
            policy=policy.name,
            ticks=ticks,
            towns=env.n_envs,
            agents=env.n_agents,
            frames=plan.n_frames,
            seeds=plan.seeds,
            episodes=len(writer.episodes),
            complete_episodes=sum(episode.complete for episode in writer.episodes),
            terminations=tally.terminations,
            mean_episode_return=tally.mean_episode_return,
            reward_mean=tally.reward_sum / plan.n_frames,
            action_counts=dict(zip(env.spec.action_names, tally.actions.tolist(), strict=True)),
            action_entropy=entropy(tally.actions) if env.spec.action_names else None,
            illegal_actions=tally.illegal,
            events=event_totals(env),
            bytes=size,
            duration_sec=duration,
            agent_ticks_per_sec=plan.n_frames / duration,
        )

    def _metadata(self, env: VectorEnv, policy: Policy, plan: CapturePlan, tally: Tally) -> dict[str, Any]:
        """What the manifest says about the capture as a whole; nothing in it changes when it is captured again."""
        return {
            "env_id": plan.layout.env_id,
            "policy": policy.name,
            "ticks": plan.n_steps,
            "n_envs": plan.n_envs,
            "n_agents": plan.n_agents,
            "episode_ticks": env.spec.episode_ticks,
            "seeds": list(plan.seeds),
            "config_sha256": self._config_sha256,
            "feature_names": list(plan.layout.feature_names),
            "action_names": list(plan.layout.action_names),
            **describe_bounds(plan.layout),
            "map_channels": list(plan.layout.map_channels),
            "map_size": plan.layout.map_size,
            "maps": plan.with_maps,
            "events": event_totals(env),
            "metrics": tally.metrics(plan),
        }


def capture_as_configured(
    config: RunConfig,
    *,
    output: Path,
    policy: str = "expert",
    with_maps: bool = True,
    overwrite: bool = False,
    report: Report | None = None,
    experts: Experts = EXPERTS,
    suited: Mapping[str, Any] = MappingProxyType({}),
) -> RolloutCaptureDTO:
    """Capture a scripted policy in `config.env` as `config.rollout` says, seeds counting up from `config.seed`.

    Policy "expert" is the environment's own among `experts`. What is `suited` holds where `config.rollout` says what it
    says untold.
    """
    usual = type(config.rollout)()
    told = {
        name: value for name, value in suited.items() if getattr(config.rollout, name) == getattr(usual, name)
    }
    config = config.model_copy(update={"rollout": config.rollout.model_copy(update=told)})
    from townlet_train.policies.scripted import (
        scripted_policy,  # compiled rules, which no other run need load
    )

    check_output(output, overwrite=overwrite)
    run = populated(config)
    wanted = run.rollout
    with closing(build_env(run, wanted.towns)) as env:
        return RolloutCaptureService(config_sha256=config_hash(run)).capture(
            env,
            scripted_policy(policy, env.spec, experts),
            ticks=wanted.ticks,
            seeds=range(run.seed, run.seed + wanted.towns),
            output=output,
            store=wanted.store,
            compress=wanted.compress,
            prefix=wanted.prefix,
            with_maps=with_maps,
            overwrite=overwrite,
            report=report,
        )


class Tally:
    """Counts what happens while a capture runs."""

    def __init__(self, env: VectorEnv) -> None:
        self._layout = layout_of(env.spec)
        self.actions = np.zeros(
            len(env.spec.action_names), np.int64
        )  # how often each; none where they are vectors
        self.illegal = 0  # forbidden by their mask, or beyond their bounds
        self.terminations = 0
        self.reward_sum = 0.0
        self._returns = np.zeros(env.n_envs)
        self._episode_returns: list[float] = []

    @property
    def mean_episode_return(self) -> float | None:
        """Mean over complete episodes; None when none was completed."""
        return float(np.mean(self._episode_returns)) if self._episode_returns else None

    def metrics(self, plan: CapturePlan) -> dict[str, float | None]:
        """Townlet's metrics of the capture as a whole, and what ends lives and episodes; vectors are not counted."""
        names = plan.layout.action_names
        return {
            "timesteps": float(plan.n_frames),
            "reward_sum": self.reward_sum,
            "reward_mean": self.reward_sum / plan.n_frames,
            "mean_episode_return": self.mean_episode_return,
            "terminations": float(self.terminations),
            **(action_metrics(self.actions, names) if names else {}),
        }

    def count_decision(self, actions: Actions, mask: NDArray[np.bool_]) -> None:
        if self._layout.action_low:
            inside = within_bounds(actions, self._layout.action_low, self._layout.action_high)
            self.illegal += int(np.count_nonzero(~inside))
            return
        self.actions += np.bincount(actions.reshape(-1), minlength=len(self.actions))
        self.illegal += int(np.count_nonzero(~np.take_along_axis(mask, actions[..., None], axis=-1)))

    def count_outcome(self, step: Step) -> None:
        self.terminations += int(np.count_nonzero(step.terminated))
        rewards = step.rewards.sum(axis=1, dtype=np.float64)
        self.reward_sum += float(rewards.sum())
        self._returns += rewards / step.rewards.shape[1]
        ended = episodes_ended(step.terminated, step.truncated)
        if ended.any():
            self._episode_returns += self._returns[ended].tolist()
            self._returns[ended] = 0


def record(
    env: VectorEnv, policy: Policy, writer: Writer, tally: Tally, plan: CapturePlan, report: Report | None
) -> None:
    """Act, write, step, write: what was seen goes to disk before the step overwrites it."""
    observation = env.reset(np.array(plan.seeds, np.int64))
    every = max(1, plan.n_steps // REPORTS)
    draws = policy_uniforms(plan.seeds, (plan.n_agents, *plan.layout.action_shape))
    for tick, uniforms in enumerate(islice(draws, plan.n_steps), start=1):
        actions = policy.act(observation, uniforms)
        writer.append_decision(**observation._asdict(), actions=actions)
        tally.count_decision(actions, observation.action_mask)
        step = env.step(actions)
        over = np.flatnonzero(episodes_over(env.spec, step)).tolist()
        writer.append_outcome(
            rewards=step.rewards,
            terminated=step.terminated,
            truncated=step.truncated,
            final_features={index: step.final_observation.features[index] for index in over},
        )
        tally.count_outcome(step)
        observation = step.observation
        if report is not None and tick % every == 0:
            report(tick, plan.n_steps)


def event_totals(env: VectorEnv) -> dict[str, float]:
    """Events by name, summed over environments."""
    return {name: float(counts.sum()) for name, counts in env.event_counts().items()}


def layout_of(spec: EnvSpec) -> Layout:
    """The names under which an environment is recorded."""
    names = spec.feature_names, spec.action_names, spec.map_channels
    return Layout(*names, spec.map_size, spec.env_id, spec.action_low, spec.action_high)


def populated(config: RunConfig) -> RunConfig:
    """The config with agents in its town: the usual number where it has none and `auto_seed_agents` asks for them.

    Raises `UsageError` when the town has no agents and nobody asked for any.
    """
    if config.env != "town" or config.town.n_agents > 0:
        return config
    usual = TownConfig().n_agents
    if not config.rollout.auto_seed_agents:
        raise UsageError(
            f"The town has no agents (town.n_agents is 0), so there is nobody to record. "
            f"Pass --auto-seed-agents to put {usual} into it."
        )
    return config.model_copy(update={"town": config.town.model_copy(update={"n_agents": usual})})


def _check_arguments(env: VectorEnv, ticks: int, seeds: Sequence[int], prefix: str) -> None:
    if ticks < 1:
        raise UsageError(f"A capture needs at least one tick, {ticks} were asked for.")
    if env.n_agents < 1:
        raise UsageError("A capture needs agents and the environment has none. Pass --auto-seed-agents.")
    if len(seeds) != env.n_envs:
        raise UsageError(
            f"A capture needs one seed per environment: {env.n_envs} environments, {len(seeds)} seeds."
        )
    if len(set(seeds)) != len(seeds):
        raise UsageError(
            "Two environments of a capture have the same seed, so they would be the same episode."
        )
    if not prefix or Path(prefix).name != prefix or prefix.startswith("."):
        raise UsageError(f"The prefix is {prefix!r}; expected the start of a file name.")


def _warnings(policy: Policy, output: Path, tally: Tally) -> Iterator[str]:
    if policy.name in STUB_POLICIES:
        yield (
            f"capture_rollout_stub_policy provider={policy.name}: this policy decides nothing, "
            f"so there is nothing to learn from the capture."
        )
    if tally.illegal:
        forbidden = "although their mask forbade them" if len(tally.actions) else "beyond their bounds"
        yield f"{tally.illegal} actions were taken {forbidden}."
    yield from leftovers(output)
