"""The town as a PettingZoo environment, every agent taking any legal action.

pip install 'townlet-train[pettingzoo]'
python examples/town_in_pettingzoo.py
"""

from __future__ import annotations

import numpy as np

from townlet_train.envs import town_v0


def main(seed: int = 7) -> dict[str, float]:
    """Summed reward of every agent over one episode."""
    env = town_v0.parallel_env()
    rng = np.random.default_rng(seed)
    observations, _ = env.reset(seed=seed)
    returns = dict.fromkeys(env.agents, 0.0)
    while env.agents:
        legal = {agent: np.flatnonzero(seen["action_mask"]) for agent, seen in observations.items()}
        observations, rewards, _, _, _ = env.step({agent: rng.choice(ids) for agent, ids in legal.items()})
        for agent, reward in rewards.items():
            returns[agent] += reward
    return returns


if __name__ == "__main__":
    for agent, episode_return in main().items():
        print(f"{agent:10} {episode_return:8.2f}")
