"""Which stages an anneal goes through, and what each is told."""

from __future__ import annotations

from typing import Any, NamedTuple

from townlet_train.strategies.anneal.params import BC, CRITIC_WARMUP, PPO, AnnealParams, StageParams


class Suits(NamedTuple):
    """What suits an environment."""

    capture: dict[str, Any]  # how the expert is captured, when no demonstrations are given
    timesteps: int
    n_cycles: int
    kl_coef: float
    kl_half_life: float | None
    kl_floor: float
    bc_threshold: float
    stage_episodes: int
    bc: dict[str, Any]
    ppo: dict[str, Any]


TOWN = Suits(
    capture={"towns": 96, "ticks": 640, "store": "memmap"},
    timesteps=6_389_760,  # 13 cycles of 128 towns' whole episodes
    n_cycles=13,
    kl_coef=0.08,  # with half of it from the beginning, rare towns starve; held to the end, little more is learned
    kl_half_life=1.0,
    kl_floor=0.0,
    bc_threshold=0.95,
    stage_episodes=256,  # what goes wrong in one town of a hundred is seen
    bc={},
    ppo={
        "n_envs": 128,
        "n_steps": 32,
        "batch_size": 2048,
        "n_epochs": 4,
        "learning_rate": 1e-3,
        "gamma": 0.999,  # so that a faint, which comes slowly, is seen coming
        "normalize_rewards": True,
    },
)
GYMNASIUM = Suits(
    capture={"towns": 16, "ticks": 1250, "store": "memmap"},
    timesteps=98_304,
    n_cycles=3,
    kl_coef=0.0,
    kl_half_life=None,
    kl_floor=0.0,
    bc_threshold=0.7,
    stage_episodes=64,
    bc={"learning_rate": 1e-2},
    ppo={
        "n_envs": 16,
        "n_steps": 256,
        "batch_size": 256,
        "n_epochs": 6,
        "learning_rate": 3e-4,
        "gamma": 0.999,
        "gae_lambda": 0.98,
        "normalize_rewards": True,
    },
)


def what_suits(env_id: str, params: AnnealParams) -> Suits:
    """What the environment is worth, with what was said instead."""
    usual = TOWN if env_id == "town" else GYMNASIUM
    said = {name: value for name in Suits._fields if (value := getattr(params, name, None)) not in (None, {})}
    said |= {name: {**getattr(usual, name), **getattr(params, name)} for name in ("bc", "ppo")}
    suits = usual._replace(**said)
    own, n_unsaid = own_steps(params.schedule)
    if not own:
        return suits
    unsaid = n_unsaid * (usual.timesteps // (len(own) + n_unsaid))
    return suits._replace(timesteps=max(sum(own) + n_unsaid, params.timesteps or sum(own) + unsaid))


def stages_of(params: AnnealParams, suits: Suits) -> tuple[StageParams, ...]:
    """The schedule in the order of its cycles; without one: a clone, its critic, and PPO cycle by cycle."""
    if params.schedule:
        return tuple(sorted(params.schedule, key=lambda stage: stage.cycle))
    first = [StageParams(cycle=0, mode=BC)]
    if params.critic_warmup:
        first.append(StageParams(cycle=0, mode=CRITIC_WARMUP))
    return (*first, *(StageParams(cycle=cycle, mode=PPO) for cycle in range(1, suits.n_cycles + 1)))


def strategy_of(stage: StageParams) -> str:
    """Name of the strategy that runs a stage; `eval` has none."""
    return PPO if stage.mode == CRITIC_WARMUP else stage.mode


def own_steps(stages: tuple[StageParams, ...]) -> tuple[list[int], int]:
    """Steps of the PPO stages that say how many, and the number of those that do not."""
    said = [stage.params.get("timesteps") for stage in stages if stage.mode == PPO]
    own = [steps for steps in said if isinstance(steps, int)]  # what else it may be, ppo refuses
    return own, len(said) - len(own)


def ppo_stage_steps(stages: tuple[StageParams, ...], suits: Suits) -> int:
    """Steps of a PPO stage that does not say: those of its kind share what the others leave."""
    own, n_unsaid = own_steps(stages)
    return max(1, (suits.timesteps - sum(own)) // max(1, n_unsaid))
