"""Learning from transitions that somebody else recorded: a recording as rollouts, read again and again.

Nobody can ask a recording how likely its actions were, so the ratio of PPO is to the network as it was before each
chunk, not to what behaved: this is off-policy learning, biased towards what was recorded, and is told as such.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from townlet_train.data.checkpoint import Arrays, below, under
from townlet_train.data.dataset import check_frames, renumbered
from townlet_train.data.memmap import Store
from townlet_train.data.replay import Replay, open_replay
from townlet_train.envs.normalise import RunningMoments
from townlet_train.envs.protocol import EnvSpec
from townlet_train.errors import DataError, UsageError
from townlet_train.learners.actor_critic import ActorCritic
from townlet_train.learners.rollouts import Cut, Episode, Normaliser, Played
from townlet_train.policies.network import NetworkSpec, normalise

Float = NDArray[np.float32]
FEWEST_TICKS = 64  # of a store's slots, which lie side by side: a life is cut where a chunk ends


class Frames(NamedTuple):
    """Recorded frames, each life in one piece and in the order of time; axes (n_frames, ...)."""

    features: Float
    maps: NDArray[Any] | None
    illegal: NDArray[np.bool_]  # (n_frames, n_actions)
    actions: NDArray[np.int64]
    rewards: Float
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    life: NDArray[np.int64]

    def take(self, rows: NDArray[np.int64]) -> Frames:
        """Some of the frames, copied."""
        return Frames(*(None if array is None else array[rows] for array in self))  # type: ignore[arg-type]  # by place


class Chunk(NamedTuple):
    """Transitions whose end is known, and what was seen where a life was cut."""

    frames: Frames  # the transitions; those before a cut are truncated
    cuts: NDArray[np.int64]  # the transitions before a cut
    seen: Frames  # what was seen after each of them


def whole_transitions(frames: Frames) -> Chunk:
    """The transitions of which the recording says what came next.

    The last frame of a life that did not terminate has no successor on record: it is what the one before it led to.
    """
    following = np.append(frames.life[1:] == frames.life[:-1], False)
    cut = ~frames.terminated & (frames.truncated | ~following)
    before_cut = np.append(cut[1:], False) & following & ~frames.terminated & ~cut
    kept = np.flatnonzero(~cut)
    transitions = frames._replace(truncated=before_cut, terminated=frames.terminated & ~cut).take(kept)
    return Chunk(transitions, np.flatnonzero(before_cut[kept]), frames.take(np.flatnonzero(before_cut) + 1))


class RecordedRollouts:
    """A recording as rollouts of about `n_steps` transitions in one slot; implements `RolloutSource`.

    Chunks come in the order of the recording, pass after pass, read from disk when their turn comes. A chunk of a store
    spans at least `FEWEST_TICKS`.

    Raises:
        DataError: the recording has other features or actions than the environment, or no whole transition.
    """

    n_slots = 1

    def __init__(
        self,
        replay: Replay,
        spec: NetworkSpec,
        *,
        feature_names: Sequence[str],
        action_names: Sequence[str],
        n_steps: int,
        normalize_observations: bool = False,
    ) -> None:
        n_slots = math.prod(replay.shape[1:]) if isinstance(replay, Store) else 1
        self._replay, self._spec, self._n_steps = replay, spec, max(n_steps, FEWEST_TICKS * n_slots)
        self._feature_names, self._action_names = tuple(feature_names), tuple(action_names)
        self._moments = RunningMoments.empty(spec.n_features) if normalize_observations else None
        self.normaliser: Normaliser | None = None
        self.timestep = self.filled = 0
        self._read = 0  # chunks of this pass, the one at hand included
        self._chunks = self._pass()
        self._chunk = self._next()

    @property
    def seeds(self) -> tuple[int, ...]:
        """What the recorded environments were reset with, where the recording says."""
        return self._replay.seeds

    @property
    def missing(self) -> int:
        """Transitions of this chunk that have not been handed out."""
        return len(self._chunk.frames.actions) - self.filled

    def advance(self, actor: ActorCritic, n_ticks: int) -> None:
        """Hand out `n_ticks` transitions, at most `missing`."""
        self.filled += n_ticks
        self.timestep += n_ticks

    def finish(self) -> tuple[Played, list[Episode]]:
        """What was handed out since the last time, as one slot; no episodes of its own."""
        n, (frames, cuts, seen) = self.filled, self._chunk
        features, illegal = self._standardised(frames.features), frames.illegal[:n]
        reached = self._standardised(seen.features)
        played = Played(
            features=_one_more(features, n)[:, None, None],
            maps=None if frames.maps is None else _one_more(frames.maps, n)[:, None, None],
            illegal=illegal[:, None, None] if illegal.any() else None,
            actions=frames.actions[:n, None, None],
            rewards=frames.rewards[:n, None, None],
            terminated=frames.terminated[:n, None, None],
            truncated=frames.truncated[:n, None, None],
            cuts=tuple(
                Cut(
                    step,
                    np.zeros(1, np.int64),
                    reached[i, None],
                    None if seen.maps is None else seen.maps[i, None],
                )
                for i, step in enumerate(cuts.tolist())
                if step < n
            ),
            on_policy=False,
            observed=frames.features[:n, None, None],
        )
        self._renew_normaliser(frames.features[:n])
        self._chunk, self.filled = self._next(), 0
        return played, []

    def state(self) -> dict[str, NDArray[Any]]:
        """Where in the recording this is, and what was seen of it."""
        state: dict[str, NDArray[Any]] = {"place": np.array([self.timestep, self._read, self.filled])}
        if self._moments is not None:
            state |= under("moments", self._moments.arrays())
        if self.normaliser is not None:
            state |= {"normaliser.mean": self.normaliser.mean, "normaliser.std": self.normaliser.std}
        return state

    def restore(self, state: Arrays) -> None:
        """Read on where `state` was called."""
        self.timestep, read, self.filled = state["place"].tolist()
        while self._read < read:
            self._chunk = self._next()
        if self._moments is not None:
            self._moments = RunningMoments.from_arrays(below("moments", state))
        normaliser = below("normaliser", state)
        self.normaliser = Normaliser(**normaliser, clip=self._spec.feature_clip) if normaliser else None

    def adopt_normaliser(self, mean: Float, std: Float, moments: Arrays | None) -> None:
        """Standardise features as another run left off."""
        if self._moments is not None:
            raise UsageError(
                "A policy that learns from a recording keeps its features as they are. "
                "Pass --no-normalize-observations."
            )
        if mean.any() or (std != 1).any():
            self.normaliser = Normaliser(mean, std, self._spec.feature_clip)

    def _next(self) -> Chunk:
        """The next chunk that holds any transition, from the beginning when the recording is through."""
        chunk = next(self._chunks, None)
        if chunk is None:
            self._read, self._chunks = 0, self._pass()
            chunk = next(self._chunks, None)
        if chunk is None:
            raise DataError(f"{self._replay.path} holds no two frames of one life, so nothing to learn from.")
        self._read += 1
        return chunk

    def _pass(self) -> Iterator[Chunk]:
        """The whole recording once, in chunks of at least `n_steps` frames but for the last.

        The last frame of a life that a chunk cut is the first of its life in the next one.
        """
        gathered: list[Frames] = []
        n_carried = 0
        for block in self._replay.blocks(
            n_frames=self._n_steps, with_maps=self._spec.kind == "conflict_aware"
        ):
            if block.layout.feature_names != self._feature_names:
                raise DataError(
                    f"{block.source} has other features than the environment: {len(block.layout.feature_names)} where "
                    f"it has {len(self._feature_names)}. Learn from a recording of the same environment."
                )
            named = renumbered(block.copy(), self._action_names)
            check_frames(named, self._action_names, block.source)
            ends = (block.terminated.copy(), block.truncated.copy(), block.life.copy())
            rewards = block.rewards.copy()
            gathered.append(
                Frames(named.features, named.maps, ~named.action_mask, named.actions, rewards, *ends)
            )
            if sum(len(frames.actions) for frames in gathered) >= n_carried + self._n_steps:
                joined = _joined(gathered)
                yield from _chunk_of(joined)
                carried = joined.take(unfinished(joined, n_carried))
                gathered, n_carried = [carried], len(carried.actions)
        if gathered:
            yield from _chunk_of(_joined(gathered))

    def _standardised(self, features: Float) -> Float:
        return features if self.normaliser is None else normalise(features, *self.normaliser)

    def _renew_normaliser(self, features: Float) -> None:
        """What was seen counts from the next chunk on."""
        if self._moments is not None:
            self._moments = moments = self._moments.updated(features)
            mean, std = moments.mean.astype(np.float32), moments.std.astype(np.float32)
            self.normaliser = Normaliser(mean, std, self._spec.feature_clip)


def open_recording(
    path: Path, env: EnvSpec, spec: NetworkSpec, *, n_steps: int, normalize_observations: bool
) -> RecordedRollouts:
    """The recording at `path`, as rollouts for a network in `env`."""
    return RecordedRollouts(
        open_replay(path),
        spec,
        feature_names=env.feature_names,
        action_names=env.action_names,
        n_steps=n_steps,
        normalize_observations=normalize_observations,
    )


def _one_more(rows: NDArray[Any], n: int) -> NDArray[Any]:
    """The first n rows and the one after them; zeros where there is none, since nothing goes on there."""
    return rows[: n + 1] if len(rows) > n else np.concatenate([rows, np.zeros_like(rows[:1])])


def unfinished(frames: Frames, n_carried: int) -> NDArray[np.int64]:
    """The last frame of every life that has not ended and may go on, of frames in the order of time within each life.

    The first `n_carried` were last frames before: what has not gone on since does not go on at all.
    """
    _, from_behind = np.unique(frames.life[::-1], return_index=True)
    last = np.sort(len(frames.life) - 1 - from_behind)
    return last[(last >= n_carried) & ~frames.terminated[last] & ~frames.truncated[last]]


def _joined(gathered: list[Frames]) -> Frames:
    """All frames, one after the other."""
    return Frames(
        *(None if arrays[0] is None else np.concatenate(arrays) for arrays in zip(*gathered, strict=True))  # type: ignore[arg-type]  # by place
    )


def _chunk_of(frames: Frames) -> Iterator[Chunk]:
    """Frames in the order of time as one chunk; nothing when none has a successor."""
    chunk = whole_transitions(frames.take(np.argsort(frames.life, kind="stable")))
    if len(chunk.frames.actions):
        yield chunk
