"""What the strategy of a stage is told: what suits the environment, what the anneal decides, what the stage says."""

from __future__ import annotations

from typing import Any

from townlet_train.strategies.anneal.journey import Journey
from townlet_train.strategies.anneal.params import BC, CRITIC_WARMUP, DAGGER, EVAL, PPO, StageParams
from townlet_train.strategies.anneal.schedule import ppo_stage_steps, strategy_of
from townlet_train.strategies.anneal.setting import Setting

SLOWEST = 0.1  # share of the learning rate that the last stages keep


def stage_strategy(stage: StageParams, journey: Journey, setting: Setting) -> dict[str, Any]:
    """The strategy's name and its params."""
    builders = {BC: _bc, DAGGER: _dagger, CRITIC_WARMUP: _critic_warmup, PPO: _ppo}
    if stage.mode == EVAL:
        return {"strategy": EVAL, "params": {}}
    decided = builders[stage.mode](journey, setting) if stage.mode in builders else {}
    return {"strategy": strategy_of(stage), "params": {**decided, **stage.params}}


def _bc(journey: Journey, setting: Setting) -> dict[str, Any]:
    return {"manifest": setting.manifest, "evaluate": False, **setting.suits.bc}


def _dagger(journey: Journey, setting: Setting) -> dict[str, Any]:
    return {"manifest": setting.manifest, "evaluation_episodes": 0}


def _critic_warmup(journey: Journey, setting: Setting) -> dict[str, Any]:
    steps = int(setting.suits.timesteps * setting.params.critic_warmup)
    return {
        **_common(setting),
        "timesteps": max(1, steps),
        "critic_only": True,
        "until_explained_variance": setting.params.critic_explains,
        "kl_coef": 0.0,
    }


def _ppo(journey: Journey, setting: Setting) -> dict[str, Any]:
    suits, params = setting.suits, setting.params
    steps = ppo_stage_steps(setting.stages, suits)
    done = min(1.0, journey.steps / suits.timesteps)
    common = _common(setting)
    common["learning_rate"] *= journey.rate_scale * max(SLOWEST, 1 - done)
    kl_coef = (
        suits.kl_coef if suits.kl_half_life is None else suits.kl_coef * 2 ** (-done / suits.kl_half_life)
    )
    kl_coef = max(suits.kl_floor, kl_coef) * journey.kl_scale
    kl_coef = max(kl_coef, journey.kl_least) if journey.kl_scale > 1 else kl_coef
    near = {"kl_coef": kl_coef, "reference": setting.context.run_dir / str(journey.clone)} if kl_coef else {}
    left = share_left(journey, setting)
    driven = {"expert_share": params.anneal_ratio * left, "bc_coef": params.bc_weight * left} if left else {}
    return {**common, "timesteps": steps, **near, **driven, **params.recorded}


def share_left(journey: Journey, setting: Setting) -> float:
    """What is left of the expert's part: all of it in the first stage of PPO, nothing in the last."""
    n_stages = sum(stage.mode == PPO for stage in setting.stages)
    n_done = sum(done.mode == PPO for done in journey.stages)
    return 1.0 if n_stages == 1 else 1 - n_done / (n_stages - 1)


def _common(setting: Setting) -> dict[str, Any]:
    """What all stages of PPO are told; their network is that of what they begin with, each critic's layers its own."""
    return {"evaluation_episodes": 0, "telemetry_frequency": 0, **setting.suits.ppo}
