"""The scripted expert: a function of one observation and its mask, and of nothing else.

Every comparison it makes is a binary or sign feature, or a legal action: a network can then clone it without having to
find thresholds in continuous numbers. It carries a critical need first, then work, then a low need, then cooks when the
fridge runs low, then looks for a chat.
"""

from __future__ import annotations

from typing import Any

from townlet_train.sim.kernels import kernel
from townlet_train.sim.layout import (
    BED,
    CHAT,
    EAST,
    FEATURE_INDEX,
    FRIDGE,
    JOB,
    NORTH,
    REQUEST,
    SHOWER,
    SOUTH,
    START,
    STOVE,
    TYPE_FEATURES,
    WAIT,
    WEST,
)

TYPE_BLOCK = FEATURE_INDEX["fridge_dx"]
N_TYPE_FEATURES = len(TYPE_FEATURES)
DX_SIGN, DY_SIGN = TYPE_FEATURES.index("dx_sign"), TYPE_FEATURES.index("dy_sign")
HOLDING, WAITING = TYPE_FEATURES.index("holding"), TYPE_FEATURES.index("waiting")
USABLE = TYPE_FEATURES.index("usable")
JOB_CALLS = FEATURE_INDEX["job_calls"]
NEAREST_DX_SIGN, NEAREST_DY_SIGN = (
    FEATURE_INDEX["nearest_agent_dx_sign"],
    FEATURE_INDEX["nearest_agent_dy_sign"],
)
NEAREST_IS_RIVAL = FEATURE_INDEX["nearest_agent_is_rival"]
CHAT_READY, SOCIABLE = FEATURE_INDEX["chat_ready"], FEATURE_INDEX["sociable"]
STOCK_LOW, STOVE_FREE = FEATURE_INDEX["stock_low"], FEATURE_INDEX["stove_free"]
LOW, CRITICAL, LOWEST = (
    FEATURE_INDEX["low_hunger"],
    FEATURE_INDEX["critical_hunger"],
    FEATURE_INDEX["lowest_hunger"],
)
NOTHING = -1


@kernel
def expert_actions(features: Any, mask: Any, actions: Any) -> None:
    """Fill `actions` (rows,) from `features` (rows, n_features) and `mask` (rows, n_actions)."""
    for row in range(features.shape[0]):
        actions[row] = _choose(features[row], mask[row])


@kernel
def _choose(f: Any, mask: Any) -> int:
    """The first rule that has something to do."""
    if not mask[NORTH] and not mask[SOUTH]:
        return WAIT  # an affordance is running
    if mask[START]:
        return START
    action = _serve_needs(f, mask, CRITICAL)
    if action != NOTHING:
        return action
    if mask[JOB]:
        return JOB
    action = _serve_needs(f, mask, LOW)
    if action != NOTHING:
        return action
    if f[STOCK_LOW] > 0 and (f[STOVE_FREE] > 0 or _claimed(f, STOVE)) and _usable(f, STOVE):
        return _use(f, mask, STOVE)
    if f[SOCIABLE] > 0 and f[CHAT_READY] > 0 and not f[NEAREST_IS_RIVAL] > 0:
        return CHAT if mask[CHAT] else _approach(f[NEAREST_DX_SIGN], f[NEAREST_DY_SIGN])
    return WAIT


@kernel
def _serve_needs(f: Any, mask: Any, level: int) -> int:
    """Go and use what the lowest need at this level asks for; the others follow in order."""
    for need in range(3):
        if f[level + need] > 0 and f[LOWEST + need] > 0:
            action = _serve(f, mask, need)
            if action != NOTHING:
                return action
    for need in range(3):
        if f[level + need] > 0:
            action = _serve(f, mask, need)
            if action != NOTHING:
                return action
    return NOTHING


@kernel
def _serve(f: Any, mask: Any, need: int) -> int:
    """Hunger is served by the fridge, or by cooking when there is nothing to eat."""
    if need == 0:
        if _usable(f, FRIDGE):
            return _use(f, mask, FRIDGE)
        return _use(f, mask, STOVE) if _usable(f, STOVE) else NOTHING
    kind = SHOWER if need == 1 else BED
    return _use(f, mask, kind) if _usable(f, kind) else NOTHING


@kernel
def _usable(f: Any, kind: int) -> bool:
    """Whether stock, cooldown, utilities and money allow it."""
    return f[TYPE_BLOCK + kind * N_TYPE_FEATURES + USABLE] > 0


@kernel
def _claimed(f: Any, kind: int) -> bool:
    """Whether the agent holds or waits for an object of this type."""
    base = TYPE_BLOCK + kind * N_TYPE_FEATURES
    return f[base + HOLDING] > 0 or f[base + WAITING] > 0


@kernel
def _use(f: Any, mask: Any, kind: int) -> int:
    """Wait in line, ask for the object when within reach, or walk to it."""
    if _claimed(f, kind):
        return WAIT
    if mask[REQUEST + kind]:
        return REQUEST + kind
    base = TYPE_BLOCK + kind * N_TYPE_FEATURES
    return _approach(f[base + DX_SIGN], f[base + DY_SIGN])


@kernel
def _approach(dx_sign: float, dy_sign: float) -> int:
    """One step, x first."""
    if dx_sign > 0:
        return EAST
    if dx_sign < 0:
        return WEST
    if dy_sign > 0:
        return SOUTH
    return NORTH if dy_sign < 0 else WAIT
