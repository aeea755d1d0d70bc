"""The layout of a recording, by name: what each feature, action and map channel is.

Two recordings can be mixed, and a network can read one, only when these names agree; a width alone proves nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_train.errors import DataError

UPSTREAM_LAYOUTS = {
    24: "the 24-feature layout of the oldest Townlet samples",
    36: "the 36-feature layout of early Townlet samples (20 base features, 16 social placeholders)",
    68: "the 68-feature layout of Townlet captures before local summaries (20 base features, 48 social)",
    81: "the 81-feature layout of current Townlet captures (33 base features, 48 social)",
}

REQUIRED_UPSTREAM_FEATURES = ("rivalry_max", "rivalry_avoid_count")

_MOVES = ("north", "south", "east", "west", "step_away", "job")


@dataclass(frozen=True)
class Layout:
    """Names of everything a recording holds, in the order of the arrays' axes.

    Actions are indices of `action_names`, or vectors within `action_low` and `action_high`, as in an `EnvSpec`.
    """

    feature_names: tuple[str, ...]
    action_names: tuple[str, ...]
    map_channels: tuple[str, ...] = ()
    map_size: int = 0
    env_id: str = ""
    action_low: tuple[float, ...] = ()
    action_high: tuple[float, ...] = ()

    @property
    def action_shape(self) -> tuple[int, ...]:
        """Shape of one action: () for an index, (dim,) for a vector."""
        return (len(self.action_low),) if self.action_low else ()

    @property
    def map_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of the local map; (0, 0, 0) when there is none."""
        return (len(self.map_channels), self.map_size, self.map_size)


def describe_features(names: Sequence[str], env_id: str = "") -> str:
    """A feature layout in words; `env_id` tells whose it is when it is none of Townlet's."""
    known = UPSTREAM_LAYOUTS.get(len(names))
    if known is not None and "need_hunger" in names:
        return known
    return (
        f"the {len(names)}-feature layout of environment {env_id!r}" if env_id else f"{len(names)} features"
    )


def check_features(found: Sequence[str], expected: Sequence[str], where: str) -> None:
    """Raise `DataError` naming the first feature that differs."""
    if tuple(found) == tuple(expected):
        return
    index = next(
        (i for i, (ours, theirs) in enumerate(zip(found, expected, strict=False)) if ours != theirs),
        min(len(found), len(expected)),
    )
    got = repr(found[index]) if index < len(found) else "nothing"
    want = repr(expected[index]) if index < len(expected) else "nothing"
    raise DataError(
        f"{where} has {describe_features(found)}; expected {describe_features(expected)}, and feature {index} is "
        f"{got} where {want} belongs. Capture it again with `townlet-train rollout capture`."
    )


def describe_bounds(layout: Layout) -> dict[str, Any]:
    """What documents say of the bounds of vectors, null where there is none; nothing of indices.

    >>> describe_bounds(Layout(("x",), (), action_low=(-1.0, 0.0), action_high=(1.0, float("inf"))))
    {'action_low': [-1.0, 0.0], 'action_high': [1.0, None]}
    """
    if not layout.action_low:
        return {}
    bounds = {"action_low": layout.action_low, "action_high": layout.action_high}
    return {name: [x if isfinite(x) else None for x in each] for name, each in bounds.items()}


def within_bounds(
    actions: NDArray[np.float32], low: Sequence[float], high: Sequence[float]
) -> NDArray[np.bool_]:
    """(...,): whether vectors (..., n_dimensions) are finite and lie within their bounds, as float32 has them."""
    least, most = (np.array(each, np.float32) for each in (low, high))
    inside: NDArray[np.bool_] = np.isfinite(actions) & (actions >= least) & (actions <= most)
    return np.asarray(inside.all(axis=-1))


def check_actions(found: Layout, expected: Layout, where: str) -> None:
    """Raise `DataError` where one layout's actions are vectors and the other's are not, or not within its bounds."""
    for name in ("action_low", "action_high"):
        got, want = getattr(found, name), getattr(expected, name)
        if got != want:
            raise DataError(
                f"{where} has {_actions(got, name)}; expected {_actions(want, name)}. "
                f"Keep them in recordings of their own."
            )


def _actions(bounds: tuple[float, ...], name: str) -> str:
    """What actions of such bounds are, in words."""
    return (
        f"vectors with {name} {', '.join(f'{x:g}' for x in bounds)} as actions" if bounds else "named actions"
    )


def action_payload(name: str) -> str:
    """The key of an action in `action_lookup`: a JSON payload whose kind is one of Townlet's seven.

    >>> action_payload("north"), action_payload("wait")
    ('{"kind": "move", "name": "north"}', '{"kind": "wait", "name": "wait"}')
    """
    kind = "move" if name in _MOVES else "request" if name.startswith("request_") else name
    return json.dumps({"kind": kind, "name": name})


def action_name(payload: str) -> str:
    """The name of an action from its key in `action_lookup`: its `name`, else its kind, else the payload itself.

    >>> action_name('{"kind": "wait"}'), action_name('{"kind": "request", "object": "bed_1"}')
    ('wait', '{"kind": "request", "object": "bed_1"}')
    """
    document = _payload(payload)
    if isinstance(document.get("name"), str):
        return str(document["name"])
    return str(document["kind"]) if set(document) == {"kind"} else payload


def action_kind(name: str) -> str:
    """The kind of an action given its name, as counted in `action_<kind>_count`.

    >>> action_kind("request_bed"), action_kind('{"kind": "chat", "target": "bob"}')
    ('request', 'chat')
    """
    payload = name if name.startswith("{") else action_payload(name)
    return str(_payload(payload).get("kind", name))


def _payload(text: str) -> Mapping[str, object]:
    """The payload as a mapping; empty when it is not a JSON object."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}
