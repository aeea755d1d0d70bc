"""Who demonstrates: for some environments there is an expert, a policy that leaves nothing to chance.

Imports nothing heavy: an expert is built, and what it needs imported, when it is asked to act.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from townlet_train.errors import UsageError

if TYPE_CHECKING:
    from townlet_train.envs.protocol import EnvSpec
    from townlet_train.policies.protocol import Policy

EXPERT = "expert"  # the name under which the expert of an environment is asked for
SCRIPTED_NAMES = (EXPERT, "random", "idle", "fasting")  # of all policies that need no training
SCRIPTED_HELP = f"{', '.join(SCRIPTED_NAMES[:-1])} or {SCRIPTED_NAMES[-1]}"
ExpertBuilder = Callable[["EnvSpec"], "Policy"]
Experts = Mapping[str, ExpertBuilder]  # by environment id


def find_expert(env_id: str, experts: Experts) -> ExpertBuilder | None:
    """What builds the expert of an environment, on whichever engine it runs; None when nobody plays it."""
    from townlet_train.data.checkpoint import task_of

    return experts.get(env_id) or experts.get(task_of(env_id))


def build_expert(spec: EnvSpec, experts: Experts) -> Policy:
    """The expert of an environment, a pure function of the observation, whatever draws it is given.

    Raises:
        UsageError: nobody plays it, or who does expects other features or actions.
    """
    build = find_expert(spec.env_id, experts)
    if build is None:
        raise UsageError(
            f"No expert plays {spec.env_id!r}; there is one for {', '.join(sorted(experts)) or 'no environment'}. "
            f"Evaluate random or idle, learn from demonstrations of your own (--manifest, --bc-manifest), or add an "
            f"expert by the hook townlet_train_experts of a plugin."
        )
    return build(spec)


def _town(spec: EnvSpec) -> Policy:
    from townlet_train.policies.scripted import ExpertPolicy

    return ExpertPolicy(spec)


def _cart_pole(spec: EnvSpec) -> Policy:
    from townlet_train.policies.controllers import CartPoleExpert

    return CartPoleExpert(spec)


def _lunar_lander(spec: EnvSpec) -> Policy:
    from townlet_train.policies.controllers import LunarLanderExpert

    return LunarLanderExpert(spec)


EXPERTS: Experts = {
    "CartPole-v1": _cart_pole,
    "LunarLander-v3": _lunar_lander,
    "LunarLanderContinuous-v3": _lunar_lander,
    "town": _town,
}
