"""One anneal, stage after stage: each is trained, measured and compared, and guardrails act."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from townlet_train.api import (
    AnnealStageResultDTO,
    AnnealSummaryDTO,
    Checkpoint,
    CheckpointError,
    EvaluationDTO,
    EventLog,
    Interrupted,
    NetworkSpec,
    Progress,
    TrainingError,
    TrainingResultDTO,
    UsageError,
    load_baselines,
    load_checkpoint,
    save_checkpoint,
)
from townlet_train.strategies.anneal.ending import summary
from townlet_train.strategies.anneal.guardrails import Flag, Yardstick, flags_of, keeps_surely
from townlet_train.strategies.anneal.journey import ACTIONS, Journey
from townlet_train.strategies.anneal.params import ANNEAL, BC, CRITIC_WARMUP, DAGGER, EVAL, PPO, StageParams
from townlet_train.strategies.anneal.setting import Setting
from townlet_train.strategies.anneal.stage_params import stage_strategy
from townlet_train.strategies.anneal.telling import LOSS_BASELINE, describe, describe_failed, events_of
from townlet_train.strategies.anneal.training import newest, train_stage

logger = logging.getLogger(__name__)
SELECTION_SEED = 25_000_000  # of the episodes that stages are measured on, which select the best
LOG = "anneal_log.jsonl"
UNMOVED = (CRITIC_WARMUP, EVAL)  # stages that leave the policy as it was, which no strike would mend


class Anneal:
    """The stages of one anneal, from where it is."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self._log = EventLog(setting.context.run_dir / LOG)
        self._recorded = 0  # timestep of the last line in the metrics
        self._measured: dict[str, EvaluationDTO] = {}  # by what acts

    def run(self) -> AnnealSummaryDTO:
        """Stage after stage until all are done or the guardrails end it."""
        started = time.perf_counter()
        journey = self._begin()
        try:
            for index in range(len(journey.stages), len(self.setting.stages)):
                if journey.status is not None:
                    break
                journey = self._advance(journey, index)
                self._save(journey)
                self._report(journey)
            return summary(self.setting, journey, started)
        except Interrupted as stop:
            raise Interrupted(
                f"Stopped after {len(journey.stages)} of {len(self.setting.stages)} stages; what had begun begins "
                f"again when the anneal goes on: townlet-train anneal --resume-from latest "
                f"--output-dir {self.setting.context.run_dir}"
            ) from stop

    def _begin(self) -> Journey:
        """The journey so far, from the checkpoint to go on from; what was logged after it is forgotten."""
        context, start = self.setting.context, self.setting.context.start
        if start is None or start.fork:
            folder = self.setting.params.promotion_dir
            kept = {} if folder is None else load_baselines(folder)
            return Journey(baselines=kept, loss=kept.get(self.setting.label, {}).get(LOSS_BASELINE))
        if start.path.resolve().parent != context.run_dir.resolve():
            raise UsageError(
                f"An anneal goes on where its stages are, {start.path.parent}, not in {context.run_dir}. "
                f"Leave --output-dir out, or begin another one."
            )
        journey = Journey.model_validate(start.checkpoint.state["journey"])
        self._recorded = start.checkpoint.state["recorded"]
        self._log.rewind(start.path.parent / LOG, lambda event: event["stage"] < len(journey.stages))
        return journey

    def _advance(self, journey: Journey, index: int) -> Journey:
        """One stage: train, measure, compare, act."""
        setting, stage, started = self.setting, self.setting.stages[index], time.perf_counter()
        told = stage_strategy(stage, journey, setting)
        before = journey
        try:
            result = None if stage.mode == EVAL else self._train(journey, index, told)
            journey = self._moved(journey, stage, result)
            measured = self._measure(journey)
        except (TrainingError, CheckpointError) as error:
            reason = f"Stage {index} ({stage.mode}) failed: {error}"
            done = describe_failed(setting, stage, before, reason)
            return self._told(index, done, before.fail(reason), started)
        journey = self._pinned(journey, stage, measured)
        loss = getattr(result, "loss_total", None)
        compared = loss if stage.mode == PPO and loss is not None else journey.loss
        flags = self._flags(journey, stage, measured, loss)
        done = describe(setting, stage, journey, result, measured, flags, told)
        if stage.mode == BC and done.passed is False:
            after = journey.fail(
                f"The clone's held-out accuracy is {done.accuracy:.3f}, below {done.threshold:g}."
            )
            action: str | None = "fail"
        elif flags and stage.mode in UNMOVED:
            after, action = journey, None
        elif flags and not setting.params.guardrails.act:
            after, action = journey.note(measured, compared), None
        elif flags:
            after, action = journey.object(tuple(flag.reason for flag in flags)), ACTIONS[journey.strikes]
        else:
            journey = _imitated_better(journey, stage, measured)
            sure = self._is_sure(journey, measured)
            after, action = journey.accept(measured, compared, sure=sure), None
        acted = {
            "action": action,
            "rolled_back": action in ("restore", "hold", "fail"),
            "best": after.best == journey.current and action is None,
        }
        return self._told(index, done.model_copy(update=acted), after, started)

    def _train(self, journey: Journey, index: int, told: Mapping[str, Any]) -> TrainingResultDTO:
        record = partial(self._record, self.setting.stages[index], index, journey.steps)
        return train_stage(self.setting, journey, index, told, record)

    def _record(self, stage: StageParams, index: int, before: int, line: Mapping[str, Any]) -> None:
        """A line of a stage in the run's metrics, its steps counted on from the stages before."""
        steps = before if stage.mode == BC else before + line.get("timestep", 0)
        if index and steps <= self._recorded:
            return  # a line that no resumed run could tell from one before
        self._recorded = steps
        named = {"stage": index, "mode": stage.mode, "cycle": stage.cycle}
        social_stage = self.setting.social_stage(stage)
        self.setting.context.record({**line, "timestep": steps, **named, "social_stage": social_stage})

    def _moved(self, journey: Journey, stage: StageParams, result: TrainingResultDTO | None) -> Journey:
        """The journey with what a stage left; `TrainingError` when a strategy left nothing to go on with."""
        if result is None:
            return journey
        if result.checkpoint is None:
            raise TrainingError("It left no checkpoint.")
        left = self._below(newest(Path(result.checkpoint)))
        told = getattr(result, "steps", None)
        recorded = max(0, self._recorded - journey.steps)  # what is known where a result does not say
        steps = 0 if stage.mode == BC else recorded if told is None else int(told)
        taught = stage.mode == CRITIC_WARMUP and journey.current == journey.restart
        return journey.model_copy(
            update={
                "current": left,
                "restart": left if taught else journey.restart,
                "continues": stage.mode,
                "clone": left if stage.mode == BC else journey.clone,
                "steps": journey.steps + steps,
            }
        )

    def _below(self, checkpoint: Path) -> str:
        """A checkpoint's place below the run's directory, which may be moved."""
        run_dir = self.setting.context.run_dir.resolve()
        if not checkpoint.resolve().is_relative_to(run_dir):
            raise TrainingError(f"It left {checkpoint}, which is not in the directory it was given.")
        return str(checkpoint.resolve().relative_to(run_dir))

    def _measure(self, journey: Journey) -> EvaluationDTO:
        """What the policy at hand earns on the seeds that select; one that acts as another did is not asked again."""
        assert journey.current is not None  # `prepare` saw to a first stage that leaves one
        path = self.setting.path(journey.current)
        acts = _fingerprint(load_checkpoint(path))
        if acts not in self._measured:
            episodes = self.setting.suits.stage_episodes
            measured = self.setting.evaluate(episodes, SELECTION_SEED, checkpoint=path)
            for guardrail in self.setting.context.config.gate.guardrails:
                guardrail.check_counted(measured.events)
            self._measured[acts] = measured
        return self._measured[acts].model_copy(update={"policy": journey.current})  # wherever the run is

    def _pinned(self, journey: Journey, stage: StageParams, measured: EvaluationDTO) -> Journey:
        """The clone is the reference that everything after it is compared with."""
        if stage.mode != BC or journey.reference is not None:
            return journey
        random = self.setting.evaluate(self.setting.suits.stage_episodes, SELECTION_SEED, scripted="random")
        return journey.model_copy(
            update={"reference": measured, "previous": measured, "random_mean": random.mean}
        )

    def _flags(
        self, journey: Journey, stage: StageParams, measured: EvaluationDTO, loss: float | None
    ) -> tuple[Flag, ...]:
        reference, previous, random_mean = journey.reference, journey.previous, journey.random_mean
        if stage.mode == BC or reference is None or previous is None or random_mean is None:
            return ()
        baseline = journey.loss if stage.mode == PPO else None  # losses of two methods cannot be compared
        yardstick = Yardstick(reference, previous, random_mean, baseline)
        held = self.setting.context.config.gate.guardrails
        return flags_of(measured, loss, yardstick, self.setting.params.guardrails, held)

    def _is_sure(self, journey: Journey, measured: EvaluationDTO) -> bool:
        """Whether it earns more than the clone, and its events are shown to be within what the gate allows."""
        reference, held = journey.reference, self.setting.context.config.gate.guardrails
        return (
            reference is not None
            and measured.mean > reference.mean
            and keeps_surely(measured, reference, held)
        )

    def _told(self, index: int, done: AnnealStageResultDTO, after: Journey, started: float) -> Journey:
        """The journey with a stage that is done, which the log hears of."""
        for event in events_of(index, done, after, time.perf_counter() - started):
            self._log.append(event)
        if done.action is not None:
            logger.warning("stage %d (%s): %s. %s", index + 1, done.mode, done.action, " ".join(done.flags))
        return after.model_copy(update={"stages": (*after.stages, done)})

    def _report(self, journey: Journey) -> None:
        """Tell whoever watches of the newest stage."""
        done, n_stages = journey.stages[-1], len(self.setting.stages)
        shown = {"return": done.return_mean, "faints_per_10k": done.faints_per_10k, "kl_coef": done.kl_coef}
        numbers = {name: float(value) for name, value in shown.items() if value is not None}
        self.setting.context.report(Progress(f"stage {done.mode}", len(journey.stages), n_stages, numbers))

    def _save(self, journey: Journey) -> None:
        """The policy so far, and all that the stages to come depend on."""
        if journey.current is None:
            return
        context, policy = self.setting.context, load_checkpoint(self.setting.path(journey.current))
        state = {
            "seed": context.seed,
            "config": context.config.model_dump(mode="json"),
            "params": self.setting.params.model_dump(mode="json"),
            "timestep": journey.steps,
            "recorded": self._recorded,
            "journey": journey.model_dump(mode="json"),
        }
        path = context.run_dir / f"checkpoint_{journey.steps}.zip"
        info = policy.info.model_copy(update={"algorithm": ANNEAL})
        save_checkpoint(path, Checkpoint(info, policy.weights, state, training={}))


def _imitated_better(journey: Journey, stage: StageParams, measured: EvaluationDTO) -> Journey:
    """The journey with what a stage of DAgger left as its clone, where that earns more than the clone before."""
    if stage.mode != DAGGER or journey.reference is None or measured.mean <= journey.reference.mean:
        return journey
    return journey.model_copy(update={"clone": journey.current, "reference": measured})


def _fingerprint(policy: Checkpoint) -> str:
    """A hash of all that decides what a policy does: two of one fingerprint act alike, whoever else reads the trunk."""
    spec = NetworkSpec.from_document(policy.info.network)
    digest = hashlib.sha256(repr(replace(spec, shared_trunk=False)).encode())
    for name in (*spec.actor_shapes(), *sorted(policy.weights.keys() - spec.parameter_shapes().keys())):
        digest.update(policy.weights[name].tobytes())
    return digest.hexdigest()
