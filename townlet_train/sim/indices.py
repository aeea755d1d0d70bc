"""Where each feature lies in the vector, by name, for the kernels that write and read it.

A feature of an object type lies at `TYPE_BLOCK + kind * N_TYPE_FEATURES` plus its place in the block.
"""

from __future__ import annotations

from townlet_train.sim.layout import FEATURE_INDEX, TYPE_FEATURES

WALLET = FEATURE_INDEX["wallet"]
LATENESS_COUNTER = FEATURE_INDEX["lateness_counter"]
ON_SHIFT = FEATURE_INDEX["on_shift"]
TIME_SIN = FEATURE_INDEX["time_sin"]
TIME_COS = FEATURE_INDEX["time_cos"]
ATTENDANCE_RATIO = FEATURE_INDEX["attendance_ratio"]
WAGES_WITHHELD = FEATURE_INDEX["wages_withheld"]
EMBEDDING_SLOT_NORM = FEATURE_INDEX["embedding_slot_norm"]
CTX_RESET_FLAG = FEATURE_INDEX["ctx_reset_flag"]
EPISODE_PROGRESS = FEATURE_INDEX["episode_progress"]
RIVALRY_MAX = FEATURE_INDEX["rivalry_max"]
RIVALRY_AVOID_COUNT = FEATURE_INDEX["rivalry_avoid_count"]
LAST_ACTION_ID_HASH = FEATURE_INDEX["last_action_id_hash"]
LAST_ACTION_SUCCESS = FEATURE_INDEX["last_action_success"]
LAST_ACTION_DURATION = FEATURE_INDEX["last_action_duration"]
RESERVATION_ACTIVE = FEATURE_INDEX["reservation_active"]
IN_QUEUE = FEATURE_INDEX["in_queue"]
PATH_HINT_NORTH = FEATURE_INDEX["path_hint_north"]
PATH_HINT_SOUTH = FEATURE_INDEX["path_hint_south"]
PATH_HINT_EAST = FEATURE_INDEX["path_hint_east"]
PATH_HINT_WEST = FEATURE_INDEX["path_hint_west"]
NEIGHBOR_AGENT_RATIO = FEATURE_INDEX["neighbor_agent_ratio"]
NEIGHBOR_OBJECT_RATIO = FEATURE_INDEX["neighbor_object_ratio"]
RESERVED_TILE_RATIO = FEATURE_INDEX["reserved_tile_ratio"]
NEAREST_AGENT_DISTANCE = FEATURE_INDEX["nearest_agent_distance"]
SOCIAL_TRUST_MEAN = FEATURE_INDEX["social_trust_mean"]
SOCIAL_TRUST_MAX = FEATURE_INDEX["social_trust_max"]
SOCIAL_RIVALRY_MEAN = FEATURE_INDEX["social_rivalry_mean"]
SOCIAL_RIVALRY_MAX = FEATURE_INDEX["social_rivalry_max"]
JOB_CALLS = FEATURE_INDEX["job_calls"]
AT_JOB = FEATURE_INDEX["at_job"]
JOB_DX = FEATURE_INDEX["job_dx"]
JOB_DY = FEATURE_INDEX["job_dy"]
JOB_DX_SIGN = FEATURE_INDEX["job_dx_sign"]
JOB_DY_SIGN = FEATURE_INDEX["job_dy_sign"]
NEAREST_AGENT_DX = FEATURE_INDEX["nearest_agent_dx"]
NEAREST_AGENT_DY = FEATURE_INDEX["nearest_agent_dy"]
NEAREST_AGENT_DX_SIGN = FEATURE_INDEX["nearest_agent_dx_sign"]
NEAREST_AGENT_DY_SIGN = FEATURE_INDEX["nearest_agent_dy_sign"]
NEAREST_AGENT_IS_RIVAL = FEATURE_INDEX["nearest_agent_is_rival"]
CHAT_READY = FEATURE_INDEX["chat_ready"]
EXTROVERSION = FEATURE_INDEX["extroversion"]
SOCIABLE = FEATURE_INDEX["sociable"]
REMAINING_TICKS = FEATURE_INDEX["remaining_ticks"]
CAN_AFFORD_MEAL = FEATURE_INDEX["can_afford_meal"]
FRIDGE_STOCK = FEATURE_INDEX["fridge_stock"]
STOCK_LOW = FEATURE_INDEX["stock_low"]
STOVE_FREE = FEATURE_INDEX["stove_free"]
PRICE_SPIKE = FEATURE_INDEX["price_spike"]
POWER_OUT = FEATURE_INDEX["power_out"]
WATER_OUT = FEATURE_INDEX["water_out"]
NEED = FEATURE_INDEX["need_hunger"]
CRITICAL = FEATURE_INDEX["critical_hunger"]
LOWEST = FEATURE_INDEX["lowest_hunger"]
DX = TYPE_FEATURES.index("dx")
DY = TYPE_FEATURES.index("dy")
DIST = TYPE_FEATURES.index("dist")
DX_SIGN = TYPE_FEATURES.index("dx_sign")
DY_SIGN = TYPE_FEATURES.index("dy_sign")
QUEUE_LENGTH = TYPE_FEATURES.index("queue_length")
HOLDING = TYPE_FEATURES.index("holding")
WAITING = TYPE_FEATURES.index("waiting")
COOLDOWN = TYPE_FEATURES.index("cooldown")
RIVAL_BLOCKED = TYPE_FEATURES.index("rival_blocked")
USABLE = TYPE_FEATURES.index("usable")
SHIFT = FEATURE_INDEX["shift_pre"]
SOCIAL = FEATURE_INDEX["social_slot0_d0"]
TYPE_BLOCK = FEATURE_INDEX["fridge_dx"]
LOW = FEATURE_INDEX["low_hunger"]
N_TYPE_FEATURES = len(TYPE_FEATURES)
