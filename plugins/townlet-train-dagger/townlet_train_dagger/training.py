"""Play, label, learn, repeat (Ross, Gordon and Bagnell 2011, algorithm 3.1), from start to result.

A checkpoint is saved between iterations and holds everything the rest of the run depends on, so a run that goes on
from one is the same run, bit for bit. An iteration that is stopped in its middle begins again.
"""

from __future__ import annotations

import time
from contextlib import closing
from statistics import pstdev

from townlet_train.api import (
    Interrupted,
    Progress,
    TrainingContext,
    VectorEnv,
    build_env,
)
from townlet_train.learners.bc import limited_threads
from townlet_train.learners.held_out import held_out_facts
from townlet_train_dagger.run_state import RunState
from townlet_train_dagger.strategy import DAggerParams, DAggerResultDTO


def train(context: TrainingContext, params: DAggerParams, *, algorithm: str) -> DAggerResultDTO:
    """Iterate as often as `params` say, then evaluate; a checkpoint handed in is gone on from.

    Raises:
        Interrupted: the user asked to stop; names the checkpoint to resume from.
        CheckpointError: the checkpoint to go on from is of another environment, or of other demonstrations.
        DataError: the manifest's frames are not those of the environment.
    """
    started = time.perf_counter()
    with (
        limited_threads(torch_threads=1, numpy_threads=1),  # sums round otherwise with more
        closing(build_env(context.config, params.n_envs)) as env,
    ):
        state = RunState(context, params, env, algorithm)
        seconds = _iterate(state, context, params, env)
        model = state.save_model()
    held_out = held_out_facts(model, params.evaluation_episodes, context, env.spec.reward_threshold)
    evaluation = held_out["evaluation"]
    return DAggerResultDTO(
        **state.facts(),
        **held_out,
        warnings=state.warnings,
        collect_sec=seconds[0],
        update_sec=seconds[1],
        final_reward_mean=None if evaluation is None else evaluation.mean,
        final_reward_std=None if evaluation is None else pstdev(evaluation.episode_returns),
        total_episodes=None if evaluation is None else len(evaluation.episode_returns),
        duration_sec=time.perf_counter() - started,
    )


def _iterate(
    state: RunState, context: TrainingContext, params: DAggerParams, env: VectorEnv
) -> tuple[float, float]:
    """Play, label and learn until it was done often enough; seconds of playing, and of learning."""
    collect_sec = update_sec = 0.0
    checkpoint = None
    try:
        if state.needs_clone:
            state.learn(on_progress=lambda: _report(state, context, params))
        checkpoint = state.save()
        while state.iteration < params.n_iterations:
            began = time.perf_counter()
            beta = state.beta
            tally = state.play(on_tick=lambda: _report(state, context, params))
            played = time.perf_counter()
            learned = state.learn(on_progress=lambda: _report(state, context, params))
            state.finish_iteration(tally)
            ended = time.perf_counter()
            collect_sec, update_sec = collect_sec + played - began, update_sec + ended - played
            line = {"timestep": state.timestep, "iteration": state.iteration, "beta": beta}
            times = {"collect_sec": played - began, "update_sec": ended - played}
            context.record({**line, **tally.line(), **learned.line(), **times})
            checkpoint = state.save()
            shown = {"val_accuracy": learned.val_accuracy} | (
                {} if tally.agreement is None else {"agreement": tally.agreement}
            )
            context.report(Progress("dagger", state.timestep, params.timesteps, shown))
    except Interrupted as stop:
        saved = checkpoint or state.save()
        fork = "" if state.resumable else " --fork"
        raise Interrupted(
            f"{stop} Iteration {state.iteration + 1} begins again with --resume-from {saved}{fork}"
        ) from stop
    return collect_sec, update_sec


def _report(state: RunState, context: TrainingContext, params: DAggerParams) -> None:
    """Say how far the run is, and stop where that is wanted."""
    context.report(Progress("dagger", state.timestep, params.timesteps, {}, live=True))
