"""From an environment id to the environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from townlet_train.errors import UnknownNameError

if TYPE_CHECKING:
    from townlet_train.config import RunConfig
    from townlet_train.envs.protocol import VectorEnv

ENV_IDS = ("town",)


def build_env(config: RunConfig, n_envs: int, *, cycle: int = 0) -> VectorEnv:
    """`n_envs` environments of the id in `config.env`; the town pays the social rewards of that cycle.

    Raises:
        UnknownNameError: no environment has that id.
    """
    if config.env not in ENV_IDS:
        raise UnknownNameError("environment", config.env, ENV_IDS)
    from townlet_train.envs.town import TownVectorEnv

    return TownVectorEnv(config.town_in_cycle(cycle), n_envs)
