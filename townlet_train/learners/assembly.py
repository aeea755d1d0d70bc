"""The parts of one run, put together from its params: environments, network, learner, and where rollouts come from."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Generic, Literal

import numpy as np

from townlet_train.contract import StartingPoint, TrainingContext
from townlet_train.data.checkpoint import CheckpointInfo, Lineage, bounds_of, merged_ranges, seed_ranges
from townlet_train.envs.build import build_env
from townlet_train.envs.protocol import EnvSpec, VectorEnv
from townlet_train.errors import CheckpointError, TrainingError
from townlet_train.files import sha256_of
from townlet_train.learners.devices import AUTO, Placement, Precision, checked_device, select_placement
from townlet_train.learners.learner import update_trial
from townlet_train.learners.networks import network_for_env
from townlet_train.learners.params import OnPolicyParams
from townlet_train.learners.replay import RecordedRollouts, open_recording
from townlet_train.learners.roles import BuildLearner, OnPolicyLearner, RolloutSource, Stats
from townlet_train.learners.rollouts import Driver, RolloutCollector
from townlet_train.policies.experts import build_expert
from townlet_train.policies.network import NetworkSpec
from townlet_train.services.runs import versions


@dataclass(frozen=True)
class Recording:
    """Transitions to learn from that others made: alone, or beside rollouts, a chunk after each."""

    path: Path
    alone: bool


@dataclass(frozen=True)
class Parts(Generic[Stats]):
    """What one run consists of."""

    env: VectorEnv
    network: NetworkSpec
    placement: Placement
    learner: OnPolicyLearner[Stats]
    source: RolloutSource
    beside: RecordedRollouts | None  # learned from after every rollout
    info: CheckpointInfo  # what its checkpoints say of it

    @property
    def plays(self) -> bool:
        """Whether rollouts are played, not read."""
        return isinstance(self.source, RolloutCollector)


def assemble(
    context: TrainingContext,
    params: OnPolicyParams,
    algorithm: str,
    build_learner: BuildLearner[Stats],
    recording: Recording | None,
    opened: ExitStack,
    reference: Path | None = None,
    expert_share: float = 0.0,
) -> Parts[Stats]:
    """The parts of a run; first weights and all that is random in rollouts are drawn from `context.rng`.

    What must be closed is left to `opened`.

    Raises:
        CheckpointError: the checkpoint to begin with is of another network or environment than the params say.
    """
    alone = recording is not None and recording.alone
    n_envs = 1 if alone else params.n_envs
    processes = context.services.processes
    env = opened.enter_context(
        closing(build_env(context.config, n_envs, n_workers=params.n_workers, processes=processes))
    )
    network = _network(env.spec, params, context.start)
    trial = partial(update_trial, network, params.rows_per_gradient)
    placement = select_placement(*_placed(params, context.start), trial)
    learner = build_learner(network, context.rng, placement)
    recorded = None
    if recording is not None:
        recorded = open_recording(
            recording.path,
            env.spec,
            network,
            n_steps=params.n_steps * params.n_envs * env.n_agents,
            normalize_observations=params.normalize_observations and alone,
        )
    seeds = range(context.seed, context.seed + (0 if alone else params.n_envs))
    source = (
        recorded if alone and recorded else _collector(env, network, params, seeds, context, expert_share)
    )
    own = Lineage(
        demonstrations=None if recording is None else str(recording.path),
        demonstrations_sha256=None if recording is None else sha256_of(recording.path),
        training_seeds=seed_ranges([*seeds, *(recorded.seeds if recorded else ())]),
        reference_sha256=None if reference is None else sha256_of(reference),
    )
    lineage = own if context.start is None else continued_lineage(own, context.start)
    info = describe(algorithm, network, env.spec, lineage, config_hash=context.config_hash)
    return Parts(env, network, placement, learner, source, None if alone else recorded, info)


def _placed(params: OnPolicyParams, start: StartingPoint | None) -> tuple[str, Literal["auto"] | Precision]:
    """What to choose device and precision by: a run that goes on stays where it was, unless told or forced to move."""
    if start is None or start.fork or params.device != start.checkpoint.state["params"]["device"]:
        return params.device, params.precision
    last = Placement(*(start.checkpoint.state[name] for name in Placement._fields))
    if params.device == AUTO:
        try:
            checked_device(last.device)
        except TrainingError:
            return AUTO, params.precision
    return last


def _collector(
    env: VectorEnv,
    network: NetworkSpec,
    params: OnPolicyParams,
    seeds: range,
    context: TrainingContext,
    expert_share: float,
) -> RolloutCollector:
    driver = None
    if expert_share:
        driver = Driver(build_expert(env.spec, context.services.experts), expert_share)
    return RolloutCollector(
        env,
        network,
        n_steps=params.n_steps,
        seeds=np.array(seeds),
        rng=context.rng,
        normalize_observations=params.normalize_observations,
        driver=driver,
    )


def continued_lineage(own: Lineage, start: StartingPoint) -> Lineage:
    """What this run learns from, on top of what the checkpoint it begins with had learned from.

    A run that goes on keeps its own parent.
    """
    before = start.checkpoint.info.lineage
    inherited = (
        {} if own.demonstrations else before.model_dump(include={"demonstrations", "demonstrations_sha256"})
    )
    return own.model_copy(
        update={
            **inherited,
            "training_seeds": merged_ranges(before.training_seeds, own.training_seeds),
            "parent_sha256": start.sha256 if start.fork else before.parent_sha256,
        }
    )


def describe(
    algorithm: str, network: NetworkSpec, env: EnvSpec, lineage: Lineage, *, config_hash: str | None
) -> CheckpointInfo:
    """What a checkpoint says about a policy that learned in `env`."""
    reads_maps = network.kind == "conflict_aware"
    return CheckpointInfo(
        algorithm=algorithm,
        env_id=env.env_id,
        feature_names=env.feature_names,
        action_names=env.action_names,
        map_channels=env.map_channels if reads_maps else (),
        map_size=env.map_size if reads_maps else 0,
        action_bounds=bounds_of(env),
        network=network.to_document(),
        lineage=lineage,
        config_hash=config_hash,
        versions=versions(),
    )


def _network(env: EnvSpec, params: OnPolicyParams, start: StartingPoint | None) -> NetworkSpec:
    """The network that the params describe; that of the checkpoint to begin with, where there is one."""
    if start is not None:
        return _continued_network(env, params, start)
    return network_for_env(
        env,
        params.network or "mlp",
        params.hidden_sizes,
        params.activation,
        normalised=params.normalize_observations,
        shared_trunk=params.shared_trunk,
    )


def _continued_network(env: EnvSpec, params: OnPolicyParams, start: StartingPoint) -> NetworkSpec:
    """The checkpoint's network; of a shared trunk, a fork makes one for the actor and one for the critic unless told.

    Raises:
        CheckpointError: a param says another, or it reads and does other things than `env` has.
    """
    start.checkpoint.info.check_matches(env)
    saved = NetworkSpec.from_document(start.checkpoint.info.network)
    if start.fork:
        saved = replace(saved, shared_trunk=saved.shared_trunk and params.shared_trunk)
    for name, kept in (
        ("network", saved.kind),
        ("hidden_sizes", saved.hidden_sizes),
        ("activation", saved.activation),
        ("shared_trunk", saved.shared_trunk),
    ):
        said = getattr(params, name)
        if said is not None and said != kept:
            raise CheckpointError(
                f"{start.path} holds a network with {name} {kept!r}, and {name} is {said!r} here. Leave it out."
            )
    return saved
