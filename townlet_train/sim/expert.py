"""The scripted expert: a function of one observation and its mask, and of nothing else.

Every comparison it makes is a binary or sign feature, or a legal action: a network can then clone it without having to
find thresholds in continuous numbers. It carries a critical need first, then work, then a low need, then cooks when the
fridge runs low, then looks for a chat.
"""

from __future__ import annotations

from typing import Any

from townlet_train.sim import indices as at
from townlet_train.sim.kernels import kernel
from townlet_train.sim.layout import (
    BED,
    CHAT,
    EAST,
    FRIDGE,
    JOB,
    NORTH,
    REQUEST,
    SHOWER,
    SOUTH,
    START,
    STOVE,
    WAIT,
    WEST,
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
    action = _serve_needs(f, mask, at.CRITICAL)
    if action != NOTHING:
        return action
    if mask[JOB]:
        return JOB
    action = _serve_needs(f, mask, at.LOW)
    if action != NOTHING:
        return action
    if f[at.STOCK_LOW] > 0 and (f[at.STOVE_FREE] > 0 or _claimed(f, STOVE)) and _usable(f, STOVE):
        return _use(f, mask, STOVE)
    if f[at.SOCIABLE] > 0 and f[at.CHAT_READY] > 0 and not f[at.NEAREST_AGENT_IS_RIVAL] > 0:
        return CHAT if mask[CHAT] else _approach(f[at.NEAREST_AGENT_DX_SIGN], f[at.NEAREST_AGENT_DY_SIGN])
    return WAIT


@kernel
def _serve_needs(f: Any, mask: Any, level: int) -> int:
    """Go and use what the lowest need at this level asks for; the others follow in order."""
    for need in range(3):
        if f[level + need] > 0 and f[at.LOWEST + need] > 0:
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
    return f[at.TYPE_BLOCK + kind * at.N_TYPE_FEATURES + at.USABLE] > 0


@kernel
def _claimed(f: Any, kind: int) -> bool:
    """Whether the agent holds or waits for an object of this type."""
    base = at.TYPE_BLOCK + kind * at.N_TYPE_FEATURES
    return f[base + at.HOLDING] > 0 or f[base + at.WAITING] > 0


@kernel
def _use(f: Any, mask: Any, kind: int) -> int:
    """Wait in line, ask for the object when within reach, or walk to it."""
    if _claimed(f, kind):
        return WAIT
    if mask[REQUEST + kind]:
        return REQUEST + kind
    base = at.TYPE_BLOCK + kind * at.N_TYPE_FEATURES
    return _approach(f[base + at.DX_SIGN], f[base + at.DY_SIGN])


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
