"""Random search (Mania, Guy and Recht 2018, ARS V1-t): every environment plays a policy of its own, all at once."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from townlet_train.api import (
    Checkpoint,
    CheckpointInfo,
    EnvSpec,
    Interrupted,
    Lineage,
    NetworkSpec,
    Observation,
    Progress,
    TrainingContext,
    VectorEnv,
    build_env,
    episodes_over,
    save_checkpoint,
)

if TYPE_CHECKING:
    from townlet_train_random_search import RandomSearchParams

Float = NDArray[np.float64]
UNCLIPPED = 1e9  # features reach the network as they are
SHARPNESS = 1e5  # logits of the checkpoint are multiplied by this, so that sampling, too, takes the largest


class Reached(NamedTuple):
    """Where a search ended."""

    model: Path
    steps: int  # agent-ticks played
    return_mean: float  # of what the last step tried


def search(context: TrainingContext, params: RandomSearchParams, algorithm: str) -> Reached:
    """Step after step from W = 0; action is argmax W x among the legal ones.

    Raises:
        Interrupted: the user asked to stop; the policy so far is saved, and named.
    """
    n, steps, mean = params.n_directions, 0, 0.0
    model = context.run_dir / f"{algorithm}_seed{context.seed}_model.zip"
    with closing(build_env(context.config, 2 * n)) as env:
        weights = np.zeros((len(env.spec.action_names), len(env.spec.feature_names)))
        for iteration in range(params.n_iterations):
            directions = context.rng.standard_normal((n, *weights.shape))
            tried = np.concatenate([directions, -directions]) * params.noise + weights
            first = context.seed + iteration * n
            seeds = np.arange(first, first + n)  # the same forwards and backwards
            returns, played = play(env, tried, np.concatenate([seeds, seeds]), params.max_ticks)
            weights += step(directions, returns[:n], returns[n:], params)
            steps, mean = steps + played, float(returns.mean())
            info = describe(env.spec, algorithm, (context.seed, first + n - 1), context.config_hash)
            save_checkpoint(model, Checkpoint(info, as_network(weights), {"timestep": steps}))
            context.record({"timestep": steps, "iteration": iteration + 1, "reward": mean})
            try:
                context.report(Progress(algorithm, iteration + 1, params.n_iterations, {"return": mean}))
            except Interrupted as stop:
                raise Interrupted(f"{stop} The policy so far is {model}") from stop
    return Reached(model, steps, mean)


def play(env: VectorEnv, policies: Float, seeds: NDArray[np.int64], max_ticks: int) -> tuple[Float, int]:
    """The return of an episode of each policy (n_envs, n_actions, n_features) in its environment; and agent-ticks."""
    observation = env.reset(seeds)
    returns, running, ticks = np.zeros(env.n_envs), np.ones(env.n_envs, np.bool_), 0
    while running.any() and ticks < max_ticks:
        outcome = env.step(act(policies, observation))
        returns += outcome.rewards.mean(axis=1) * running
        running &= ~episodes_over(env.spec, outcome)
        observation, ticks = outcome.observation, ticks + 1
    return returns, ticks * env.n_envs * env.n_agents


def act(policies: Float, observation: Observation) -> NDArray[np.int64]:
    """Every agent's largest legal logit (n_envs, n_agents), by the policy of its environment."""
    logits = np.einsum("eaf,enf->ena", policies, observation.features)
    return np.asarray(np.where(observation.action_mask, logits, -np.inf).argmax(axis=-1), np.int64)


def step(directions: Float, forwards: Float, backwards: Float, params: RandomSearchParams) -> Float:
    """alpha / (b sigma) sum (r+ - r-) delta over the b best directions; nothing where all returns are equal."""
    best = np.argsort(-np.maximum(forwards, backwards), kind="stable")[: params.n_best]
    deviation = float(np.concatenate([forwards[best], backwards[best]]).std())
    if deviation == 0:
        return np.zeros(directions.shape[1:])
    gains = forwards[best] - backwards[best]
    along: Float = np.tensordot(gains, directions[best], axes=1)
    return along * (params.step_size / (len(best) * deviation))


def network_of(n_features: int, n_actions: int) -> NetworkSpec:
    """A network that can be W relu(x) - W relu(-x) = W x."""
    return NetworkSpec(
        "mlp", n_features, n_actions, (2 * n_features,), activation="relu", feature_clip=UNCLIPPED
    )


def as_network(weights: Float) -> dict[str, NDArray[np.float32]]:
    """A linear policy (n_actions, n_features) as the arrays of that network; its critic knows nothing."""
    n_actions, n_features = weights.shape
    shapes = network_of(n_features, n_actions).parameter_shapes()
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    identity, sharp = np.eye(n_features, dtype=np.float32), (weights * SHARPNESS).astype(np.float32)
    return {
        **arrays,
        "mlp_extractor.policy_net.0.weight": np.concatenate([identity, -identity]),
        "action_net.weight": np.concatenate([sharp, -sharp], axis=1),
        "normaliser.mean": np.zeros(n_features, np.float32),
        "normaliser.std": np.ones(n_features, np.float32),
    }


def describe(spec: EnvSpec, algorithm: str, seeds: tuple[int, int], config_hash: str) -> CheckpointInfo:
    """What the checkpoint says of its policy, which trained on the seeds from the first to the last."""
    return CheckpointInfo(
        algorithm=algorithm,
        env_id=spec.env_id,
        feature_names=spec.feature_names,
        action_names=spec.action_names,
        network=network_of(len(spec.feature_names), len(spec.action_names)).to_document(),
        lineage=Lineage(training_seeds=(seeds,)),
        config_hash=config_hash,
    )
