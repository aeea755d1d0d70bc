"""One anneal, stage after stage: each is trained, measured and compared, and guardrails act."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import pstdev
from typing import Any

from townlet_train.api import (
    AnnealContext,
    AnnealStageResultDTO,
    AnnealStatus,
    AnnealSummaryDTO,
    Checkpoint,
    CheckpointError,
    EvaluationDTO,
    EventLog,
    GateDTO,
    Interrupted,
    Progress,
    PromotionStatusDTO,
    StartingPoint,
    TownletTrainError,
    TrainingContext,
    TrainingError,
    TrainingResultDTO,
    UsageError,
    capture_as_configured,
    gate_checkpoints,
    gate_evidence,
    load_baselines,
    load_checkpoint,
    save_baselines,
    save_checkpoint,
    sha256_of,
    spec_of,
    stream,
)
from townlet_train.strategies.anneal.guardrails import (
    INTENSITY,
    LOSS,
    QUEUE,
    Flag,
    Yardstick,
    faints_per_10k,
    flags_of,
)
from townlet_train.strategies.anneal.journey import ACTIONS, Journey
from townlet_train.strategies.anneal.params import ANNEAL, BC, DAGGER, EVAL, PPO, AnnealParams, StageParams
from townlet_train.strategies.anneal.schedule import Suits, stages_of, what_suits
from townlet_train.strategies.anneal.stage_params import stage_strategy

FIRST_STAGE_SEED, LAST_STAGE_SEED = 1_000_000, 20_000_000
SELECTION_SEED = 25_000_000  # of the episodes that stages are measured on, which select the best
LOSS_BASELINE = "loss_total"
EVENTS_BASELINE, INTENSITY_BASELINE = "queue_conflict_events", "queue_conflict_intensity"
logger = logging.getLogger(__name__)
DEMONSTRATIONS, STAGES, LOG, CLONE = "demonstrations", "stages", "anneal_log.jsonl", "clone.zip"


class Anneal:
    """One anneal: its schedule, and what every stage is told."""

    def __init__(self, params: AnnealParams, context: TrainingContext) -> None:
        self.params, self.context = params, context
        self.suits: Suits = what_suits(context.config.env, params)
        self.stages = stages_of(params, self.suits)
        self.manifest = self._demonstrations()
        self.label = params.dataset_label or _label(self.manifest, params.clone)
        self.log = EventLog(context.run_dir / LOG)
        self.recorded = 0  # timestep of the last line in the metrics

    def run(self) -> AnnealSummaryDTO:
        started = time.perf_counter()
        journey = self._begin()
        for index in range(len(journey.stages), len(self.stages)):
            if journey.status is not None:
                break
            journey = self._advance(journey, index)
            self._save(journey)
        return self._summary(journey, started)

    def _begin(self) -> Journey:
        """The journey so far, from the checkpoint to go on from; what was logged after it is forgotten."""
        start = self.context.start
        if start is None or start.fork:
            folder = self.params.promotion_dir
            kept = {} if folder is None else load_baselines(folder)
            return Journey(baselines=kept, loss=kept.get(self.label, {}).get(LOSS_BASELINE))
        if start.path.resolve().parent != self.context.run_dir.resolve():
            raise UsageError(
                f"An anneal goes on where its stages are, {start.path.parent}, not in {self.context.run_dir}. "
                f"Leave --output-dir out, or begin another one."
            )
        journey = Journey.model_validate(start.checkpoint.state["journey"])
        self.recorded = start.checkpoint.state["recorded"]
        self.log.rewind(start.path.parent / LOG, lambda event: event["stage"] < len(journey.stages))
        return journey

    def _demonstrations(self) -> Path | None:
        """The manifest that was named, or that of the expert's rollouts, captured unless that was done before.

        None where a clone is given.
        """
        if self.params.clone is not None:
            return None
        replay = self.context.services.replay
        if self.params.bc_manifest is not None:
            return replay.resolve_manifest(self.params.bc_manifest)
        folder = self.context.run_dir / DEMONSTRATIONS
        if not folder.exists():

            def report(done: int, total: int) -> None:
                self.context.report(Progress("capture", done, total, {}))

            config = self.context.config
            usual = type(config.rollout)()
            suits = {
                name: value
                for name, value in self.suits.capture.items()
                if getattr(config.rollout, name) == getattr(usual, name)  # what was said otherwise holds
            }
            wanted = config.rollout.model_copy(update=suits)
            capture_as_configured(
                config.model_copy(update={"rollout": wanted}),
                output=folder,
                with_maps=self.suits.bc.get("network") == "conflict_aware",
                report=report,
                experts=self.context.services.experts,
            )
        return replay.resolve_manifest(folder)

    def _advance(self, journey: Journey, index: int) -> Journey:
        """One stage: train, measure, compare, act."""
        stage, started = self.stages[index], time.perf_counter()
        folder = self.context.run_dir / STAGES / f"{index:02d}_{stage.mode}"
        told = stage_strategy(stage, journey, self)
        before = journey
        try:
            result = None if stage.mode == EVAL else self._train(stage, journey, index, folder, told)
            journey = self._moved(journey, stage, result)
            measured = self._measure(journey)
        except (TrainingError, CheckpointError) as error:
            reason = f"Stage {index} ({stage.mode}) failed: {error}"
            return self._failed(before, stage, index, reason, time.perf_counter() - started)
        except Interrupted as stop:
            raise Interrupted(
                f"Stopped in stage {index} ({stage.mode}), which begins again when the anneal goes on: "
                f"--resume-from latest --output-dir {self.context.run_dir}"
            ) from stop
        journey = self._pinned(journey, stage, measured)
        loss = getattr(result, "loss_total", None)
        flags = self._flags(journey, stage, measured, loss)
        described = self._describe(stage, journey, result, measured, flags, told)
        if stage.mode == BC and described.passed is False:
            after = journey.fail(
                f"The clone's held-out accuracy is {described.accuracy:.3f}, below {described.threshold:g}."
            )
            action: str | None = "fail"
        elif flags and not self.params.guardrails.act:
            after, action = journey.note(measured, journey.loss if loss is None else loss), None
        elif flags:
            after, action = journey.object(tuple(flag.reason for flag in flags)), ACTIONS[journey.strikes]
        else:
            journey = _imitated_better(journey, stage, measured)
            comparable = stage.mode == PPO and loss is not None
            after, action = journey.accept(measured, loss if comparable else journey.loss), None
        described = described.model_copy(
            update={
                "action": action,
                "rolled_back": action in ("restore", "hold", "fail"),
                "best": after.best == journey.current and action is None,
            }
        )
        self._tell(index, described, after, time.perf_counter() - started)
        return after.model_copy(update={"stages": (*journey.stages, described)})

    def _failed(
        self, journey: Journey, stage: StageParams, index: int, reason: str, seconds: float
    ) -> Journey:
        """A stage that left nothing, as an end."""
        done = AnnealStageResultDTO(
            cycle=stage.cycle,
            mode=stage.mode,
            steps=0,
            total_steps=journey.steps,
            social_stage=self._social_stage(stage),
            flags=(reason,),
            action="fail",
            rolled_back=True,
        )
        after = journey.fail(reason)
        self._tell(index, done, after, seconds)
        return after.model_copy(update={"stages": (*journey.stages, done)})

    def _train(
        self, stage: StageParams, journey: Journey, index: int, folder: Path, told: Mapping[str, Any]
    ) -> TrainingResultDTO:
        """Run a stage's strategy in a folder of its own, from where the journey is."""
        shutil.rmtree(folder, ignore_errors=True)  # of a life that was killed
        folder.mkdir(parents=True)
        if stage.mode == BC and self.params.clone is not None:
            return _given(self.params.clone, folder)
        rng = stream(self.context.seed, f"stage {index}")
        strategy = self.context.build_strategy(told["strategy"], told["params"])
        context = replace(
            self.context,
            config=self._config(stage),
            seed=int(rng.integers(FIRST_STAGE_SEED, LAST_STAGE_SEED)),
            rng=rng,
            run_dir=folder,
            record=partial(self._record, stage, index, journey.steps),
            anneal_context=self._anneal_context(stage, journey),
            start=self._start(stage, journey),
        )
        strategy.prepare(context)
        try:
            return strategy.run(context)
        except (TownletTrainError, OSError, MemoryError):
            raise
        except Exception as error:
            logger.debug("%s failed", strategy.name, exc_info=True)
            raise TrainingError(
                f"{type(error).__name__}: {str(error).rstrip('.')}. Its traceback is in the run's log."
            ) from error

    def _config(self, stage: StageParams) -> Any:
        """The run's config with the social rewards of the stage's cycle."""
        config = self.context.config
        return config.model_copy(update={"town": config.town_in_cycle(stage.cycle)})

    def _start(self, stage: StageParams, journey: Journey) -> StartingPoint | None:
        """The policy to go on with; the optimiser goes on only from a stage of the same kind."""
        if journey.current is None or stage.mode == BC:
            return None
        path = self.context.run_dir / journey.current
        return StartingPoint(
            path, sha256_of(path), load_checkpoint(path), fork=True, optimiser=journey.continues == stage.mode
        )

    def _record(self, stage: StageParams, index: int, before: int, line: Mapping[str, Any]) -> None:
        """A line of a stage in the run's metrics, its steps counted on from the stages before."""
        steps = before if stage.mode == BC else before + line.get("timestep", 0)
        if index and steps <= self.recorded:
            return  # a line that no resumed run could tell from one before
        self.recorded = steps
        named = {"stage": index, "mode": stage.mode, "cycle": stage.cycle}
        self.context.record({**line, "timestep": steps, **named, "social_stage": self._social_stage(stage)})

    def _social_stage(self, stage: StageParams) -> str | None:
        return self.context.config.social_stage(stage.cycle) if self.context.config.env == "town" else None

    def _anneal_context(self, stage: StageParams, journey: Journey) -> AnnealContext:
        clone = next((done for done in journey.stages if done.mode == BC), None)
        reference, limits = journey.reference, self.params.guardrails
        kept = journey.baselines.get(self.label, {})
        before = {QUEUE: kept.get(EVENTS_BASELINE), INTENSITY: kept.get(INTENSITY_BASELINE)}
        events = before if reference is None else reference.events
        return AnnealContext(
            cycle=stage.cycle,
            stage=stage.mode,
            dataset_label=self.label,
            bc_accuracy=None if clone is None else clone.accuracy,
            bc_threshold=self.suits.bc_threshold,
            bc_passed=clone is not None and bool(clone.passed),
            loss_baseline=journey.loss,
            queue_events_baseline=events.get(QUEUE),
            queue_intensity_baseline=events.get(INTENSITY),
            loss_tolerance=limits.loss_tolerance,
            queue_tolerance=self._queue_tolerance(),
        )

    def _queue_tolerance(self) -> float:
        """Share that queue conflicts may fall, as the gate says."""
        found = (held.tolerance for held in self.context.config.gate.guardrails if held.event == QUEUE)
        return next((tolerance for tolerance in found if tolerance is not None), 0.0)

    def _moved(self, journey: Journey, stage: StageParams, result: TrainingResultDTO | None) -> Journey:
        """The journey with what a stage left; `TrainingError` when a strategy left nothing to go on with."""
        if result is None:
            return journey
        if result.checkpoint is None:
            raise TrainingError("It left no checkpoint.")
        left = str(_newest(Path(result.checkpoint)).relative_to(self.context.run_dir))
        recorded = max(0, self.recorded - journey.steps)  # what is known where a result does not say
        steps = 0 if stage.mode == BC else int(getattr(result, "steps", recorded))
        return journey.model_copy(
            update={
                "current": left,
                "continues": stage.mode,
                "clone": left if stage.mode == BC else journey.clone,
                "steps": journey.steps + steps,
            }
        )

    def _measure(self, journey: Journey) -> EvaluationDTO:
        """What the policy at hand earns on the held-out seeds."""
        assert journey.current is not None  # `prepare` saw to a first stage that leaves one
        path = self._path(journey.current)
        measured = self._evaluate(self.params.stage_episodes, SELECTION_SEED, checkpoint=path)
        return measured.model_copy(update={"policy": journey.current})  # the same wherever the run is

    def _path(self, below: str | None) -> Path:
        """A checkpoint of this run, from its place below the run's directory."""
        return self.context.run_dir / str(below)

    def _evaluate(self, episodes: int, seed: int | None, **whom: Any) -> EvaluationDTO:
        def report(done: int, total: int) -> None:
            self.context.report(Progress("evaluate", done, total, {}, live=True))

        return self.context.services.evaluation.evaluate(**whom, episodes=episodes, seed=seed, report=report)

    def _pinned(self, journey: Journey, stage: StageParams, measured: EvaluationDTO) -> Journey:
        """The clone is the reference that everything after it is compared with."""
        if stage.mode != BC or journey.reference is not None:
            return journey
        random = self._evaluate(self.params.stage_episodes, SELECTION_SEED, scripted="random")
        return journey.model_copy(
            update={"reference": measured, "previous": measured, "random_mean": random.mean}
        )

    def _flags(
        self, journey: Journey, stage: StageParams, measured: EvaluationDTO, loss: float | None
    ) -> tuple[Flag, ...]:
        if stage.mode == BC or journey.reference is None or journey.previous is None:
            return ()
        baseline = journey.loss if stage.mode == PPO else None  # losses of two methods cannot be compared
        yardstick = Yardstick(journey.reference, journey.previous, journey.random_mean or 0.0, baseline)
        held = self.context.config.gate.guardrails
        return flags_of(measured, loss, yardstick, self.params.guardrails, held)

    def _describe(
        self,
        stage: StageParams,
        journey: Journey,
        result: TrainingResultDTO | None,
        measured: EvaluationDTO,
        flags: tuple[Flag, ...],
        told: Mapping[str, Any],
    ) -> AnnealStageResultDTO:
        found = {} if result is None else result.model_dump()
        is_clone, raised = stage.mode == BC, {flag.guardrail for flag in flags}
        accuracy = found.get("val_accuracy") if stage.mode in (BC, DAGGER) else None
        threshold = self.suits.bc_threshold if is_clone else None
        return AnnealStageResultDTO(
            cycle=stage.cycle,
            mode=stage.mode,
            steps=journey.steps - sum(done.steps for done in journey.stages),
            total_steps=journey.steps,
            social_stage=self._social_stage(stage),
            checkpoint=journey.current,
            accuracy=accuracy,
            threshold=threshold,
            passed=None if accuracy is None or threshold is None else accuracy >= threshold,
            loss=found.get("loss") if stage.mode in (BC, DAGGER) else None,
            **{
                name: _finite(found.get(name))
                for name in ("loss_total", "loss_policy", "loss_value", "explained_variance")
            },
            anneal_ratio=told["params"].get("expert_share"),
            bc_weight=told["params"].get("bc_coef"),
            reference_kl=found.get("reference_kl"),
            kl_coef=told["params"].get("kl_coef"),
            learning_rate=told["params"].get("learning_rate"),
            return_mean=measured.mean,
            return_low=measured.ci_low,
            return_high=measured.ci_high,
            faints_per_10k=faints_per_10k(measured),
            queue_conflict_events=measured.events.get("queue_conflict"),
            queue_conflict_intensity_sum=measured.events.get("queue_conflict_intensity"),
            anneal_loss_flag=None if is_clone else LOSS in raised,
            anneal_queue_flag=None if is_clone else QUEUE in raised,
            anneal_intensity_flag=None if is_clone else INTENSITY in raised,
            flags=tuple(flag.reason for flag in flags),
        )

    def _tell(self, index: int, done: AnnealStageResultDTO, after: Journey, seconds: float) -> None:
        """The stage as an event, and what was done about it as another."""
        stage = {"event": "stage", "stage": index, **done.model_dump(mode="json")}
        self.log.append({**stage, "duration_sec": seconds})
        if done.action is not None:
            self.log.append(
                {
                    "event": done.action,
                    "stage": index,
                    "cycle": done.cycle,
                    "reasons": list(done.flags or after.reasons),
                    "kl_scale": after.kl_scale,
                    "rate_scale": after.rate_scale,
                    "policy": after.current,
                }
            )
        shown = {"return": done.return_mean, "faints_per_10k": done.faints_per_10k, "kl_coef": done.kl_coef}
        numbers = {name: float(value) for name, value in shown.items() if value is not None}
        self.context.report(Progress(f"stage {done.mode}", index + 1, len(self.stages), numbers))

    def _save(self, journey: Journey) -> None:
        """The policy so far, and all that the stages to come depend on."""
        if journey.current is None:
            return
        policy = load_checkpoint(self.context.run_dir / journey.current)
        state = {
            "seed": self.context.seed,
            "config": self.context.config.model_dump(mode="json"),
            "params": self.params.model_dump(mode="json"),
            "timestep": journey.steps,
            "recorded": self.recorded,
            "journey": journey.model_dump(mode="json"),
        }
        path = self.context.run_dir / f"checkpoint_{journey.steps}.zip"
        info = policy.info.model_copy(update={"algorithm": ANNEAL})
        save_checkpoint(path, Checkpoint(info, policy.weights, state, training={}))

    def _judge(self, journey: Journey) -> tuple[GateDTO | None, PromotionStatusDTO | None]:
        """The verdict on the best policy beside the release, or beside the clone; where promotion stands then."""
        if journey.status is not None or not self.params.gate or journey.best is None:
            return None, None

        def report(done: int, total: int) -> None:
            self.context.report(Progress("gate", done, total, {}, live=True))

        promotion = self.context.services.promotion
        release = None if promotion is None else promotion.release
        if release is None and journey.best == journey.clone:
            return None, None  # nothing to judge beside but itself
        beside = release or self._path(journey.clone)
        verdict = gate_checkpoints(
            self.context.config,
            [self._path(journey.best)],
            beside,
            report=report,
            experts=self.context.services.experts,
            checks=self.context.services.gate_checks,
        )
        if promotion is None:
            return verdict, None
        found = gate_evidence(verdict.model_dump(mode="json"))
        against = None if release is None else found.release_sha256
        noted = promotion.record_evaluation(
            found.status, found.candidate, seeds=found.seeds, release_sha256=against
        )
        return verdict, noted

    def _ending(self, journey: Journey, verdict: GateDTO | None) -> tuple[AnnealStatus, tuple[str, ...]]:
        """The verdict where the guardrails held, and its reasons."""
        if verdict is not None:
            return verdict.verdict, verdict.reasons
        if self.params.gate and journey.best == journey.clone:
            return "HOLD", (
                "No stage was better than the clone, and there is no release to judge it beside.",
            )
        return "PASS", ()

    def _summary(self, journey: Journey, started: float) -> AnnealSummaryDTO:
        verdict, promotion = self._judge(journey)
        ending, reasons = self._ending(journey, verdict)
        best = journey.best or journey.current
        path = None if best is None else self._path(best)
        n, threshold = (
            self.params.evaluation_episodes,
            spec_of(self.context.config).reward_threshold,
        )
        evaluation = self._evaluate(n, None, checkpoint=path) if n and path is not None else None
        baselines, status = _baselines(journey), journey.status or ending
        if self.params.promotion_dir is not None and status != "FAIL":
            save_baselines(self.params.promotion_dir, self.label, baselines)
        return AnnealSummaryDTO(
            status=status,
            reasons=journey.reasons or reasons,
            gate=verdict,
            promotion_pass_streak=None if promotion is None else promotion.pass_streak,
            promotion_candidate_ready=None if promotion is None else promotion.candidate_ready,
            warnings=() if promotion is None else promotion.warnings,
            stages=journey.stages,
            dataset_label=self.label,
            baselines={**journey.baselines, self.label: baselines},
            steps=journey.steps,
            demonstrations=None if self.manifest is None else str(self.manifest),
            bc_checkpoint=None if journey.clone is None else str(self.context.run_dir / journey.clone),
            checkpoint=None if path is None else str(path),
            checkpoint_sha256=None if path is None else sha256_of(path),
            final_reward_mean=None if evaluation is None else evaluation.mean,
            final_reward_std=None if evaluation is None else pstdev(evaluation.episode_returns),
            total_episodes=None if evaluation is None else len(evaluation.episode_returns),
            evaluation=evaluation,
            reward_threshold=threshold,
            converged=None if evaluation is None else evaluation.reaches(threshold),
            duration_sec=time.perf_counter() - started,
        )


def _label(manifest: Path | None, clone: Path | None) -> str:
    """What baselines are kept under, where nobody says: the demonstrations' folder, or the clone's name."""
    return manifest.parent.name if manifest is not None else clone.stem if clone is not None else ""


def _given(clone: Path, folder: Path) -> TrainingResultDTO:
    """A clone that was there before, taken into the anneal."""
    path = folder / CLONE
    shutil.copyfile(clone, path)
    return TrainingResultDTO(strategy=BC, checkpoint=str(path), checkpoint_sha256=sha256_of(path))


def _imitated_better(journey: Journey, stage: StageParams, measured: EvaluationDTO) -> Journey:
    """The journey with what a stage of DAgger left as its clone, where that earns more than the clone before."""
    if stage.mode != DAGGER or journey.reference is None or measured.mean <= journey.reference.mean:
        return journey
    return journey.model_copy(update={"clone": journey.current, "reference": measured})


def _finite(value: float | None) -> float | None:
    """A number that a checkpoint's JSON can hold."""
    return value if value is not None and math.isfinite(value) else None


def _newest(model: Path) -> Path:
    """The checkpoint with its optimiser, where a stage left one beside the file that is only its policy."""
    steps = {path: path.stem.removeprefix("checkpoint_") for path in model.parent.glob("checkpoint_*.zip")}
    numbered = [path for path, step in steps.items() if step.isdigit()]
    return model if model in numbered or not numbered else max(numbered, key=lambda path: int(steps[path]))


def _baselines(journey: Journey) -> dict[str, float]:
    """What later stages are compared with, under upstream's names."""
    events = {} if journey.reference is None else journey.reference.events
    found = {
        LOSS_BASELINE: journey.loss,
        EVENTS_BASELINE: events.get(QUEUE),
        INTENSITY_BASELINE: events.get(INTENSITY),
        "return_mean": None if journey.reference is None else journey.reference.mean,
    }
    return {name: value for name, value in found.items() if value is not None}
