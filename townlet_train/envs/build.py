"""From an environment id to the environment."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from townlet_train.errors import UsageError

if TYPE_CHECKING:
    from townlet_train.config import RunConfig
    from townlet_train.envs.protocol import VectorEnv
    from townlet_train.envs.workers import Make

logger = logging.getLogger(__name__)

TOWN = "town"


def build_env(config: RunConfig, n_envs: int, *, cycle: int = 0, n_workers: int | None = 1) -> VectorEnv:
    """`n_envs` environments of the id in `config.env`: the town, or any id that Gymnasium knows.

    The town pays the social rewards of `cycle`. `n_workers` processes, this one included, step Gymnasium environments;
    None: as many as their steps are worth. The town needs no more than this one.

    Raises:
        EnvironmentCreationError: nothing has that id, or it cannot be built here.
    """
    if config.env == TOWN:
        from townlet_train.envs.town import TownVectorEnv

        return TownVectorEnv(config.town_in_cycle(cycle), n_envs)
    from townlet_train.envs.gymnasium import GymnasiumVectorEnv, make_gymnasium

    make = partial(make_gymnasium, config.env)
    if n_workers == 1:
        return GymnasiumVectorEnv(make, n_envs)
    from townlet_train.envs.workers import WorkerVectorEnv

    probe = make()
    probe.close()
    elsewhere = partial(make_gymnasium, probe.spec or config.env)  # where the id may not be registered
    if n_workers is None:
        n_workers = _choose(elsewhere, n_envs)
    return (
        GymnasiumVectorEnv(make, n_envs) if n_workers == 1 else WorkerVectorEnv(elsewhere, n_envs, n_workers)
    )


def _choose(make: Make, n_envs: int) -> int:
    """How many processes are worth their while, measured here."""
    from townlet_train.envs.choice import choose_processes, measure_step, usable_cores
    from townlet_train.envs.gymnasium import GymnasiumVectorEnv
    from townlet_train.envs.workers import pickled

    n_cores = usable_cores()
    if min(n_envs, n_cores) == 1:
        return 1
    probe = GymnasiumVectorEnv(make, 1)
    step_sec = measure_step(probe)
    probe.close()
    n_processes = choose_processes(step_sec, n_envs, n_cores)
    try:
        pickled(make)
    except UsageError as error:
        logger.info("%s are stepped in one process. %s", probe.spec.env_id, error)
        return 1
    logger.info(
        "A step of %s takes %.0f us: %d of them are stepped by %d process%s.",
        probe.spec.env_id,
        step_sec * 1e6,
        n_envs,
        n_processes,
        "es" if n_processes > 1 else "",
    )
    return n_processes
