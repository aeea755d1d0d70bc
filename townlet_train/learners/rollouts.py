"""Acting to learn: an actor plays in a vector environment, and what happened is kept until the learner has used it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from townlet_train.data.checkpoint import Arrays, below, under
from townlet_train.envs.normalise import RunningMoments
from townlet_train.envs.protocol import Observation, VectorEnv
from townlet_train.errors import UsageError
from townlet_train.learners.actor_critic import ActorCritic
from townlet_train.policies.network import ILLEGAL_LOGIT, NetworkSpec, normalise
from townlet_train.policies.protocol import Policy

Float = NDArray[np.float32]
CHUNK = 8192  # rows evaluated at a time, so that a rollout of many slots does not multiply in memory


class Cut(NamedTuple):
    """What slots saw when their episode was cut."""

    step: int
    slots: NDArray[np.int64]  # flat
    features: Float
    maps: NDArray[np.uint8] | None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything by name, for a checkpoint."""
        arrays = {"step": np.array([self.step]), "slots": self.slots, "features": self.features}
        return arrays if self.maps is None else arrays | {"maps": self.maps}

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Cut:
        """What `arrays` gave."""
        return cls(int(arrays["step"][0]), arrays["slots"], arrays["features"], arrays.get("maps"))


class Played(NamedTuple):
    """What happened in some steps of every slot, axes (n_steps, n_envs, n_agents, ...); views until the next steps."""

    features: Float  # standardised, (..., n_features); one step longer: the last are what comes after
    maps: NDArray[np.uint8] | None  # (..., channels, height, width); one step longer too
    illegal: NDArray[np.bool_] | None  # (..., n_actions); None when everything was legal all the time
    actions: NDArray[Any]  # (...), or (..., n_dimensions) real numbers
    rewards: Float
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    cuts: tuple[Cut, ...]
    heads: tuple[Float, Float] | None = None  # outputs (n_outputs, n) and values (n,), where acting gave both
    on_policy: bool = True  # whether the actor that learns from it played it
    observed: Float | None = None  # features as they were shown, (n_steps, ..., n_features)
    driven: NDArray[np.bool_] | None = (
        None  # (n_envs, n_agents): slots the expert drove; None where it drove none
    )

    def final_values(self, actor: ActorCritic) -> Float:
        """What the critic says of the observations that episodes were cut at; 0 where none was."""
        values = np.zeros(self.rewards.shape, np.float32)
        for cut in self.cuts:
            if len(cut.slots):
                values[cut.step].reshape(-1)[cut.slots] = evaluate_pieces(actor, cut.features, cut.maps)[1]
        return values


@dataclass(frozen=True)
class Rollout:
    """Steps as PPO learns from them: with what the actor and the critic that played them said."""

    features: Float  # standardised, (..., n_features)
    maps: NDArray[np.uint8] | None  # (..., channels, height, width)
    illegal: NDArray[np.bool_] | None  # (..., n_actions); None when everything was legal all the time
    actions: NDArray[Any]  # (...), or (..., n_dimensions) real numbers
    rewards: Float
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    log_probs: Float
    values: Float  # one step longer: the last are of what comes after the rollout
    final_values: Float  # of the observation an episode was cut at; 0 where none was
    on_policy: bool = True  # whether the actor that learns from it played it
    driven: NDArray[np.bool_] | None = None  # (n_envs, n_agents): slots the expert drove


def evaluated(played: Played, actor: ActorCritic) -> Rollout:
    """What was played, with the log-probabilities and values of the actor and critic that played it."""
    features, maps = played.features[:-1], None if played.maps is None else played.maps[:-1]
    rewards, illegal, actions = played.rewards, played.illegal, played.actions
    outputs, values = played.heads or evaluate_pieces(actor, features, maps)
    last_maps = None if played.maps is None else played.maps[-1]
    _, last_values = evaluate_pieces(actor, played.features[-1], last_maps)
    flat_illegal = None if illegal is None else illegal.reshape(-1, illegal.shape[-1]).T
    distribution = actor.distribution(outputs, flat_illegal)
    log_probs = distribution.log_probs(actions.reshape(rewards.size, *actions.shape[3:]))
    return Rollout(
        features=features,
        maps=maps,
        illegal=illegal,
        actions=actions,
        rewards=rewards,
        terminated=played.terminated,
        truncated=played.truncated,
        log_probs=log_probs.reshape(rewards.shape),
        values=np.concatenate([values, last_values]).reshape(-1, *rewards.shape[1:]),
        final_values=played.final_values(actor),
        on_policy=played.on_policy,
        driven=played.driven,
    )


class Driver(NamedTuple):
    """An expert that drives a share of the slots, other ones in every rollout."""

    expert: Policy
    share: float  # 0 to 1


class Episode(NamedTuple):
    """One episode that ended: when, and what it brought."""

    timestep: int  # steps of all slots done when it ended
    episode_return: float  # mean over agent slots of the summed reward
    episode_length: int  # ticks


class Normaliser(NamedTuple):
    """How features are standardised before a network reads them."""

    mean: Float  # (n_features,)
    std: Float
    clip: float


class _Heads(NamedTuple):
    """What a network whose critic shares the actor's layers said while it acted, so that it is not asked again."""

    outputs: Float  # (n_steps, n_slots, n_outputs)
    values: Float  # (n_steps, n_slots)

    @classmethod
    def empty(cls, shape: tuple[int, int, int], n_outputs: int) -> _Heads:
        n_steps, n_slots = shape[0], shape[1] * shape[2]
        return cls(
            np.zeros((n_steps, n_slots, n_outputs), np.float32), np.zeros((n_steps, n_slots), np.float32)
        )

    def keep(self, t: int, outputs: Float, values: Float) -> Float:
        """Keep step t's outputs (n_outputs, n_slots) and values (n_slots,); returns a copy, slots first."""
        self.outputs[t], self.values[t] = outputs.T, values
        return np.array(outputs.T)

    def of(self, steps: slice) -> tuple[Float, Float]:
        """Outputs (n_outputs, n) and values (n,) of some steps, all slots."""
        outputs = self.outputs[steps].reshape(-1, self.outputs.shape[-1])
        return np.ascontiguousarray(outputs.T), self.values[steps].ravel()


class RolloutCollector:
    """Plays `n_steps` ticks at a time; all noise of a rollout is drawn at its start.

    A categorical action is the largest of logit plus Gumbel noise, which has the softmax distribution (Gumbel 1954).
    """

    def __init__(
        self,
        env: VectorEnv,
        spec: NetworkSpec,
        *,
        n_steps: int,
        seeds: NDArray[np.int64],
        rng: np.random.Generator,
        normalize_observations: bool = False,
        driver: Driver | None = None,
    ) -> None:
        self.env, self.n_steps, self.timestep = env, n_steps, 0
        self._spec, self._rng, self._driver = spec, rng, driver
        self._driven = np.zeros((env.n_envs, env.n_agents), np.bool_)
        self._moments = RunningMoments.empty(spec.n_features) if normalize_observations else None
        self.normaliser: Normaliser | None = None  # of the rollout at hand; features are as they are without
        slots = (env.n_envs, env.n_agents)
        shape = (n_steps, *slots)
        self._categorical = spec.distribution == "categorical"
        longer = (n_steps + 1, *slots)  # room for what comes after the last step
        self._features = np.zeros((*longer, spec.n_features), np.float32)
        reads_maps = spec.kind == "conflict_aware"
        self._maps = np.zeros((*longer, *spec.map_shape), np.uint8) if reads_maps else None
        self._illegal = np.zeros((*shape, spec.n_actions), np.bool_) if self._categorical else None
        vectors = np.zeros((*shape, spec.n_actions), np.float32)
        self._actions: NDArray[Any] = np.zeros(shape, np.int64) if self._categorical else vectors
        self._rewards = np.zeros(shape, np.float32)
        self._terminated, self._truncated = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
        self._noise = np.zeros((*shape, spec.n_actions), np.float32)
        self._heads = _Heads.empty(shape, spec.n_actions) if spec.shares_trunk else None
        self._cuts: list[Cut] = []
        self._filled = 0
        self._returns, self._lengths = np.zeros(env.n_envs), np.zeros(env.n_envs, np.int64)
        self._observation = env.reset(seeds)

    @property
    def n_slots(self) -> int:
        """Steps that one tick adds."""
        return self.env.n_envs * self.env.n_agents

    @property
    def missing(self) -> int:
        """Ticks until the rollout is full."""
        return self.n_steps - self._filled

    @property
    def filled(self) -> int:
        """Ticks played that nothing has been learned from."""
        return self._filled

    def state(self) -> dict[str, NDArray[Any]]:
        """Copies of everything the next rollouts depend on beside the generator, the environments included."""
        state = {name: array[: self._filled].copy() for name, array in self._kept().items()}
        state |= {
            "timestep": np.array([self.timestep]),
            "returns": self._returns.copy(),
            "lengths": self._lengths.copy(),
            "noise": self._noise[self._filled if self._filled else self.n_steps :].copy(),
        }
        for index, cut in enumerate(self._cuts):
            state |= under(f"cut{index}", cut.arrays())
        if self._moments is not None:
            state |= under("moments", self._moments.arrays())
        if self._driver is not None:
            state["driven"] = self._driven.copy()
        if self.normaliser is not None:
            state |= {"normaliser.mean": self.normaliser.mean, "normaliser.std": self.normaliser.std}
        return state | under("env", self.env.get_state())

    def restore(self, state: Arrays) -> None:
        """Continue from what `state` gave, the environments included.

        Raises:
            InexactStateError: an environment did not come back to where it was.
        """
        self._observation = self.env.set_state(below("env", state))
        self._filled = len(state["rewards"])
        for name, array in self._kept().items():
            array[: self._filled] = state[name]
        self._noise[self.n_steps - len(state["noise"]) :] = state["noise"]
        self.timestep = int(state["timestep"][0])
        self._driven = state["driven"].copy() if self._driver is not None else self._driven
        self._returns, self._lengths = state["returns"].copy(), state["lengths"].copy()
        n_cuts = sum(name.startswith("cut") and name.endswith(".step") for name in state)
        self._cuts = [Cut.from_arrays(below(f"cut{i}", state)) for i in range(n_cuts)]
        if self._moments is not None:
            self._moments = RunningMoments.from_arrays(below("moments", state))
        normaliser = below("normaliser", state)
        self.normaliser = Normaliser(**normaliser, clip=self._spec.feature_clip) if normaliser else None

    def adopt_normaliser(self, mean: Float, std: Float, moments: Arrays | None) -> None:
        """Standardise features as another run left off; `moments` are what it had seen, to be counted on from.

        Raises:
            UsageError: features are to be normalised by running moments and there are none to begin with.
        """
        if self._moments is not None:
            if not moments:
                raise UsageError(
                    "normalize_observations goes on from what was seen, which the checkpoint does not say. "
                    "Pass --no-normalize-observations to keep its policy's features as they are."
                )
            self._moments = RunningMoments.from_arrays(moments)
        if mean.any() or (std != 1).any():
            self.normaliser = Normaliser(mean, std, self._spec.feature_clip)

    def _kept(self) -> dict[str, NDArray[Any]]:
        """What is kept of every tick, by name, time first."""
        kept: dict[str, NDArray[Any] | None] = {
            "features": self._features,
            "maps": self._maps,
            "illegal": self._illegal,
            "actions": self._actions,
            "rewards": self._rewards,
            "terminated": self._terminated,
            "truncated": self._truncated,
            "outputs": None if self._heads is None else self._heads.outputs,
            "values": None if self._heads is None else self._heads.values,
        }
        return {name: array for name, array in kept.items() if array is not None}

    def advance(self, actor: ActorCritic, n_ticks: int) -> None:
        """Play `n_ticks`, at most `missing`; the actor must stay the same until `finish`."""
        if self._filled == 0:
            self._draw_noise(actor.log_std)
            self._draw_driven()
        for t in range(self._filled, self._filled + n_ticks):
            self._actions[t] = actions = self._act(actor, t)
            step = self.env.step(actions)
            self._rewards[t], self._terminated[t], self._truncated[t] = step[1:4]
            if _some(step.truncated):
                self._cuts.append(self._cut(t, step.truncated & ~step.terminated, step.final_observation))
            self._observation = step.observation
        self._filled += n_ticks
        self.timestep += n_ticks * self.n_slots

    def finish(self) -> tuple[Played, list[Episode]]:
        """What was played since the last time, and the episodes that ended, in order of time."""
        end = self._filled
        features, maps, illegal = self._features[: end + 1], None, None
        features[end] = self._observation.features
        if self._maps is not None:
            maps = self._maps[: end + 1]
            maps[end] = self._observation.maps
        if self._illegal is not None and _some(self._illegal[:end]):
            illegal = self._illegal[:end]
        played = Played(
            self._standardised(features),
            maps,
            illegal,
            self._actions[:end],
            self._rewards[:end],
            self._terminated[:end],
            self._truncated[:end],
            tuple(self._cuts),
            None if self._heads is None else self._heads.of(slice(0, end)),
            observed=features[:end],
            driven=self._driven if self._driver is not None else None,
        )
        episodes = self._episodes(played)
        self._renew_normaliser(features[:end])
        self._filled, self._cuts = 0, []
        return played, episodes

    def _renew_normaliser(self, features: Float) -> None:
        """What was seen counts from the next rollout on; a number that is not finite never does."""
        if self._moments is not None:
            rows = features.reshape(-1, features.shape[-1])
            self._moments = moments = self._moments.updated(rows[np.isfinite(rows).all(axis=1)])
            mean, std = moments.mean.astype(np.float32), moments.std.astype(np.float32)
            self.normaliser = Normaliser(mean, std, self._spec.feature_clip)

    def _draw_noise(self, log_std: Float | None) -> None:
        if log_std is None:
            self._noise[:] = self._rng.gumbel(size=self._noise.shape)
        else:
            self._rng.standard_normal(out=self._noise, dtype=np.float32)
            self._noise *= np.exp(log_std)

    def _draw_driven(self) -> None:
        """Choose the slots that the expert drives until the rollout is full."""
        if self._driver is not None:
            n_driven = round(self._driver.share * self._driven.size)
            order = self._rng.permutation(self._driven.size)
            self._driven = (order < n_driven).reshape(self._driven.shape)

    def _act(self, actor: ActorCritic, t: int) -> NDArray[Any]:
        """Keep what is seen as step t and choose actions for it, (n_envs, n_agents, ...)."""
        features, maps, mask = self._observation
        self._features[t] = features
        if self._maps is not None:
            self._maps[t] = maps
        flat_maps = None if self._maps is None else _flat(maps)
        noise = self._noise[t]
        flat_features = self._standardised(features).reshape(-1, features.shape[-1])
        if self._heads is None:
            outputs = actor.outputs(flat_features, flat_maps)
        else:
            both = actor.evaluate(flat_features, flat_maps)
            outputs = self._heads.keep(t, *both)
        outputs = outputs.reshape(noise.shape)
        if self._illegal is not None:
            _forbid(outputs, mask, self._illegal[t])
        outputs += noise
        actions: NDArray[Any] = outputs.argmax(axis=-1) if self._categorical else outputs
        if self._driver is not None:
            driven = self._driven
            labels = self._driver.expert.act(self._observation, np.zeros(actions.shape))
            actions[driven] = labels[driven]
        return actions

    def _seen(self, observation: Observation) -> tuple[Float, NDArray[np.uint8] | None]:
        """An observation as the network takes it."""
        features, maps, _ = observation
        return self._standardised(features), maps if self._maps is not None else None

    def _standardised(self, features: Float) -> Float:
        return features if self.normaliser is None else normalise(features, *self.normaliser)

    def _cut(self, t: int, where: NDArray[np.bool_], final: Observation) -> Cut:
        features, maps = self._seen(final)
        return Cut(t, np.flatnonzero(where), features[where], None if maps is None else maps[where])

    def _episodes(self, played: Played) -> list[Episode]:
        """The episodes that ended; what is still open goes on in the next rollout."""
        ended = played.truncated if self.env.spec.episode_ticks else played.truncated | played.terminated
        if not _some(ended):
            self._returns += np.add.reduce(played.rewards.astype(np.float64), axis=(0, 2)) / self.env.n_agents
            self._lengths += len(ended)
            return []
        over = np.asarray(ended.all(axis=2))
        rewards = played.rewards.mean(axis=2, dtype=np.float64)
        started = self.timestep - played.rewards.size
        found: list[Episode] = []
        for env in range(self.env.n_envs):
            begin = 0
            for end in (np.flatnonzero(over[:, env]) + 1).tolist():
                total = float(self._returns[env] + rewards[begin:end, env].sum())
                length = int(self._lengths[env]) + end - begin
                found.append(Episode(started + end * self.n_slots, total, length))
                self._returns[env], self._lengths[env], begin = 0.0, 0, end
            self._returns[env] += rewards[begin:, env].sum()
            self._lengths[env] += len(rewards) - begin
        return sorted(found, key=lambda episode: episode.timestep)  # by return, the last would be the best


def _some(flags: NDArray[np.bool_]) -> bool:
    """Whether any is set; for few flags a third of the cost of `any`."""
    return 1 in flags.tobytes()


def _forbid(outputs: Float, mask: NDArray[np.bool_], illegal: NDArray[np.bool_]) -> None:
    """Keep what is illegal, and let its logits be out of reach."""
    if 0 not in mask.tobytes():  # as nearly everywhere in Gymnasium, and soon found
        illegal[...] = False
        return
    np.logical_not(mask, out=illegal)
    np.copyto(outputs, np.float32(ILLEGAL_LOGIT), where=illegal)


def _flat(maps: NDArray[np.uint8] | None) -> NDArray[np.uint8] | None:
    return None if maps is None else maps.reshape(-1, *maps.shape[-3:])


def evaluate_pieces(
    actor: ActorCritic, features: Float, maps: NDArray[np.uint8] | None
) -> tuple[Float, Float]:
    """Outputs (n_outputs, n) and values (n,) of all rows, whatever their axes."""
    flat_features, flat_maps = features.reshape(-1, features.shape[-1]), _flat(maps)
    if len(flat_features) <= CHUNK:
        return actor.evaluate(flat_features, flat_maps)
    pieces = [
        actor.evaluate(
            flat_features[start : start + CHUNK],
            None if flat_maps is None else flat_maps[start : start + CHUNK],
        )
        for start in range(0, len(flat_features), CHUNK)
    ]
    return np.concatenate([piece[0] for piece in pieces], axis=1), np.concatenate([p[1] for p in pieces])
