"""The other side of the bc benchmark; runs in the environment where `imitation` is, without townlet-train."""

from __future__ import annotations

import json
import sys
import time
import warnings

import numpy as np
import torch


def main(frames: str, n_threads: str, *batch_sizes: str) -> None:
    """Train two epochs per batch size, time the second."""
    warnings.simplefilter("ignore")
    import gymnasium
    from imitation.algorithms.bc import BC
    from imitation.data.types import Transitions
    from stable_baselines3.common.policies import ActorCriticPolicy

    torch.set_num_threads(int(n_threads))
    arrays = np.load(frames, allow_pickle=False)
    features, actions = arrays["features"], arrays["actions"]
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, features.shape[1:], np.float32)
    action_space = gymnasium.spaces.Discrete(arrays["masks"].shape[1])
    transitions = Transitions(
        obs=features,
        acts=actions,
        infos=np.array([{}] * len(actions)),
        next_obs=features,
        dones=np.zeros(len(actions), np.bool_),
    )
    rates = {}
    for batch_size in map(int, batch_sizes):
        policy = ActorCriticPolicy(observation_space, action_space, lambda _: 2e-3, net_arch=[64, 64])
        learner = BC(
            observation_space=observation_space,
            action_space=action_space,
            rng=np.random.default_rng(1),
            policy=policy,
            demonstrations=transitions,
            batch_size=batch_size,
            optimizer_kwargs={"lr": 2e-3},
        )
        for _ in range(2):
            started = time.perf_counter()
            learner.train(n_epochs=1, log_interval=10**9, progress_bar=False)
            n_trained = len(actions) // batch_size * batch_size
            rates[batch_size] = n_trained / (time.perf_counter() - started)
    print(json.dumps(rates))


if __name__ == "__main__":
    main(*sys.argv[1:])
