"""The town as a vector environment: every town an environment, every resident a slot that is respawned in place."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_train.config.town import MAX_AGENTS, TownConfig
from townlet_train.envs.protocol import EnvSpec, Observation, Step
from townlet_train.envs.streams import stream_word
from townlet_train.errors import DataError, EnvironmentCreationError, InfeasibleTownError, UsageError
from townlet_train.sim.expert import expert_actions
from townlet_train.sim.feasibility import compute_budget
from townlet_train.sim.kernels import compile_once, kernel
from townlet_train.sim.layout import ACTIONS, EVENTS, FEATURES, MAP_CHANNELS, MAP_SIZE, N_ACTIONS, N_FEATURES
from townlet_train.sim.lives import begin_episode
from townlet_train.sim.observe import MAX_SET_CELLS, observe_town
from townlet_train.sim.rules import tick
from townlet_train.sim.state import TOWN, build_params

logger = logging.getLogger(__name__)

MAP_CELLS = len(MAP_CHANNELS) * MAP_SIZE * MAP_SIZE


class TownVectorEnv:
    """Many towns stepped together; implements `VectorEnv`.

    Raises:
        InfeasibleTownError: nobody could live by this config, and it does not say `allow_infeasible`.
    """

    def __init__(self, config: TownConfig, n_envs: int) -> None:
        if n_envs < 1:
            raise UsageError(f"A town environment needs at least one town, {n_envs} were asked for.")
        if config.n_agents < 1:
            raise EnvironmentCreationError("A town needs at least one agent, town.n_agents is 0.")
        budget = compute_budget(config)
        if not budget.feasible and not config.allow_infeasible:
            raise InfeasibleTownError(f"{budget.verdict} Set town.allow_infeasible=true to run it anyway.")
        self._verdict = budget.verdict
        self.config = config
        self.n_envs = n_envs
        self.n_agents = config.n_agents
        self.spec = EnvSpec("town", FEATURES, ACTIONS, MAP_CHANNELS, MAP_SIZE, config.episode_ticks)
        self._params = build_params(config)
        rules = self._params.tobytes() + repr(TOWN.descr).encode()
        self._rules = np.frombuffer(hashlib.sha256(rules).digest(), np.uint8)
        self._towns = np.zeros(n_envs, TOWN)
        self._now = _Buffers(n_envs, self.n_agents)
        self._final = _Buffers(n_envs, self.n_agents)
        self._rewards = np.zeros((n_envs, self.n_agents), np.float32)
        self._terminated = np.zeros((n_envs, self.n_agents), np.bool_)
        self._truncated = np.zeros((n_envs, self.n_agents), np.bool_)
        self._seeded = False

    @property
    def nbytes(self) -> int:
        """Bytes held for all towns: states, observations and results."""
        outputs = self._rewards.nbytes + self._terminated.nbytes + self._truncated.nbytes
        return self._towns.nbytes + self._now.nbytes + self._final.nbytes + outputs

    def reset(self, seeds: NDArray[np.int64]) -> Observation:
        """Start an episode per town from the streams "world" and "events" of its own seed. (n_envs,)"""
        if len(seeds) != self.n_envs:
            raise UsageError(f"reset needs one seed per town: {self.n_envs} towns, {len(seeds)} seeds.")
        if np.min(seeds) < 0:
            raise UsageError(f"Seeds are not negative, {int(np.min(seeds))} was given.")
        _announce(self._verdict)
        self._towns[:] = np.zeros((), TOWN)
        self._towns["rng_world"] = [stream_word(int(seed), "world") for seed in seeds]
        self._towns["rng_events"] = [stream_word(int(seed), "events") for seed in seeds]
        compile_once(_compile_kernels)
        _begin(self._towns, self._params, *self._now.arrays)
        self._seeded = True
        return self._now.observation

    def step(self, actions: NDArray[np.int64]) -> Step:
        """One tick of every town for `actions` (n_envs, n_agents), indices into `spec.action_names`."""
        if not self._seeded:
            raise UsageError("The town was stepped before it was reset. Call reset(seeds) first.")
        if actions.shape != (self.n_envs, self.n_agents):
            raise UsageError(f"actions has shape {actions.shape}, expected {(self.n_envs, self.n_agents)}.")
        if actions.dtype.kind not in "iu":
            raise UsageError(f"actions are whole numbers, an array of {actions.dtype} was given.")
        lowest, highest = int(actions.min()), int(actions.max())
        if lowest < 0 or highest >= N_ACTIONS:
            raise UsageError(
                f"Actions lie in 0..{N_ACTIONS - 1}, {lowest if lowest < 0 else highest} was given."
            )
        _advance(
            self._towns,
            self._params,
            np.ascontiguousarray(actions, np.int64),
            self._rewards,
            self._terminated,
            self._truncated,
            *self._now.arrays,
            *self._final.arrays,
        )
        return Step(
            self._now.observation, self._rewards, self._terminated, self._truncated, self._final.observation
        )

    def get_state(self) -> dict[str, NDArray[Any]]:
        """A copy of all the future depends on: `towns`, every town's record as bytes (n_envs, n_bytes), and `rules`.

        The latter is a hash of what the towns live by and of how a record is laid out.
        """
        towns = np.zeros(self.n_envs, TOWN)  # the padding between fields stays zero: same state, same bytes
        towns[:] = self._towns
        return {"towns": towns.view(np.uint8).reshape(self.n_envs, -1), "rules": self._rules.copy()}

    def set_state(self, state: Mapping[str, NDArray[Any]]) -> Observation:
        """Continue exactly from `get_state`; returns the observation of that moment.

        Raises:
            DataError: the state is of another number of towns, of other rules, or of no town.
        """
        towns, rules = (_bytes_of(state, name) for name in ("towns", "rules"))
        if not np.array_equal(rules, self._rules):
            raise DataError(
                "The saved state is of a town with other rules. "
                "Build the environment with the config and the version it was saved with."
            )
        expected = (self.n_envs, TOWN.itemsize)
        if towns.shape != expected:
            raise DataError(
                f"The saved state holds towns of shape {towns.shape}, expected {expected}: {self.n_envs} towns of "
                f"{TOWN.itemsize} bytes. Build the environment with as many towns as it was saved with."
            )
        self._towns[:] = np.ascontiguousarray(towns).view(TOWN)[:, 0]
        _observe(self._towns, self._params, *self._now.arrays)
        self._seeded = True
        return self._now.observation

    def event_counts(self) -> dict[str, NDArray[np.float64]]:
        """Events since `reset` by name, each (n_envs,)."""
        return {name: self._towns["events"][:, index].copy() for index, name in enumerate(EVENTS)}

    def close(self) -> None:
        """A town holds nothing but memory."""


def _bytes_of(state: Mapping[str, NDArray[Any]], name: str) -> NDArray[np.uint8]:
    """One of the arrays of a saved state; `DataError` unless it is there and made of bytes."""
    found = state.get(name)
    if found is None or found.dtype != np.uint8:
        came = "nothing" if found is None else f"an array of {found.dtype}"
        raise DataError(f"The saved state of a town has {came} as {name!r}, expected bytes (uint8).")
    return found


@cache
def _announce(verdict: str) -> None:
    """Log a town's budget the first time a process plays in it."""
    logger.info(verdict)


def warm_up() -> None:
    """Compile the town's kernels now rather than at the first reset."""
    compile_once(_compile_kernels)


class _Buffers:
    """One set of observation arrays the kernels fill, and the record of which map cells are set."""

    def __init__(self, n_envs: int, n_agents: int) -> None:
        self.features = np.zeros((n_envs, n_agents, N_FEATURES), np.float32)
        self.maps = np.zeros((n_envs, n_agents, MAP_CELLS), np.uint8)
        self.mask = np.zeros((n_envs, n_agents, N_ACTIONS), np.bool_)
        self.cells = np.zeros((n_envs, n_agents, MAX_SET_CELLS), np.int16)
        self.n_cells = np.zeros((n_envs, MAX_AGENTS), np.int16)
        self.arrays = (self.features, self.maps, self.mask, self.cells, self.n_cells)
        shape = (n_envs, n_agents, len(MAP_CHANNELS), MAP_SIZE, MAP_SIZE)
        self.observation = Observation(self.features, self.maps.reshape(shape), self.mask)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self.arrays)


@kernel
def _begin(towns: Any, params: Any, features: Any, maps: Any, mask: Any, cells: Any, n_cells: Any) -> None:
    """Start an episode in every town and observe it."""
    for env in range(towns.shape[0]):
        begin_episode(towns[env], params[0])
        observe_town(towns[env], params[0], features[env], maps[env], mask[env], cells[env], n_cells[env])


@kernel
def _observe(towns: Any, params: Any, features: Any, maps: Any, mask: Any, cells: Any, n_cells: Any) -> None:
    """Observe every town as it stands."""
    for env in range(towns.shape[0]):
        observe_town(towns[env], params[0], features[env], maps[env], mask[env], cells[env], n_cells[env])


@kernel
def _advance(
    towns: Any,
    params: Any,
    actions: Any,
    rewards: Any,
    terminated: Any,
    truncated: Any,
    features: Any,
    maps: Any,
    mask: Any,
    cells: Any,
    n_cells: Any,
    final_features: Any,
    final_maps: Any,
    final_mask: Any,
    final_cells: Any,
    final_n_cells: Any,
) -> None:
    """One tick of every town; a town whose episode ends shows its last observation and begins the next at once."""
    social = np.zeros(MAX_AGENTS)
    working = np.zeros(MAX_AGENTS, np.bool_)
    p = params[0]
    for env in range(towns.shape[0]):
        town = towns[env]
        tick(town, p, actions[env], rewards[env], terminated[env], social, working)
        over = town.tick >= p.episode_ticks
        truncated[env] = over
        if over:
            observe_town(
                town,
                p,
                final_features[env],
                final_maps[env],
                final_mask[env],
                final_cells[env],
                final_n_cells[env],
            )
            begin_episode(town, p)
        observe_town(town, p, features[env], maps[env], mask[env], cells[env], n_cells[env])


def _compile_kernels() -> None:
    """Call every kernel once on a throw-away town."""
    towns, params = np.zeros(1, TOWN), build_params(TownConfig())
    now, final = _Buffers(1, params[0]["n_agents"]), _Buffers(1, params[0]["n_agents"])
    actions = np.zeros(now.features.shape[:2], np.int64)
    ended = actions.astype(np.bool_)
    _begin(towns, params, *now.arrays)
    _observe(towns, params, *now.arrays)
    _advance(
        towns, params, actions, actions.astype(np.float32), ended, ended.copy(), *now.arrays, *final.arrays
    )
    expert_actions(now.features[0], now.mask[0], actions[0])
