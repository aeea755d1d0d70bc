"""Names of actions, features, map channels and events, and the indices the kernels use for them.

The first 81 features keep the names and order of the upstream system, so its files stay readable; ours follow. A slot
whose mechanic this town does not have stays 0 and is named in `DORMANT_FEATURES`.
"""

from __future__ import annotations

TYPES = ("fridge", "stove", "shower", "bed")
FRIDGE, STOVE, SHOWER, BED = range(4)
NEEDS = ("hunger", "hygiene", "energy")

ACTIONS = (
    "wait",
    "north",
    "south",
    "east",
    "west",
    "request_fridge",
    "request_stove",
    "request_shower",
    "request_bed",
    "start",
    "release",
    "chat",
    "job",
    "step_away",
)
WAIT, NORTH, SOUTH, EAST, WEST, REQUEST = range(6)
START, RELEASE, CHAT, JOB, STEP_AWAY = range(9, 14)
N_ACTIONS = len(ACTIONS)

MAP_CHANNELS = ("self", "agents", "objects", "reservations")
MAP_SIZE = 11
MAP_RADIUS = MAP_SIZE // 2

SHIFT_STATES = ("pre", "on_time", "late", "absent", "post")
PRE, ON_TIME, LATE, ABSENT, POST = range(5)

SOCIAL_SLOTS = 4
EMBED_DIM = 8
MAX_SLOTS = 64

EVENTS = (
    "queue_conflict",
    "queue_conflict_intensity",
    "handover",
    "ghost_step",
    "rotation",
    "cooldown_refusal",
    "avoidance",
    "chat_success",
    "chat_quality",
    "chat_failure",
    "shared_meal",
    "late_help",
    "shift_takeover",
    "meal",
    "cook",
    "shower",
    "sleep",
    "worked",
    "late",
    "absent",
    "failed_action",
    "faint",
    "eviction",
    "clipped_reward",
    "wait",
    "agent_tick",
)
EVENT_INDEX = {name: index for index, name in enumerate(EVENTS)}

UPSTREAM_FEATURES = (
    *(f"need_{need}" for need in NEEDS),
    "wallet",
    "lateness_counter",
    "on_shift",
    "time_sin",
    "time_cos",
    "attendance_ratio",
    "wages_withheld",
    *(f"shift_{state}" for state in SHIFT_STATES),
    "embedding_slot_norm",
    "ctx_reset_flag",
    "episode_progress",
    "rivalry_max",
    "rivalry_avoid_count",
    "last_action_id_hash",
    "last_action_success",
    "last_action_duration",
    "reservation_active",
    "in_queue",
    *(f"path_hint_{side}" for side in ("north", "south", "east", "west")),
    "neighbor_agent_ratio",
    "neighbor_object_ratio",
    "reserved_tile_ratio",
    "nearest_agent_distance",
    *(f"social_slot{slot}_d{dim}" for slot in range(SOCIAL_SLOTS) for dim in range(EMBED_DIM + 3)),
    "social_trust_mean",
    "social_trust_max",
    "social_rivalry_mean",
    "social_rivalry_max",
)

# One block of equal shape per object type, so that a kernel finds a type's features at base + offset.
TYPE_FEATURES = (
    "dx",
    "dy",
    "dist",
    "dx_sign",
    "dy_sign",
    "queue_length",
    "holding",
    "waiting",
    "cooldown",
    "rival_blocked",
    "usable",
)
OWN_FEATURES = (
    *(f"{kind}_{name}" for kind in TYPES for name in TYPE_FEATURES),
    "job_calls",
    "at_job",
    "job_dx",
    "job_dy",
    "job_dx_sign",
    "job_dy_sign",
    "nearest_agent_dx",
    "nearest_agent_dy",
    "nearest_agent_dx_sign",
    "nearest_agent_dy_sign",
    "nearest_agent_is_rival",
    "chat_ready",
    "extroversion",
    "sociable",
    "remaining_ticks",
    "can_afford_meal",
    "fridge_stock",
    "stock_low",
    "stove_free",
    *(f"low_{need}" for need in NEEDS),
    *(f"critical_{need}" for need in NEEDS),
    *(f"lowest_{need}" for need in NEEDS),
    "price_spike",
    "power_out",
    "water_out",
)
FEATURES = (*UPSTREAM_FEATURES, *OWN_FEATURES)
N_FEATURES = len(FEATURES)
FEATURE_INDEX = {name: index for index, name in enumerate(FEATURES)}

# Why a feature may be constant: the doctor checks that every other one moves.
DORMANT_FEATURES = {
    "last_action_id_hash": "gives the previous action away; filled when observation.previous_action is on",
    "last_action_duration": "gives the previous action away; filled when observation.previous_action is on",
    "price_spike": "moves when perturbations are on",
    "power_out": "moves when perturbations are on",
    "water_out": "moves when perturbations are on",
}

# What the scripted expert reads, besides the mask. All of them are binary flags or signs.
EXPERT_FEATURES = (
    *(f"{kind}_{name}" for kind in TYPES for name in ("dx_sign", "dy_sign", "holding", "waiting", "usable")),
    "job_calls",
    "nearest_agent_dx_sign",
    "nearest_agent_dy_sign",
    "nearest_agent_is_rival",
    "chat_ready",
    "sociable",
    "stock_low",
    "stove_free",
    *(f"{level}_{need}" for level in ("low", "critical", "lowest") for need in NEEDS),
)
