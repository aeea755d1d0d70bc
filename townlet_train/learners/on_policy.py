"""Collect, update, log, repeat: what methods that learn from their own rollouts share, from start to result.

A checkpoint holds everything the rest of the run depends on, the rollout at hand and the environments included, so a
run that goes on from one is the same run, bit for bit.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from townlet_train.contract import Progress, StartingPoint, TrainingContext
from townlet_train.data.checkpoint import (
    Arrays,
    Checkpoint,
    CheckpointInfo,
    Lineage,
    below,
    bounds_of,
    save_checkpoint,
    seed_ranges,
    under,
)
from townlet_train.envs.build import build_env
from townlet_train.envs.protocol import EnvSpec
from townlet_train.errors import CheckpointError, InexactStateError, Interrupted
from townlet_train.files import sha256_of
from townlet_train.learners.actor_critic import ActorCritic
from townlet_train.learners.bc import limited_threads
from townlet_train.learners.curve import Measured, TrainingCurve
from townlet_train.learners.devices import choose_device
from townlet_train.learners.learner import gradient_trial
from townlet_train.learners.logs import log_episodes, log_save, log_setup
from townlet_train.learners.networks import network_for_env
from townlet_train.learners.params import OnPolicyParams
from townlet_train.learners.replay import RecordedRollouts, open_recording
from townlet_train.learners.rollouts import Episode, Float, Normaliser, Played, RolloutCollector
from townlet_train.learners.telemetry import (
    TELEMETRY_VERSION,
    EventTally,
    Spent,
    anneal_fields,
    rollout_fields,
)
from townlet_train.policies.network import FEATURE_MEAN, FEATURE_STD, NetworkSpec
from townlet_train.results import EvaluationDTO
from townlet_train.services.runs import model_path, versions

TICKS_BETWEEN_REPORTS, FEWEST_TICKS_BETWEEN_REPORTS = 512, 64
logger = logging.getLogger(__name__)


class OnPolicyStats(Measured, Protocol):
    """What a learner says of an update."""

    @property
    def skipped_updates(self) -> int: ...
    def shown(self) -> dict[str, float]:
        """What is worth watching while training goes on."""
        ...


Stats = TypeVar("Stats", bound=OnPolicyStats)
StatsOut = TypeVar("StatsOut", bound=OnPolicyStats, covariant=True)


class OnPolicyLearner(Protocol[StatsOut]):
    """What a run needs of a learner."""

    spec: NetworkSpec
    actor_critic: ActorCritic

    def learn(self, played: Played, progress: float, on_epoch: Callable[[], None]) -> StatsOut:
        """Learn from what its actor played after `progress` of the run, 0 to 1."""
        ...

    def set_normaliser(self, normaliser: Normaliser) -> None:
        """Let the network, and so every checkpoint, standardise features like this from now on."""
        ...

    @property
    def weights(self) -> Arrays:
        """Copies of all arrays by name."""
        ...

    def load_weights(self, weights: Arrays) -> None:
        """Take over all arrays by name."""
        ...

    def state(self) -> Arrays:
        """Copies of what `update` depends on beside the weights."""
        ...

    def restore(self, state: Arrays) -> None:
        """Continue from what `state` gave."""
        ...

    def adopt(self, state: Arrays | None) -> None:
        """Begin anew with the weights as they are, and what another run's `state` knows of gradients and rewards."""
        ...

    @property
    def n_updates(self) -> int:
        """Optimiser steps made."""
        ...


class RolloutSource(Protocol):
    """Where rollouts come from: environments that are played in, or a recording."""

    normaliser: Normaliser | None
    timestep: int

    @property
    def n_slots(self) -> int:
        """Steps that one tick adds."""
        ...

    @property
    def filled(self) -> int:
        """Ticks there are that nothing has been learned from."""
        ...

    @property
    def missing(self) -> int:
        """Ticks until the rollout is full."""
        ...

    def advance(self, actor: ActorCritic, n_ticks: int) -> None:
        """Go on by `n_ticks`, at most `missing`."""
        ...

    def finish(self) -> tuple[Played, list[Episode]]:
        """What there is since the last time, and the episodes that ended in it."""
        ...

    def state(self) -> Arrays:
        """Copies of everything that what comes next depends on."""
        ...

    def restore(self, state: Arrays) -> None:
        """Continue from what `state` gave."""
        ...

    def adopt_normaliser(self, mean: Float, std: Float, moments: Arrays | None) -> None:
        """Standardise features as another run left off."""
        ...


BuildLearner = Callable[[NetworkSpec, np.random.Generator, str], OnPolicyLearner[Stats]]  # the last: a device


@dataclass(frozen=True)
class Trained(Generic[Stats]):
    """What a run reached: its last update, and everything a result says whatever the method."""

    stats: Stats
    facts: Mapping[str, Any]  # by the names of the results
    telemetry: Mapping[str, Any]  # of the last rollout, by the names of Townlet's logs


@dataclass(frozen=True)
class Recording:
    """Transitions to learn from that others made: alone, or beside rollouts, a chunk after each."""

    path: Path
    alone: bool


def train(
    context: TrainingContext,
    params: OnPolicyParams,
    *,
    algorithm: str,
    build_learner: BuildLearner[Stats],
    recording: Recording | None = None,
    on_rollout: OnRollout[Stats] = lambda run, stats: None,
) -> Trained[Stats]:
    """Collect, update, log, repeat until `params.timesteps`, then evaluate; a checkpoint handed in is gone on from.

    `on_rollout` is called after every rollout's updates, when the run can be asked for its `telemetry`.

    Raises:
        Interrupted: the user asked to stop; a checkpoint to resume from is saved, and named.
        CheckpointError: the checkpoint to go on from is of another policy or environment.
    """
    started = time.perf_counter()
    with limited_threads(torch_threads=1, numpy_threads=1):  # first weights depend on their number, too
        run = OnPolicyRun(context, params, algorithm, build_learner, recording, on_rollout)
        stats, model = _iterate(run)
    try:
        evaluation = _evaluate(model, params.evaluation_episodes, context)
    except Interrupted as stop:
        raise Interrupted(f"{stop} Training had ended; the policy is {model}") from stop
    threshold, skipped = run.env.spec.reward_threshold, stats.skipped_updates
    facts = run.facts() | {
        "evaluation": evaluation,
        "reward_threshold": threshold,
        "converged": evaluation.ci_low >= threshold if evaluation and threshold is not None else None,
        "checkpoint": str(model),
        "checkpoint_sha256": sha256_of(model),
        "duration_sec": time.perf_counter() - started,
        "warnings": (f"{skipped} updates were skipped because they were not finite.",) if skipped else (),
    }
    return Trained(stats, facts, run.telemetry())


def _iterate(run: OnPolicyRun[Stats]) -> tuple[Stats, Path]:
    """Iterate until the steps are used up; the last update's statistics and the model file."""
    try:
        stats = run.iterate()
        while not run.over:
            stats = run.iterate()
    except Interrupted as stop:
        checkpoint = run.save()
        logger.info("stopped at step %d, saved %s", run.timestep, checkpoint)
        fork = "" if run.resumable else " --fork"
        raise Interrupted(f"{stop} Go on with --resume-from {checkpoint}{fork}") from stop
    return stats, run.save_model()


OnRollout = Callable[["OnPolicyRun[Stats]", Stats], None]


class OnPolicyRun(Generic[Stats]):
    """Environments, learner and curve of one run, at its start or where a checkpoint left them."""

    def __init__(
        self,
        context: TrainingContext,
        params: OnPolicyParams,
        algorithm: str,
        build_learner: BuildLearner[Stats],
        recording: Recording | None = None,
        on_rollout: OnRollout[Stats] = lambda run, stats: None,
    ) -> None:
        self._context, self._params, self._algorithm = context, params, algorithm
        self._on_rollout = on_rollout
        seeds = range(context.seed, context.seed + params.n_envs)
        plays = recording is None or not recording.alone
        self.env = build_env(context.config, params.n_envs if plays else 1, n_workers=params.n_workers)
        start = context.start
        network = network_for_env(
            self.env.spec,
            params.network,
            params.hidden_sizes,
            params.activation,
            normalised=params.normalize_observations,
        )
        if start is not None:
            network = _continued_network(network, start, self.env.spec)
        resumed = None if start is None or start.fork else start.checkpoint
        self._device = choose_device(
            params.device if resumed is None else resumed.state["device"],
            partial(gradient_trial, network, params.rows_per_gradient),
        )
        self._learner = build_learner(network, context.rng, self._device)
        self._beside: RecordedRollouts | None = None
        if recording is not None:
            recorded = open_recording(
                recording.path,
                self.env.spec,
                network,
                n_steps=params.n_steps * params.n_envs * self.env.n_agents,
                normalize_observations=params.normalize_observations and recording.alone,
            )
            self._beside = None if recording.alone else recorded
        self._collector: RolloutSource
        if recording is not None and recording.alone:
            self._collector = recorded
        else:
            self._collector = RolloutCollector(
                self.env,
                network,
                n_steps=params.n_steps,
                seeds=np.array(seeds),
                rng=context.rng,
                normalize_observations=params.normalize_observations,
            )
        n_slots = self._collector.n_slots
        self._checkpoint_steps = params.checkpoint_steps(n_slots)
        self._curve = TrainingCurve(params.log_steps(n_slots))
        parent = None
        if start is not None:
            parent = start.sha256 if start.fork else start.checkpoint.info.lineage.parent_sha256
        lineage = Lineage(
            demonstrations=None if recording is None else str(recording.path),
            demonstrations_sha256=None if recording is None else sha256_of(recording.path),
            training_seeds=seed_ranges([*(seeds if plays else ()), *(recorded.seeds if recording else ())]),
            parent_sha256=parent,
        )
        self._info = describe(algorithm, network, self.env.spec, lineage, config_hash=context.config_hash)
        self._said = {
            "seed": context.seed,
            "config": context.config.model_dump(mode="json"),
            "params": params.model_dump(mode="json"),
        }
        self._plays = plays
        self._events = EventTally(self.env.event_counts if plays else dict)
        self._played: Played | None = None  # the newest rollout
        self._shown: dict[str, float] = {}
        self.resumable = True
        self.rollouts = self._unreported = 0
        self._collect_sec = self._update_sec = self._rollout_sec = 0.0
        if start is not None and start.fork:
            self._adopt(start.checkpoint)
        elif start is not None:
            self._restore(start)
        self._began_at = self.timestep
        self._told = Spent(self.timestep, 0.0, 0.0)
        log_setup(self.env, network, self._learner.weights, params)

    @property
    def timestep(self) -> int:
        """Steps of all slots."""
        return self._collector.timestep

    @property
    def over(self) -> bool:
        """Whether the steps are used up and learned from."""
        return self.timestep >= self._params.timesteps and not self._collector.filled

    def iterate(self) -> Stats:
        """One rollout, what was learned from it, and its lines in the metrics."""
        normaliser = self._collector.normaliser
        started = time.perf_counter()
        self._collect()
        played, episodes = self._collector.finish()
        self._played = played
        self._events.mark()
        collected = time.perf_counter()
        progress = (self.timestep - played.rewards.size) / self._params.timesteps
        stats = self._learner.learn(played, progress, self._report_patiently)
        measured = stats if self._beside is None else self._learn_beside(stats, normaliser, progress)
        if self._collector.normaliser is not None:
            self._learner.set_normaliser(self._collector.normaliser)
        updated = time.perf_counter()
        self._collect_sec += collected - started
        self._update_sec += updated - collected
        self._rollout_sec = updated - started
        self.rollouts += 1
        log_episodes(episodes, self._curve.n_episodes)
        told = self._curve.told
        for line in self._curve.lines(episodes, self.timestep, measured, lambda: self._times(stats)):
            self._context.record(line)
        self._on_rollout(self, stats)
        if self._curve.told > told and not self.over:  # a run that is over has nothing left to interrupt
            self._report()
        return stats

    def _learn_beside(self, stats: Stats, normaliser: Normaliser | None, progress: float) -> Measured:
        """Learn from the next chunk of the recording beside the rollouts, seen as the last rollout was."""
        assert self._beside is not None
        self._beside.normaliser = normaliser
        self._beside.advance(self._learner.actor_critic, self._beside.missing)
        recorded, _ = self._beside.finish()
        return _Both(stats, self._learner.learn(recorded, progress, self._report_patiently))

    def save(self) -> Path:
        """Write the run as it is to checkpoint_<timestep>.zip; a thread of its own would cost this one more."""
        path = self._context.run_dir / f"checkpoint_{self.timestep}.zip"
        save_checkpoint(path, self._checkpoint())
        return path

    def save_model(self) -> Path:
        """Write the policy, and nothing that training would need, to the run's model file."""
        path = model_path(self._context.run_dir, self._algorithm, self._context.seed)
        save_checkpoint(path, replace(self._checkpoint(), optimizer=None, training=None))
        return path

    def facts(self) -> dict[str, Any]:
        """What results say of a run, whatever the method."""
        seconds = self._collect_sec + self._update_sec
        return {
            **self._curve.summary(),
            **self._counters(),
            "checkpoint_interval": self._checkpoint_steps,
            "steps_per_sec": (self.timestep - self._began_at) / seconds,
            "collect_sec": self._collect_sec,
            "update_sec": self._update_sec,
        }

    def telemetry(self) -> dict[str, Any]:
        """What the newest rollout held, under the names of Townlet's logs; there must have been one."""
        assert self._played is not None
        anneal = self._context.anneal_context
        collected_before = self.rollouts - 1 if self._plays else 0
        return {
            **self._counters(),
            "telemetry_version": TELEMETRY_VERSION,
            "cycle_id": collected_before if anneal is None else anneal.cycle,
            "log_stream_offset": self.rollouts,
            **rollout_fields(self._played, self.env.spec.feature_names, self._events.counts()),
            **anneal_fields(anneal),
            "epoch_duration_sec": self._rollout_sec,
        }

    def _counters(self) -> dict[str, int]:
        return {
            "epoch": self.rollouts,
            "updates": self._learner.n_updates,
            "transitions": 0 if self._played is None else self._played.rewards.size,
            "steps": self.timestep,
        }

    def _times(self, stats: Stats) -> dict[str, float]:
        """The time spent since this was last asked, for a line of the metrics; what is shown is renewed with it."""
        now = Spent(self.timestep, self._collect_sec, self._update_sec)
        spent, self._told = now.since(self._told), now
        self._shown = {"return": self._curve.mean_return, **stats.shown(), **spent.shown()}
        return spent.fields()

    def _collect(self) -> None:
        """Fill the rollout, or as much of it as the run's steps allow; save whenever a checkpoint is due."""
        actor, total = self._learner.actor_critic, self._params.timesteps
        left = min(self._collector.missing, self._ticks_until(total))
        while left > 0:
            due = min((self.timestep // self._checkpoint_steps + 1) * self._checkpoint_steps, total)
            n_ticks = min(left, self._ticks_until(due), TICKS_BETWEEN_REPORTS)
            self._collector.advance(actor, n_ticks)
            left -= n_ticks
            self._unreported += n_ticks
            if self.timestep >= due:
                log_save(self._algorithm, self.timestep, total, self._shown)
                self.save()
            if self._unreported >= FEWEST_TICKS_BETWEEN_REPORTS:
                self._report()

    def _ticks_until(self, timestep: int) -> int:
        """Ticks that bring the steps of all slots to `timestep` or beyond."""
        return -((self.timestep - timestep) // self._collector.n_slots)

    def _report(self) -> None:
        self._unreported = 0
        done, total = self.timestep, self._params.timesteps
        self._context.report(Progress(self._algorithm, done, total, self._shown, live=True))

    def _report_patiently(self) -> None:
        """Report from within an update, which is finished before the run stops."""
        with suppress(Interrupted):
            self._report()

    def _checkpoint(self) -> Checkpoint:
        """Copies of everything the rest of the run depends on."""
        state = {
            "timestep": self.timestep,
            "slots": self._collector.n_slots,
            "unlearned": self._collector.filled,
            "updates": self._learner.n_updates,
            "rollouts": self.rollouts,
            "recorded": self._curve.told,
            "device": self._device,
            "rng": self._context.rng.bit_generator.state,
        }
        weights, learner = self._learner.weights, self._learner.state()
        return Checkpoint(self._info, weights, state | self._said, learner, self._training())

    def _training(self) -> Arrays | None:
        """What only the same run can use; None where an environment does not give its state away."""
        if not self.resumable:
            return None
        try:
            training = under("collector", self._collector.state()) | under("curve", self._curve.state())
        except InexactStateError as error:
            logger.warning("This run cannot be resumed, its checkpoints hold the policy alone. %s", error)
            self.resumable = False
            return None
        training |= under("events", self._events.state())
        return training if self._beside is None else training | under("beside", self._beside.state())

    def _restore(self, start: StartingPoint) -> None:
        """Go on where the checkpoint was saved."""
        saved = start.checkpoint
        if saved.training is None or saved.optimizer is None:
            raise CheckpointError(
                f"{start.path} holds a policy and no state of its training. Resume from a checkpoint_<step>.zip, "
                f"or begin a new run with its policy by --fork."
            )
        if saved.info.lineage.demonstrations_sha256 != self._info.lineage.demonstrations_sha256:
            raise CheckpointError(
                f"{start.path} was learned from {saved.info.lineage.demonstrations}, which is another recording now. "
                f"Begin a new run with its policy by --fork."
            )
        self._learner.load_weights(saved.weights)
        self._learner.restore(saved.optimizer)
        self._collector.restore(below("collector", saved.training))
        self._curve.restore(below("curve", saved.training))
        if self._beside is not None:
            self._beside.restore(below("beside", saved.training))
        self._events.restore(below("events", saved.training))
        self.rollouts = saved.state["rollouts"]
        self._context.rng.bit_generator.state = saved.state["rng"]
        logger.info("going on from %s, step %d", start.path, self.timestep)

    def _adopt(self, saved: Checkpoint) -> None:
        """Begin a new run with the checkpoint's policy, and with its optimiser where the method is the same."""
        self._learner.load_weights(saved.weights)
        same_method = saved.optimizer is not None and saved.info.algorithm == self._algorithm
        self._learner.adopt(saved.optimizer if same_method else None)
        moments = below("collector.moments", saved.training or {})
        self._collector.adopt_normaliser(saved.weights[FEATURE_MEAN], saved.weights[FEATURE_STD], moments)


@dataclass(frozen=True)
class _Both:
    """What an update on a rollout measured, and one on a recording after it."""

    rollout: OnPolicyStats
    recorded: OnPolicyStats

    @property
    def loss(self) -> float:
        return self.rollout.loss

    def line(self) -> dict[str, Any]:
        """Both, the recording's under names of its own."""
        recorded = {f"replay_{name}": value for name, value in self.recorded.line().items()}
        return {**self.rollout.line(), **recorded}


def describe(
    algorithm: str, network: NetworkSpec, env: EnvSpec, lineage: Lineage, *, config_hash: str
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


def _continued_network(wanted: NetworkSpec, start: StartingPoint, env: EnvSpec) -> NetworkSpec:
    """The checkpoint's network.

    Raises:
        CheckpointError: it is not the one that the params describe, or reads and does other things than `env` has.
    """
    start.checkpoint.info.check_matches(env)
    saved = NetworkSpec.from_document(start.checkpoint.info.network)
    for name in ("kind", "hidden_sizes", "activation", "distribution"):
        if getattr(saved, name) != getattr(wanted, name):
            raise CheckpointError(
                f"{start.path} holds a network with {name} {getattr(saved, name)!r}, the params describe one with "
                f"{getattr(wanted, name)!r}. Give the params of the checkpoint."
            )
    return saved


def _evaluate(model: Path, episodes: int, context: TrainingContext) -> EvaluationDTO | None:
    """The returns on held-out seeds; None when no episodes are asked for."""
    if not episodes:
        return None

    def report(done: int, total: int) -> None:
        context.report(Progress("evaluation", done, total, {}))

    return context.services.evaluation.evaluate(checkpoint=model, episodes=episodes, report=report)
