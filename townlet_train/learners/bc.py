"""Behaviour cloning: minimise the negative log-likelihood of the demonstrator's action.

Of indices that is the cross-entropy among the legal ones, of vectors that of a Gaussian with a learned spread.

The data is standardised and laid out once; an epoch is one permutation, gathered chunk by chunk, cut into batches; an
update is one gradient and one fused Adam step on a single vector.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from townlet_train.data.checkpoint import Arrays, below, under
from townlet_train.data.dataset import Demonstrations, split_by_episode
from townlet_train.errors import DataError, TrainingError
from townlet_train.learners.devices import checked_device
from townlet_train.learners.gradients import AutogradGradient, Frames, Gradient, MlpGradient
from townlet_train.learners.imitation import CHUNK, ImitationMetrics, Index, check_choices, measure_imitation
from townlet_train.learners.networks import (
    HIDDEN_SIZES,
    FlatParameters,
    build_network,
    export_weights,
    import_weights,
)
from townlet_train.learners.optimisers import FlatAdam
from townlet_train.policies.network import NetworkKind, NetworkSpec, normalise

ADAM_EPS = 1e-8
BEST = "best"
SMALLEST_STD = 1e-3  # a feature that varies less is taken as constant


@dataclass(frozen=True)
class BCSettings:
    """How to descend."""

    learning_rate: float  # falls linearly to 0 over all updates
    batch_size: int
    n_epochs: int
    weight_decay: float = 0.0
    device: str = "cpu"
    n_threads: int = 1  # more changes the last bits of the weights


@dataclass(frozen=True)
class BCStats:
    """What one epoch brought."""

    epoch: int
    timestep: int  # frames learned from so far, counted as often as they came up
    loss: float  # mean negative log-likelihood of the batches as they were met, nats
    val_loss: float
    val_accuracy: float | None  # None of vectors
    val_accuracy_unforced: float | None
    val_mean_absolute_error: float | None  # None of indices
    learning_rate: float  # at the epoch's end
    samples_per_sec: float  # of the update loop, since it began or went on


@dataclass(frozen=True)
class Clone:
    """A network as it was at some moment of its training."""

    epoch: int
    timestep: int
    weights: Mapping[str, NDArray[np.float32]]
    held_out: ImitationMetrics


class BCLearner:
    """One network learning from one split of demonstrations; an equal `rng` gives equal weights, bit for bit."""

    def __init__(
        self,
        spec: NetworkSpec,
        settings: BCSettings,
        demonstrations: Demonstrations,
        split: tuple[Index, Index],
        rng: np.random.Generator,
        *,
        weights: Arrays | None = None,
        fits_normaliser: bool = True,
    ) -> None:
        """Begin with `weights` instead of fresh ones; without `fits_normaliser` their normaliser stays as it is."""
        self.spec = spec
        self.settings = settings
        self.epoch = 0
        self.timestep = 0
        self._best: Clone | None = None
        self.demonstrations = demonstrations
        self.train, self.val = split
        self._rng = rng
        with limited_threads(torch_threads=1, numpy_threads=1):  # first weights depend on it
            self._network = build_network(spec, rng).to(checked_device(settings.device))
        if weights is not None:
            import_weights(self._network, weights)
        self._parameters = FlatParameters(self._network, list(spec.actor_shapes()))
        self._gradient = self._build_gradient()
        vector, gradient = self._parameters.vector, self._parameters.gradient
        self._adam = FlatAdam(vector, gradient, eps=ADAM_EPS, weight_decay=settings.weight_decay)
        if fits_normaliser:
            self._fit_normaliser(begun=weights is not None)
        self._frames = self._standardise()
        self._summed_loss = 0.0  # of the epoch so far, nats
        self._epoch_rng = rng.bit_generator.state  # from which its order is drawn

    @classmethod
    def from_demonstrations(
        cls,
        demonstrations: Demonstrations,
        settings: BCSettings,
        spec: NetworkSpec,
        *,
        val_fraction: float,
        rng: np.random.Generator,
        weights: Arrays | None = None,
    ) -> BCLearner:
        """A learner with about `val_fraction` of the episodes held out; `weights` come with their own normaliser."""
        split = split_by_episode(demonstrations, val_fraction, rng)
        check_choices(demonstrations, split)
        return cls(
            spec, settings, demonstrations, split, rng, weights=weights, fits_normaliser=weights is None
        )

    @property
    def epochs_since_best(self) -> int:
        """How long the held-out loss has not fallen."""
        return self.epoch - self._best.epoch if self._best else self.epoch

    @property
    def best(self) -> Clone:
        """The clone with the lowest held-out loss at the end of an epoch; there is none before the first."""
        if self._best is None:
            raise TrainingError("No epoch has ended yet, so there is no best clone.")
        return self._best

    def n_episodes(self, index: Index) -> int:
        """How many episodes the frames in `index` come from."""
        return len(np.unique(self.demonstrations.episode[index]))

    def train_epoch(self, on_progress: Callable[[], None] = lambda: None) -> BCStats:
        """One pass over the training frames, or what is left of it; `on_progress` is called every few thousand frames.

        It may raise, and the pass can be gone on with then.
        """
        started, before = time.perf_counter(), self.timestep
        with self._limited_threads():
            for chunk in self._chunks_left():
                on_progress()
                for batch in chunk.batches(self.settings.batch_size):
                    self._summed_loss += self._gradient(batch)
                    self._adam.step(self._learning_rate())
                    self.timestep += len(batch.actions)
        elapsed = time.perf_counter() - started
        loss, self._summed_loss = self._summed_loss / len(self.train), 0.0
        self.epoch += 1
        self._epoch_rng = self._rng.bit_generator.state
        now = self.clone()
        if not math.isfinite(now.held_out.loss):
            raise TrainingError(
                f"The held-out loss is {now.held_out.loss} after epoch {self.epoch}, expected a number. "
                f"Lower the learning rate, it is {self.settings.learning_rate:g}."
            )
        if self._best is None or now.held_out.loss < self._best.held_out.loss:
            self._best = now
        return BCStats(
            epoch=self.epoch,
            timestep=self.timestep,
            loss=loss,
            val_loss=now.held_out.loss,
            val_accuracy=now.held_out.accuracy,
            val_accuracy_unforced=now.held_out.accuracy_unforced,
            val_mean_absolute_error=now.held_out.mean_absolute_error,
            learning_rate=self._learning_rate(),
            samples_per_sec=(self.timestep - before) / elapsed,
        )

    def clone(self) -> Clone:
        """The network as it is now, with its agreement on the held-out episodes."""
        weights = export_weights(self._network)
        return Clone(self.epoch, self.timestep, weights, self.measure(weights, self.val))

    def measure(self, weights: Arrays, index: Index) -> ImitationMetrics:
        """Agreement of some weights on the frames in `index`, usually `train` or `val`."""
        with limited_threads(torch_threads=1, numpy_threads=self.settings.n_threads):
            return measure_imitation(self.spec, weights, self.demonstrations, index)

    @property
    def weights(self) -> dict[str, NDArray[np.float32]]:
        """Copies of the network's arrays by name."""
        return export_weights(self._network)

    def counters(self) -> dict[str, Any]:
        """All that training depends on and is no array."""
        best = self._best and {
            "epoch": self._best.epoch,
            "timestep": self._best.timestep,
            "held_out": asdict(self._best.held_out),
        }
        return {
            "epoch": self.epoch,
            "timestep": self.timestep,
            "recorded": self.epoch * len(self.train),  # a line follows every epoch
            "summed_loss": self._summed_loss,
            "rng": self._epoch_rng,
            BEST: best,
        }

    def optimiser_state(self) -> Arrays:
        """Copies of what the optimiser knows, by name."""
        return self._adam.arrays()

    def best_weights(self) -> Arrays:
        """The best clone's arrays by name; empty where there is none yet, or the network is it."""
        best = self._best
        return {} if best is None or best.timestep == self.timestep else under(BEST, best.weights)

    def restore(self, counters: Mapping[str, Any], optimiser: Arrays, best_weights: Arrays) -> None:
        """Continue from what the three gave, where the weights are those of that moment already."""
        self.epoch, self.timestep = counters["epoch"], counters["timestep"]
        self._summed_loss, self._epoch_rng = counters["summed_loss"], counters["rng"]
        self._rng.bit_generator.state = self._epoch_rng
        self.adopt(optimiser)
        best = counters[BEST]
        if best is not None:
            held_out = ImitationMetrics(**best["held_out"])
            weights = below(BEST, best_weights) or self.weights
            self._best = Clone(best["epoch"], best["timestep"], weights, held_out)

    def adopt(self, optimiser: Arrays) -> None:
        """Take over what another run's optimiser knows."""
        self._adam.restore(optimiser)

    def _learning_rate(self) -> float:
        """Falls linearly with the frames done."""
        return self.settings.learning_rate * (1 - self.timestep / (self.settings.n_epochs * len(self.train)))

    def _chunks_left(self) -> Iterator[Frames]:
        """Every training frame of this epoch once in random order, some batches' worth at a time."""
        chunk_size = self.settings.batch_size * math.ceil(CHUNK / self.settings.batch_size)
        self._rng.bit_generator.state = self._epoch_rng
        order = self._rng.permutation(len(self.train))
        for start in range(self.timestep - self.epoch * len(self.train), len(order), chunk_size):
            yield self._gather(order[start : start + chunk_size])

    def _gather(self, rows: Index) -> Frames:
        """Copies of some training frames."""
        features, maps, illegal, actions = self._frames
        return Frames(
            features[rows],
            None if maps is None else maps[rows],
            np.ascontiguousarray(illegal[rows].T),
            actions[rows],
        )

    def _fit_normaliser(self, *, begun: bool) -> None:
        """Freeze the normaliser at the training frames; weights that have `begun` to learn are restated."""
        features, normaliser = self.demonstrations.features[self.train], self._network.normaliser
        mean = features.mean(axis=0, dtype=np.float64)
        std = features.std(axis=0, dtype=np.float64)
        std[std < SMALLEST_STD] = 1.0
        if begun:
            found = (torch.from_numpy(array.astype(np.float32)) for array in (mean, std))
            self._network.restandardise(*(tensor.to(normaliser.mean.device) for tensor in found))
        else:
            normaliser.mean.copy_(torch.from_numpy(mean))
            normaliser.std.copy_(torch.from_numpy(std))

    def _standardise(self) -> Frames:
        """The training frames with standardised features. Masks are (n, n_actions) here."""
        frames, normaliser = self.demonstrations, self._network.normaliser
        features = frames.features[self.train]
        frozen = normaliser.mean.cpu().numpy(), normaliser.std.cpu().numpy()
        return Frames(
            normalise(features, *frozen, self.spec.feature_clip),
            frames.maps[self.train]
            if frames.maps is not None and self.spec.kind == "conflict_aware"
            else None,
            ~frames.action_mask[self.train],
            frames.actions[self.train],
        )

    def _limited_threads(self) -> AbstractContextManager[None]:
        """The threads go to whoever computes the gradient."""
        n, written_out = self.settings.n_threads, isinstance(self._gradient, MlpGradient)
        return limited_threads(torch_threads=1 if written_out else n, numpy_threads=n if written_out else 1)

    def _build_gradient(self) -> Gradient:
        if self.spec.kind == "mlp" and self._parameters.vector.device.type == "cpu":
            return MlpGradient(self.spec, self._parameters)
        return AutogradGradient(self._network, self._parameters)


def network_for(
    demonstrations: Demonstrations,
    kind: NetworkKind,
    hidden_sizes: tuple[int, ...] | None = None,
    *,
    shared_trunk: bool = False,
) -> NetworkSpec:
    """The network of that kind these demonstrations need, of the usual width unless told."""
    maps = demonstrations.maps
    if kind == "conflict_aware" and maps is None:
        raise DataError(
            f"{demonstrations.label} holds no maps, which a conflict_aware network reads. Use mlp."
        )
    return NetworkSpec(
        kind=kind,
        n_features=len(demonstrations.feature_names),
        n_actions=len(demonstrations.action_low) or len(demonstrations.action_names),
        hidden_sizes=hidden_sizes or HIDDEN_SIZES[kind],
        activation="tanh" if kind == "mlp" else "relu",
        map_shape=(0, 0, 0) if kind == "mlp" or maps is None else maps.shape[1:],
        distribution="gaussian" if demonstrations.action_low else "categorical",
        shared_trunk=shared_trunk,
    )


@contextmanager
def limited_threads(*, torch_threads: int, numpy_threads: int) -> Iterator[None]:
    """Run with so many threads of torch and of NumPy's matrix products, and restore the numbers that were set.

    Give one of them more than 1, not both: the two pools spin while they wait and starve each other.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(torch_threads)
    try:
        with threadpool_limits(numpy_threads, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)
