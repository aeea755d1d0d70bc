"""From an environment id to the environment."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from townlet_train.config import RunConfig
    from townlet_train.envs.protocol import VectorEnv

TOWN = "town"


def build_env(config: RunConfig, n_envs: int, *, cycle: int = 0, n_workers: int = 1) -> VectorEnv:
    """`n_envs` environments of the id in `config.env`: the town, or any id that Gymnasium knows.

    The town pays the social rewards of `cycle`. More than one worker spreads Gymnasium environments over that many
    processes; the town needs none.

    Raises:
        EnvironmentCreationError: nothing has that id, or it cannot be built here.
    """
    if config.env == TOWN:
        from townlet_train.envs.town import TownVectorEnv

        return TownVectorEnv(config.town_in_cycle(cycle), n_envs)
    from townlet_train.envs.gymnasium import GymnasiumVectorEnv, make_gymnasium

    make = partial(make_gymnasium, config.env)
    if n_workers > 1:
        from townlet_train.envs.workers import WorkerVectorEnv

        return WorkerVectorEnv(make, n_envs, n_workers)
    return GymnasiumVectorEnv(make, n_envs)
