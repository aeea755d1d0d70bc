"""From an environment id to the environment."""

from __future__ import annotations

import logging
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from townlet_train.errors import UsageError

if TYPE_CHECKING:
    from townlet_train.config import RunConfig
    from townlet_train.envs.processes import Processes
    from townlet_train.envs.protocol import EnvSpec, VectorEnv
    from townlet_train.envs.workers import Make

logger = logging.getLogger(__name__)

TOWN, ENVPOOL = "town", "envpool:"


def build_env(
    config: RunConfig,
    n_envs: int,
    *,
    cycle: int = 0,
    n_workers: int | None = 1,
    processes: Processes | None = None,
) -> VectorEnv:
    """`n_envs` environments of the id in `config.env`: the town, any id that Gymnasium knows, or one of EnvPool's.

    The town pays the social rewards of `cycle`. `n_workers` processes, this one included, step Gymnasium environments;
    None: as many as their steps are worth. They are taken from `processes`, where those are kept for the next set. For
    EnvPool's it is threads; the town needs no more than this one.

    Raises:
        EnvironmentCreationError: nothing has that id, or it cannot be built here.
    """
    if config.env == TOWN:
        from townlet_train.envs.town import TownVectorEnv

        return TownVectorEnv(config.town_in_cycle(cycle), n_envs)
    if config.env.startswith(ENVPOOL):
        from townlet_train.envs.choice import free_cores
        from townlet_train.envs.envpool import build_envpool

        n_threads = min(n_envs, free_cores()) if n_workers is None else n_workers
        return build_envpool(config.env, n_envs, n_threads=n_threads)
    from townlet_train.envs.gymnasium import GymnasiumVectorEnv, make_gymnasium

    make = partial(make_gymnasium, config.env)
    if n_workers == 1 or (n_workers is None and n_envs == 1):
        return GymnasiumVectorEnv(make, n_envs)
    from townlet_train.envs.workers import WorkerVectorEnv

    elsewhere = _made_anywhere(config.env)
    known = {} if processes is None else processes.step_sec
    n_processes = _choose(elsewhere, n_envs, known) if n_workers is None else n_workers
    if n_processes == 1:
        return GymnasiumVectorEnv(make, n_envs)
    return WorkerVectorEnv(elsewhere, n_envs, n_processes, processes=processes)


def start_ahead(config: RunConfig, n_envs: int, processes: Processes) -> None:
    """Start the processes that will step `n_envs` environments, where several will, while something else is done.

    Raises:
        EnvironmentCreationError: as `build_env`.
    """
    if config.env == TOWN or config.env.startswith(ENVPOOL) or n_envs == 1:
        return
    processes.start_ahead(_choose(_made_anywhere(config.env), n_envs, processes.step_sec) - 1)


def spec_of(config: RunConfig) -> EnvSpec:
    """What the configured environment shows and takes.

    Raises:
        EnvironmentCreationError: it cannot be built.
    """
    with closing(build_env(config, 1)) as env:
        return env.spec


def _made_anywhere(env_id: str) -> Make:
    """What makes an environment also in a process that does not know its id."""
    from townlet_train.envs.gymnasium import make_gymnasium

    single = make_gymnasium(env_id)
    single.close()
    return partial(make_gymnasium, single.spec or env_id)


def _choose(make: Make, n_envs: int, known: dict[str, float]) -> int:
    """How many processes are worth their while by what a step takes, measured here unless it is `known`."""
    from townlet_train.envs.choice import choose_processes, free_cores, measure_step
    from townlet_train.envs.gymnasium import GymnasiumVectorEnv
    from townlet_train.envs.workers import pickled

    with closing(GymnasiumVectorEnv(make, 1)) as probe:
        name = probe.spec.env_id
        level = logging.DEBUG if name in known else logging.INFO  # it is told once in a run
        step_sec = known[name] if name in known else known.setdefault(name, measure_step(probe))
    try:
        pickled(make)
    except UsageError as error:
        logger.log(level, "%s is stepped in one process. %s", name, error)
        return 1
    n_cores = free_cores()
    chosen = choose_processes(step_sec, n_envs, n_cores)
    logger.log(
        level,
        "A step of %s takes %.0f us, cores free for it: %d, so processes that step %d of them: %d.",
        *(name, step_sec * 1e6, n_cores, n_envs, chosen),
    )
    return chosen
