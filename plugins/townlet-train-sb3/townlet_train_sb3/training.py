"""One run of an algorithm of Stable-Baselines3, told, saved and measured as runs of townlet-train are."""

from __future__ import annotations

import math
import random
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import stable_baselines3
import torch
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from townlet_train.api import (
    Checkpoint,
    CheckpointInfo,
    Interrupted,
    Lineage,
    NetworkSpec,
    Progress,
    TrainingContext,
    build_env,
    save_checkpoint,
    seed_ranges,
)
from townlet_train.learners.assembly import describe
from townlet_train.learners.bc import limited_threads
from townlet_train.learners.curve import TrainingCurve
from townlet_train.learners.held_out import held_out_facts
from townlet_train.learners.logs import log_episodes, log_save
from townlet_train.learners.networks import ACTIVATIONS, network_for_env
from townlet_train.learners.params import TICKS_BETWEEN_CHECKPOINTS, TICKS_BETWEEN_LINES
from townlet_train.learners.telemetry import Spent
from townlet_train_sb3.arrays import checkpoint_arrays
from townlet_train_sb3.environments import SlotEnv
from townlet_train_sb3.strategies import OURS, SB3Params

TICKS_BETWEEN_REPORTS = 64


class Trained(NamedTuple):
    """What a run reached."""

    facts: Mapping[str, Any]  # by the names of the results
    told: Mapping[str, float]  # what Stable-Baselines3 logged of the last update, and what follows from it


def train(
    context: TrainingContext, params: SB3Params, name: str, algorithm: type[OnPolicyAlgorithm]
) -> Trained:
    """What `algorithm("MlpPolicy", env, seed=context.seed, ...).learn(timesteps)` does, and then an evaluation.

    Raises:
        Interrupted: the user asked to stop; the policy so far is saved, and named.
    """
    started = time.perf_counter()
    path = context.run_dir / f"{name}_seed{context.seed}_model.zip"
    with ExitStack() as opened:
        opened.enter_context(limited_threads(torch_threads=1, numpy_threads=1))
        opened.enter_context(generators_kept())
        env = opened.enter_context(closing(build_env(context.config, params.n_envs)))
        slots = SlotEnv(env)
        with warnings.catch_warnings(record=True, action="always") as warned:
            model = algorithm(
                "MlpPolicy",
                slots,
                seed=context.seed,
                policy_kwargs={
                    "net_arch": [*params.net_arch],
                    "activation_fn": ACTIVATIONS[params.activation_fn],
                },
                **params.model_dump(exclude=set(OURS)),
            )
        model.set_logger(Logger(None, []))
        network = network_for_env(env.spec, "mlp", params.net_arch, params.activation_fn)
        seeds = range(context.seed, context.seed + params.n_envs)
        lineage = Lineage(training_seeds=seed_ranges(seeds))
        info = describe(name, network, env.spec, lineage, config_hash=context.config_hash)
        versions = {**info.versions, "stable_baselines3": stable_baselines3.__version__}
        watch = Watch(context, params, info.model_copy(update={"versions": versions}), slots)
        try:
            model.learn(params.timesteps, callback=watch)
        except Interrupted as stop:
            watch.save(path)
            raise Interrupted(f"{stop} The policy so far is {path}") from stop
        watch.save(path)
    facts: dict[str, Any] = {
        **watch.facts(),
        **held_out_facts(path, params.evaluation_episodes, context, env.spec.reward_threshold),
        "duration_sec": time.perf_counter() - started,
        "warnings": tuple(" ".join(str(each.message).split()) for each in warned),
    }
    return Trained(facts, watch.update.numbers)


class Update(NamedTuple):
    """What the updates of one rollout measured, by the names of townlet-train."""

    numbers: Mapping[str, float]

    @property
    def loss(self) -> float:
        return self.numbers["loss"]

    def line(self) -> dict[str, Any]:
        """What a line of metrics.jsonl says of it."""
        return dict(self.numbers)


def told_by(model: OnPolicyAlgorithm, advantages: NDArray[np.float32], updates: int) -> Update:
    """What an algorithm logged of the updates it has just made; PPO's are means over them.

    The loss is made of its parts: PPO logs that of the last batch alone, A2C none.
    """
    logged = {name.removeprefix("train/"): float(value) for name, value in model.logger.name_to_value.items()}
    policy_loss = logged["policy_gradient_loss" if "policy_gradient_loss" in logged else "policy_loss"]
    value_loss, entropy = logged["value_loss"], -logged["entropy_loss"]
    numbers: dict[str, float] = {
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "loss": policy_loss + model.vf_coef * value_loss - model.ent_coef * entropy,
        **{name: logged[name] for name in ("approx_kl", "clip_fraction") if name in logged},
        "explained_variance": logged["explained_variance"],
        "advantage_mean": float(advantages.mean()),
        "advantage_std": float(advantages.std()),
        "learning_rate": float(model.policy.optimizer.param_groups[0]["lr"]),
        "updates": updates,
    }
    return Update(numbers)


class Watch(BaseCallback):
    """Sees a run from within Stable-Baselines3, and saves, records and reports it."""

    def __init__(
        self, context: TrainingContext, params: SB3Params, info: CheckpointInfo, env: SlotEnv
    ) -> None:
        super().__init__()
        self.update = Update({})  # the newest
        self._context, self._params, self._info, self._env = context, params, info, env
        self._curve = TrainingCurve(params.log_interval or TICKS_BETWEEN_LINES * params.n_envs)
        self._interval = params.checkpoint_interval or TICKS_BETWEEN_CHECKPOINTS * params.n_envs
        self._due = min(self._interval, params.total_steps)
        self._updates = self._rollouts = 0
        self._advantages: NDArray[np.float32] = np.zeros(0, np.float32)
        self._collect_sec = self._update_sec = self._moment = 0.0
        self._told = Spent(0, 0.0, 0.0)

    def _on_training_start(self) -> None:
        self.model.policy.optimizer.register_step_post_hook(self._count)

    def _count(self, *stepped: object) -> None:
        self._updates += 1

    def _on_rollout_start(self) -> None:
        self._learned()

    def _on_step(self) -> bool:
        if self.num_timesteps >= self._due:
            shown = {"return": self._curve.mean_return} if self._rollouts else {}
            log_save(self._info.algorithm, self.num_timesteps, self._params.total_steps, shown)
            self.save(self._context.run_dir / f"checkpoint_{self.num_timesteps}.zip")
            after = (self.num_timesteps // self._interval + 1) * self._interval
            self._due = min(after, self._params.total_steps)
        if self.n_calls % TICKS_BETWEEN_REPORTS == 0:
            self._report()
        return True

    def _on_rollout_end(self) -> None:
        self._advantages = self.locals["rollout_buffer"].advantages.copy()
        now = time.perf_counter()
        self._collect_sec += now - self._moment
        self._moment = now

    def _on_training_end(self) -> None:
        self._learned()
        line = self._curve.only_line(self.num_timesteps, self.update, self._times)
        if line is not None:
            self._context.record(line)

    def _learned(self) -> None:
        """Tell of the updates since the last rollout ended, if one has."""
        now = time.perf_counter()
        if self.num_timesteps:
            self._update_sec += now - self._moment
            self._rollouts += 1
            self.update = told_by(self.on_policy, self._advantages, self._updates)
            episodes, self._env.episodes = self._env.episodes, []
            log_episodes(episodes, self._curve.n_episodes)
            for line in self._curve.lines(episodes, self.num_timesteps, self.update, self._times):
                self._context.record(line)
            if self.num_timesteps < self._params.total_steps:
                self._report()
        self._moment = now

    @property
    def on_policy(self) -> OnPolicyAlgorithm:
        """The algorithm that is watched."""
        assert isinstance(self.model, OnPolicyAlgorithm)
        return self.model

    def _times(self) -> Mapping[str, float]:
        """The time spent since this was last asked."""
        now = Spent(self.num_timesteps, self._collect_sec, self._update_sec)
        spent, self._told = now.since(self._told), now
        return spent.fields()

    def _report(self) -> None:
        shown = {"return": self._curve.mean_return, "loss": self.update.loss} if self._rollouts else {}
        done, total = self.num_timesteps, self._params.total_steps
        self._context.report(Progress(self._info.algorithm, done, total, shown, live=True))

    def save(self, path: Path) -> None:
        """Write the policy as it is."""
        arrays = {
            name: tensor.detach().cpu().numpy() for name, tensor in self.model.policy.state_dict().items()
        }
        weights = checkpoint_arrays(NetworkSpec.from_document(self._info.network), arrays)
        state = {"timestep": self.num_timesteps, "updates": self._updates, "device": self._params.device}
        save_checkpoint(path, Checkpoint(self._info, weights, state))

    def facts(self) -> dict[str, Any]:
        """What results say of a run, whatever the method."""
        seconds, told = self._collect_sec + self._update_sec, self.update.numbers
        variance = told["explained_variance"]
        return {
            **self._curve.summary(),
            "epoch": self._rollouts,
            "updates": self._updates,
            "transitions": self._params.steps_per_rollout,
            "steps": self.num_timesteps,
            "checkpoint_interval": self._interval,
            "loss_policy": told["policy_loss"],
            "loss_value": told["value_loss"],
            "loss_entropy": told["entropy"],
            "loss_total": told["loss"],
            "adv_mean": told["advantage_mean"],
            "adv_std": told["advantage_std"],
            "grad_norm": math.nan,
            "explained_variance": None if math.isnan(variance) else variance,
            "lr": told["learning_rate"],
            "steps_per_sec": self.num_timesteps / seconds,
            "collect_sec": self._collect_sec,
            "update_sec": self._update_sec,
        }


@contextmanager
def generators_kept() -> Iterator[None]:
    """Stable-Baselines3 seeds the global generators and draws from them; afterwards they are as they were."""
    pythons, numpys, torchs = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(pythons)
        np.random.set_state(numpys)  # noqa: NPY002 - as above, the ones that it uses
        torch.set_rng_state(torchs)
