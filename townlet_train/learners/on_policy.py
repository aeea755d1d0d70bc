"""Collect, update, log, repeat: what methods that learn from their own rollouts share, from start to result.

A checkpoint holds everything the rest of the run depends on, the rollout at hand and the environments included, so a
run that goes on from one is the same run, bit for bit.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic

from townlet_train.contract import Progress, TrainingContext
from townlet_train.data.checkpoint import save_checkpoint
from townlet_train.errors import Interrupted
from townlet_train.learners.assembly import Recording as Recording
from townlet_train.learners.assembly import assemble
from townlet_train.learners.bc import limited_threads
from townlet_train.learners.curve import Measured, TrainingCurve
from townlet_train.learners.held_out import held_out_facts
from townlet_train.learners.logs import log_episodes, log_save, log_setup
from townlet_train.learners.params import OnPolicyParams
from townlet_train.learners.roles import BuildLearner, OnPolicyStats, RolloutSource, Stats
from townlet_train.learners.rollouts import Episode, Normaliser, Played
from townlet_train.learners.run_state import RunState
from townlet_train.learners.telemetry import TELEMETRY_VERSION, Spent, anneal_fields, rollout_fields
from townlet_train.services.runs import model_path

TICKS_BETWEEN_REPORTS, FEWEST_TICKS_BETWEEN_REPORTS = 512, 64
SECONDS_BETWEEN_REPORTS = 1.0
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained(Generic[Stats]):
    """What a run reached: its last update, and everything a result says whatever the method."""

    stats: Stats
    facts: Mapping[str, Any]  # by the names of the results
    telemetry: Mapping[str, Any]  # of the last rollout, by the names of Townlet's logs


def train(
    context: TrainingContext,
    params: OnPolicyParams,
    *,
    algorithm: str,
    build_learner: BuildLearner[Stats],
    recording: Recording | None = None,
    reference: Path | None = None,
    expert_share: float = 0.0,
    enough: Callable[[Stats], bool] = lambda stats: False,
    on_rollout: OnRollout[Stats] = lambda run, stats: None,
) -> Trained[Stats]:
    """Collect, update, log, repeat until `params.timesteps`, then evaluate; a checkpoint handed in is gone on from.

    `on_rollout` is called after every rollout's updates, when the run can be asked for its `telemetry`. The run ends
    before its time after updates that were `enough`. `reference` is the file of a policy that the learner asks,
    `expert_share` the share of slots that the environment's expert drives.

    Raises:
        Interrupted: the user asked to stop; a checkpoint to resume from is saved, and named.
        CheckpointError: the checkpoint to go on from is of another policy or environment.
    """
    started = time.perf_counter()
    with ExitStack() as opened:
        opened.enter_context(
            limited_threads(torch_threads=1, numpy_threads=1)
        )  # first weights depend on it, too
        parts = assemble(
            context, params, algorithm, build_learner, recording, opened, reference, expert_share
        )
        settings = {
            "seed": context.seed,
            "config": context.config.model_dump(mode="json"),
            "params": params.model_dump(mode="json"),
        }
        curve = TrainingCurve(params.log_steps(parts.source.n_slots))
        state = RunState(parts, curve, context.rng, settings)
        state.begin(context.start)
        log_setup(parts.env, parts.network, parts.learner.weights, params)
        run = OnPolicyRun(context, params, state, on_rollout)
        stats, model = _iterate(run, enough)
    held_out = held_out_facts(model, params.evaluation_episodes, context, parts.env.spec.reward_threshold)
    skipped = stats.skipped_updates
    facts = {
        **run.facts(),
        **held_out,
        "duration_sec": time.perf_counter() - started,
        "warnings": (
            *((f"{skipped} updates were skipped because they were not finite.",) if skipped else ()),
            *state.warnings(),
        ),
    }
    return Trained(stats, facts, run.telemetry())


def _iterate(run: OnPolicyRun[Stats], enough: Callable[[Stats], bool]) -> tuple[Stats, Path]:
    """Iterate until the steps are used up, or an update was enough; the last update's statistics and the model file."""
    try:
        stats = run.iterate()
        while not (run.over or enough(stats)):
            stats = run.iterate()
        run.end_metrics(stats)
    except Interrupted as stop:
        checkpoint = run.save()
        logger.info("stopped at step %d, saved %s", run.state.timestep, checkpoint)
        fork = "" if run.state.resumable else " --fork"
        raise Interrupted(f"{stop} Go on with --resume-from {checkpoint}{fork}") from stop
    return stats, run.save_model()


OnRollout = Callable[["OnPolicyRun[Stats]", Stats], None]


class OnPolicyRun(Generic[Stats]):
    """The loop of one run, from where its state is."""

    def __init__(
        self,
        context: TrainingContext,
        params: OnPolicyParams,
        state: RunState[Stats],
        on_rollout: OnRollout[Stats],
    ) -> None:
        self.state = state
        self._parts = state.parts
        self._source, self._learner = state.parts.source, state.parts.learner
        self._context, self._params, self._on_rollout = context, params, on_rollout
        self._checkpoint_steps = params.checkpoint_steps(self._source.n_slots)
        self._played: Played | None = None  # the newest rollout
        self._shown: dict[str, float] = {}
        self._unreported, self._reported_at = 0, time.perf_counter()
        self._pace = 1  # ticks to the next look at the clock; how long one takes is not known yet
        self._collect_sec = self._update_sec = self._rollout_sec = 0.0
        self._began_at = state.timestep
        self._told = Spent(state.timestep, 0.0, 0.0)

    @property
    def rollouts(self) -> int:
        """Rollouts learned from."""
        return self.state.rollouts

    @property
    def over(self) -> bool:
        """Whether the steps are used up and learned from."""
        return self.state.timestep >= self._params.timesteps and not self._source.filled

    def iterate(self) -> Stats:
        """One rollout, what was learned from it, and its lines in the metrics."""
        normaliser = self._source.normaliser
        started = time.perf_counter()
        self._collect()
        played, episodes = self._source.finish()
        self._played = played
        self.state.events.mark()
        collected = time.perf_counter()
        progress = (self.state.timestep - played.rewards.size) / self._params.timesteps
        stats = self._learner.learn(played, progress, self._report_patiently)
        beside = self._parts.beside
        measured = stats if beside is None else _Both(stats, self._learn_beside(beside, normaliser, progress))
        if self._source.normaliser is not None:
            self._learner.set_normaliser(self._source.normaliser)
        updated = time.perf_counter()
        self._collect_sec += collected - started
        self._update_sec += updated - collected
        self._rollout_sec = updated - started
        self.state.rollouts += 1
        told = self._record(episodes, measured, stats)
        self._on_rollout(self, stats)
        if (told or self._late()) and not self.over:  # a run that is over has nothing left to interrupt
            self._report()
        return stats

    def _learn_beside(
        self, beside: RolloutSource, normaliser: Normaliser | None, progress: float
    ) -> OnPolicyStats:
        """Learn from the next chunk of the recording beside the rollouts, seen as the last rollout was."""
        beside.normaliser = normaliser
        beside.advance(self._learner.actor_critic, beside.missing)
        recorded, _ = beside.finish()
        return self._learner.learn(recorded, progress, self._report_patiently)

    def _record(self, episodes: Sequence[Episode], measured: Measured, stats: Stats) -> bool:
        """Write the lines that are due; whether there were any."""
        curve = self.state.curve
        log_episodes(episodes, curve.n_episodes)
        told = curve.told
        for line in curve.lines(episodes, self.state.timestep, measured, lambda: self._times(stats)):
            self._context.record(line)
        return curve.told > told

    def end_metrics(self, stats: Stats) -> None:
        """Record one line of a run that was too short for any; going on from it later leaves that line out."""
        line = self.state.curve.only_line(self.state.timestep, stats, lambda: self._times(stats))
        if line is not None:
            self._context.record(line)

    def save(self) -> Path:
        """Write the run as it is to checkpoint_<timestep>.zip; a thread of its own would cost this one more."""
        path = self._context.run_dir / f"checkpoint_{self.state.timestep}.zip"
        save_checkpoint(path, self.state.checkpoint())
        return path

    def save_model(self) -> Path:
        """Write the policy, and nothing that training would need, to the run's model file."""
        path = model_path(self._context.run_dir, self._parts.info.algorithm, self._context.seed)
        save_checkpoint(path, replace(self.state.checkpoint(), optimizer=None, training=None))
        return path

    def facts(self) -> dict[str, Any]:
        """What results say of a run, whatever the method."""
        seconds = self._collect_sec + self._update_sec
        return {
            **self.state.curve.summary(),
            **self._counters(),
            "checkpoint_interval": self._checkpoint_steps,
            "steps_per_sec": (self.state.timestep - self._began_at) / seconds,
            "collect_sec": self._collect_sec,
            "update_sec": self._update_sec,
        }

    def telemetry(self) -> dict[str, Any]:
        """What the newest rollout held, under the names of Townlet's logs; there must have been one."""
        assert self._played is not None
        anneal = self._context.anneal_context
        collected_before = self.rollouts - 1 if self._parts.plays else 0
        return {
            **self._counters(),
            "telemetry_version": TELEMETRY_VERSION,
            "cycle_id": collected_before if anneal is None else anneal.cycle,
            "log_stream_offset": self.rollouts,
            **rollout_fields(self._played, self._parts.env.spec.feature_names, self.state.events.counts()),
            **anneal_fields(anneal),
            "epoch_duration_sec": self._rollout_sec,
        }

    def _counters(self) -> dict[str, int]:
        return {
            "epoch": self.rollouts,
            "updates": self._learner.n_updates,
            "transitions": 0 if self._played is None else self._played.rewards.size,
            "steps": self.state.timestep,
        }

    def _times(self, stats: Stats) -> dict[str, float]:
        """The time spent since this was last asked, for a line of the metrics; what is shown is renewed with it."""
        now = Spent(self.state.timestep, self._collect_sec, self._update_sec)
        spent, self._told = now.since(self._told), now
        self._shown = {"return": self.state.curve.mean_return, **stats.shown(), **spent.shown()}
        return spent.fields()

    def _collect(self) -> None:
        """Fill the rollout, or as much of it as the run's steps allow; save whenever a checkpoint is due."""
        actor, total = self._learner.actor_critic, self._params.timesteps
        left = min(self._source.missing, self._ticks_until(total))
        while left > 0:
            due = min((self.state.timestep // self._checkpoint_steps + 1) * self._checkpoint_steps, total)
            n_ticks = min(left, self._ticks_until(due), self._pace)
            began = time.perf_counter()
            self._source.advance(actor, n_ticks)
            self._pace = ticks_in_time(n_ticks, time.perf_counter() - began)
            left -= n_ticks
            self._unreported += n_ticks
            if self.state.timestep >= due:
                log_save(self._parts.info.algorithm, self.state.timestep, total, self._shown)
                self.save()
            if self._unreported >= FEWEST_TICKS_BETWEEN_REPORTS or self._late():
                self._report()

    def _ticks_until(self, timestep: int) -> int:
        """Ticks that bring the steps of all slots to `timestep` or beyond."""
        return -((self.state.timestep - timestep) // self._source.n_slots)

    def _late(self) -> bool:
        """Whether the last report is so long ago that somebody who asked to stop would wonder."""
        return time.perf_counter() - self._reported_at >= SECONDS_BETWEEN_REPORTS

    def _report(self) -> None:
        self._unreported, self._reported_at = 0, time.perf_counter()
        total = self._params.timesteps
        done = min(self.state.timestep, total)  # the last ticks of many slots go beyond
        self._context.report(Progress(self._parts.info.algorithm, done, total, self._shown, live=True))

    def _report_patiently(self) -> None:
        """Report from within an update, which is finished before the run stops: the report after it is due at once."""
        try:
            self._report()
        except Interrupted:
            self._reported_at = -math.inf


def ticks_in_time(n_ticks: int, seconds: float) -> int:
    """Ticks until the next look at the clock, when `n_ticks` took `seconds`; a slow environment is given few.

    >>> ticks_in_time(64, 0.01), ticks_in_time(64, 16.0), ticks_in_time(4, 20.0)
    (512, 4, 1)
    """
    paced = n_ticks * SECONDS_BETWEEN_REPORTS / max(seconds, 1e-9)
    return int(min(max(paced, 1), TICKS_BETWEEN_REPORTS))


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
