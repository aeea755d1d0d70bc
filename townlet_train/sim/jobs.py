"""Shifts by the clock: on time, late, absent, and what each costs."""

from __future__ import annotations

from townlet_train.sim.kernels import Record, kernel
from townlet_train.sim.layout import ABSENT, EVENT_INDEX, LATE, ON_TIME, POST, PRE
from townlet_train.sim.ties import shift_tie

LATE_HELP = EVENT_INDEX["late_help"]
SHIFT_TAKEOVER = EVENT_INDEX["shift_takeover"]
WORKED = EVENT_INDEX["worked"]
LATE_EVENT = EVENT_INDEX["late"]
ABSENT_EVENT = EVENT_INDEX["absent"]


@kernel
def job_calls(town: Record, params: Record, agent: int) -> bool:
    """Whether the agent's shift, or the arrival window before it, is open to it."""
    if town.shift_state[agent] == ABSENT or town.shift_state[agent] == POST:
        return False
    job = params.job[agent]
    since_window = town.clock - params.shift[job, 0] + params.arrival_window
    if since_window < 0:
        since_window += params.day_ticks
    elif since_window >= params.day_ticks:
        since_window -= params.day_ticks
    return since_window < params.shift[job, 1] - params.shift[job, 0] + params.arrival_window


@kernel
def in_shift_hours(town: Record, params: Record, agent: int) -> bool:
    """Whether the agent's shift is under way by the clock."""
    job = params.job[agent]
    return params.shift[job, 0] <= town.clock < params.shift[job, 1]


@kernel
def work(town: Record, params: Record, agent: int, worked: bool) -> float:
    """Move an agent's shift on by a tick and pay it; returns wage plus punctuality."""
    job = params.job[agent]
    start, end = params.shift[job, 0], params.shift[job, 1]
    now = town.clock
    if now == end % params.day_ticks and town.shift_state[agent] != POST:
        _end_shift(town, params, agent)
    if now == (start - params.arrival_window) % params.day_ticks:
        town.shift_state[agent] = PRE
        town.away_ticks[agent] = 0
        town.on_time_ticks[agent] = 0
    if now < start or now >= end or town.shift_state[agent] == ABSENT or town.shift_state[agent] == POST:
        return 0.0
    if worked:
        if town.shift_state[agent] == PRE:
            town.shift_state[agent] = ON_TIME
        town.events[WORKED] += 1
        town.wallet[agent] = min(params.wallet_cap, town.wallet[agent] + params.wage)
        if town.shift_state[agent] == ON_TIME:
            town.on_time_ticks[agent] += 1
            return params.wage + params.punctuality
        return params.wage
    town.away_ticks[agent] += 1
    if town.shift_state[agent] == PRE and now - start >= params.grace_ticks:
        _come_late(town, params, agent)
    if town.shift_state[agent] == LATE:
        town.wallet[agent] = max(0.0, town.wallet[agent] - params.late_tick_penalty)
        town.wages_withheld[agent] += params.wage
    if town.away_ticks[agent] > params.absent_after:
        _miss_shift(town, params, agent)
    return 0.0


@kernel
def _end_shift(town: Record, params: Record, agent: int) -> None:
    """Close the books of a shift: attendance, and one missed shift forgiven for one attended."""
    job = params.job[agent]
    scheduled = params.shift[job, 1] - params.shift[job, 0]
    town.attendance[agent, 2] = town.attendance[agent, 1]
    town.attendance[agent, 1] = town.attendance[agent, 0]
    town.attendance[agent, 0] = town.on_time_ticks[agent] / scheduled
    if town.shift_state[agent] != ABSENT:
        town.absences[agent] = max(0, town.absences[agent] - 1)
    town.shift_state[agent] = POST


@kernel
def _come_late(town: Record, params: Record, agent: int) -> None:
    """Late: it costs money, and colleagues on shift help out."""
    town.shift_state[agent] = LATE
    town.lateness[agent] += 1
    town.wallet[agent] = max(0.0, town.wallet[agent] - params.late_penalty)
    town.events[LATE_EVENT] += 1
    for other in range(params.n_agents):
        if other != agent and _on_shift_together(town, params, agent, other):
            town.events[LATE_HELP] += 1
            shift_tie(town, agent, other, 0.2, 0.1, -0.1)


@kernel
def _miss_shift(town: Record, params: Record, agent: int) -> None:
    """Absent: it costs money, and colleagues on shift resent it."""
    town.shift_state[agent] = ABSENT
    town.absences[agent] += 1
    town.wallet[agent] = max(0.0, town.wallet[agent] - params.absent_penalty)
    town.events[ABSENT_EVENT] += 1
    for other in range(params.n_agents):
        if other != agent and _on_shift_together(town, params, agent, other):
            town.events[SHIFT_TAKEOVER] += 1
            shift_tie(town, other, agent, -0.1, 0.0, 0.3)


@kernel
def _on_shift_together(town: Record, params: Record, agent: int, other: int) -> bool:
    """Whether the other has the same job and is at it."""
    state = town.shift_state[other]
    return params.job[other] == params.job[agent] and (state == ON_TIME or state == LATE)
