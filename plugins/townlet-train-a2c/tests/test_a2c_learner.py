"""A2C's updates are those of Stable-Baselines3's formulas under torch's own autograd and RMSprop."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from townlet_train.learners.networks import NetworkSpec, build_network  # noqa: E402
from townlet_train.learners.rollouts import Cut, Played  # noqa: E402
from townlet_train_a2c.learner import A2CLearner  # noqa: E402
from townlet_train_a2c.strategy import A2CParams  # noqa: E402

N_FEATURES, N_ACTIONS, N_UPDATES = 5, 3, 12
MLP = NetworkSpec(
    kind="mlp",
    n_features=N_FEATURES,
    n_actions=N_ACTIONS,
    hidden_sizes=(8, 8),
    activation="tanh",
    map_shape=(0, 0, 0),
    feature_clip=1e9,
    distribution="categorical",
)
WITH_MAP = NetworkSpec(
    **{**vars(MLP), "kind": "conflict_aware", "hidden_sizes": (8,), "map_shape": (2, 3, 3)}
)
GAUSSIAN = NetworkSpec(**{**vars(MLP), "distribution": "gaussian"})


def learner_of(spec: NetworkSpec, **settings: Any) -> A2CLearner:
    return A2CLearner(spec, A2CParams(**settings), np.random.default_rng(5))


def played_by_chance(spec: NetworkSpec, seed: int, *, n_steps: int = 5, n_envs: int = 2) -> Played:
    """Made-up steps with deaths, and with a cut in the middle."""
    rng, shape = np.random.default_rng(seed), (n_steps, n_envs, 1)
    categorical = spec.distribution == "categorical"
    illegal = rng.random((*shape, spec.n_actions)) < 0.3
    illegal[..., 0] = False
    truncated = np.zeros(shape, np.bool_)
    truncated[2, 1] = True
    maps = rng.integers(2, size=(n_steps + 1, n_envs, 1, *spec.map_shape), dtype=np.uint8)
    reads_maps = spec.kind == "conflict_aware"
    final = rng.normal(size=(1, N_FEATURES)).astype(np.float32)
    return Played(
        features=rng.normal(size=(n_steps + 1, n_envs, 1, N_FEATURES)).astype(np.float32),
        maps=maps if reads_maps else None,
        illegal=illegal if categorical else None,
        actions=(
            np.zeros(shape, np.int64)
            if categorical
            else rng.normal(size=(*shape, N_ACTIONS)).astype(np.float32)
        ),
        rewards=rng.normal(scale=3, size=shape).astype(np.float32),
        terminated=(rng.random(shape) < 0.2) & ~truncated,
        truncated=truncated,
        cuts=(Cut(2, np.array([1]), final, maps[2, 1] if reads_maps else None),),
    )


class Oracle:
    """The same network under autograd and torch's RMSprop, one slot's returns worked out step by step."""

    def __init__(self, learner: A2CLearner) -> None:
        self.spec, self.settings = learner.spec, learner.settings
        self.network = build_network(learner.spec, np.random.default_rng(0))
        self.network.load_state_dict({name: torch.from_numpy(a) for name, a in learner.weights.items()})
        rate, eps = self.settings.learning_rate, self.settings.rms_prop_eps
        self.optimiser = torch.optim.RMSprop(self.network.parameters(), lr=rate, alpha=0.99, eps=eps)

    def update(self, played: Played) -> Losses:
        n_steps, n_envs, _ = played.rewards.shape
        outputs, values = self.heads(
            played.features[:-1], played.maps if played.maps is None else played.maps[:-1]
        )
        returns = self.returns(played, values.detach().reshape(n_steps, n_envs).numpy())
        returns = torch.from_numpy(returns.astype(np.float32)).reshape(-1)
        advantages = returns - values.detach()
        if self.settings.normalize_advantage:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        distribution = self.distribution(outputs, played)
        actions = torch.from_numpy(played.actions.reshape(n_steps * n_envs, *played.actions.shape[3:]))
        log_probs, entropy = distribution.log_prob(actions), distribution.entropy()
        if self.spec.distribution == "gaussian":
            log_probs, entropy = log_probs.sum(1), entropy.sum(1)
        policy_loss = -(advantages * log_probs).mean()
        value_loss = torch.nn.functional.mse_loss(returns, values)
        loss = policy_loss + self.settings.vf_coef * value_loss - self.settings.ent_coef * entropy.mean()
        self.optimiser.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.max_grad_norm)
        self.optimiser.step()
        return Losses(*(float(x.detach()) for x in (loss, policy_loss, value_loss, entropy.mean(), norm)))

    def heads(self, features: Any, maps: Any) -> Any:
        flat = None if maps is None else torch.from_numpy(maps.reshape(-1, *self.spec.map_shape))
        return self.network.heads(torch.from_numpy(features.reshape(-1, N_FEATURES)), flat)

    def distribution(self, outputs: Any, played: Played) -> Any:
        if self.spec.distribution == "gaussian":
            return torch.distributions.Normal(outputs, self.network.log_std.exp())
        illegal = torch.from_numpy(played.illegal.reshape(-1, N_ACTIONS))  # type: ignore[union-attr]  # categorical ones have masks
        return torch.distributions.Categorical(logits=outputs.masked_fill(illegal, -1e8))

    def returns(self, played: Played, values: Any) -> Any:
        """lambda-returns by their recursion, in double precision."""
        s, (n_steps, n_envs, _) = self.settings, played.rewards.shape
        with torch.no_grad():
            last_maps = None if played.maps is None else played.maps[-1]
            after = self.heads(played.features[-1], last_maps)[1].numpy().astype(np.float64)
            [cut] = played.cuts
            final = float(self.heads(cut.features, cut.maps)[1][0])
        returns = np.zeros((n_steps, n_envs))
        for env in range(n_envs):
            following_value = following_return = after[env]
            for t in reversed(range(n_steps)):
                if played.terminated[t, env, 0]:
                    following_value = following_return = 0.0
                elif played.truncated[t, env, 0]:
                    following_value = following_return = final
                mixed = (1 - s.gae_lambda) * following_value + s.gae_lambda * following_return
                returns[t, env] = played.rewards[t, env, 0] + s.gamma * mixed
                following_value, following_return = values[t, env], returns[t, env]
        return returns


class Losses(NamedTuple):
    loss: float
    policy_loss: float
    value_loss: float
    entropy: float
    grad_norm: float


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"ent_coef": 0.02, "gae_lambda": 0.9, "vf_coef": 0.7},
        {"normalize_advantage": True, "max_grad_norm": 100.0},
    ],
    ids=["defaults", "entropy", "normalised"],
)
@pytest.mark.parametrize("spec", [MLP, GAUSSIAN, WITH_MAP], ids=["categorical", "gaussian", "conflict aware"])
def test_updates_are_those_of_autograd_and_torchs_rmsprop(
    spec: NetworkSpec, settings: dict[str, Any]
) -> None:
    learner = learner_of(spec, **settings)
    oracle = Oracle(learner)
    start = learner.weights
    for seed in range(N_UPDATES):
        played = played_by_chance(spec, seed)
        stats, expected = learner.learn(played, 0.0).stats(), oracle.update(played)
        measured = [getattr(stats, name) for name in Losses._fields]
        np.testing.assert_allclose(measured, expected, rtol=1e-4, atol=1e-5)
    reached = {name: tensor.numpy() for name, tensor in oracle.network.state_dict().items()}
    assert max(np.abs(reached[name] - start[name]).max() for name in start) > 5e-3
    for name, array in learner.weights.items():
        np.testing.assert_allclose(array, reached[name], atol=1e-5, err_msg=name)


def test_the_defaults_are_those_of_stable_baselines3() -> None:
    settings = A2CParams()
    assert (settings.learning_rate, settings.gamma, settings.gae_lambda) == (7e-4, 0.99, 1.0)
    assert (settings.ent_coef, settings.vf_coef, settings.max_grad_norm) == (0.0, 0.5, 0.5)
    assert (settings.rms_prop_eps, settings.normalize_advantage) == (1e-5, False)


def test_the_learning_rate_falls_to_nothing_where_asked() -> None:
    learner = learner_of(MLP, learning_rate_schedule="linear")
    assert learner.learn(played_by_chance(MLP, 0), 0.75).stats().learning_rate == pytest.approx(7e-4 / 4)


def test_a_rollout_that_is_not_finite_is_skipped_counted_and_told_as_nan() -> None:
    learner = learner_of(MLP)
    learner.learn(played_by_chance(MLP, 0), 0.0)
    before, state = learner.weights, learner.state()
    broken = played_by_chance(MLP, 1)
    broken.rewards[3] = np.nan
    stats = learner.learn(broken, 0.0).stats()
    assert np.isnan([stats.loss, stats.grad_norm]).all()
    assert (stats.skipped_updates, learner.n_updates) == (1, 1)
    assert all((learner.weights[name] == array).all() for name, array in before.items())
    assert (learner.state()["adam.exp_avg_sq"] == state["adam.exp_avg_sq"]).all()


def test_what_is_never_finite_ends_the_run_with_the_arrays_name() -> None:
    from townlet_train.api import TrainingError

    learner, broken = learner_of(MLP), played_by_chance(MLP, 1)
    broken.features[0] = np.inf

    def learn_for_long() -> None:
        for _ in range(100):
            learner.learn(broken, 0.0)

    with pytest.raises(TrainingError, match="'features'"):
        learn_for_long()


def test_large_rewards_are_scaled_and_the_scale_is_saved() -> None:
    learner = learner_of(MLP, normalize_rewards=True)
    for seed in range(3):
        stats = learner.learn(played_by_chance(MLP, seed), 0.0).stats()
    assert stats.advantage_std < 3
    assert learner.state()["reward_scale.variance"][0] > 5
