"""Why a gate decided as it did, in sentences."""

from __future__ import annotations

import math

from townlet_train.config import GateSettings
from townlet_train.results import GateCriterionDTO, GateDTO
from townlet_train.services.gate.measured import counted

WORDS = {
    "mean": "the mean return",
    "iqm": "the interquartile mean",
    "cvar": "the mean of the worst episodes",
    "threshold": "the mean return",
}

FEW_IN_TAIL = 10  # episodes; with fewer, one crash more or less moves everything that is said of the tail


def explain(result: GateDTO, settings: GateSettings) -> tuple[str, ...]:
    """What decided: of a FAIL everything that is shown to be worse, of a HOLD everything that is open."""
    if result.verdict == "PASS":
        return (_passed(result), *([_superior(result)] if result.superior else []))
    rows = [row for row in result.criteria if row.status == result.verdict]
    if result.verdict == "FAIL":
        sentences = [_failed(row) for row in rows]
    else:
        sentences = [
            said for row in rows for said in (_open(row), *_few(row, result.episodes, settings.tail))
        ]
    limit = 1 / (result.level or settings.alpha)
    if result.e_inferior is not None and result.e_inferior >= limit:
        sentences.insert(
            0,
            f"On most seeds it earns less than {_other(result)} by more than the margin (e-value "
            f"{result.e_inferior:.3g}).",
        )
    elif result.verdict == "HOLD" and result.e_non_inferior is not None and result.e_non_inferior < limit:
        sentences.append(
            f"Signs do not tell yet that it is no worse on most seeds: their e-value is {result.e_non_inferior:.3g}, "
            f"needed {limit:.3g}; {_more(result.episodes_needed)}"
        )
    return tuple(sentences)


def _passed(result: GateDTO) -> str:
    mean = next(row for row in result.criteria if row.criterion in ("mean", "threshold"))
    if mean.criterion == "threshold":
        return f"It reaches the threshold: its mean return is {mean.candidate:.4g}, at least {_n(mean.low)}."
    return (
        f"It is no worse in anything: its mean return is {mean.candidate:.4g}, that of {_other(result)} "
        f"{_n(mean.release)}, the difference at least {_n(mean.low)} (margin {_n(mean.at_least)})."
    )


def _other(result: GateDTO) -> str:
    """What it is judged beside, which need not be released."""
    return result.release or "the other"


def _superior(result: GateDTO) -> str:
    share = result.share_better or 0
    return (
        f"It is better: its mean return is shown to be higher, and it earns more on {share:.0%} of the seeds."
    )


def _failed(row: GateCriterionDTO) -> str:
    """What is shown to be worse, and by how much."""
    too_low = row.at_least is not None and row.high is not None and row.high < row.at_least
    bound, limit = (row.high, row.at_least) if too_low else (row.low, row.at_most)
    side = ("at most", "at least") if too_low else ("at least", "at most")
    return f"{_what(row)}, shown to be {side[0]} {_n(bound)}, must be {side[1]} {_n(limit)}."


def _open(row: GateCriterionDTO) -> str:
    """What is not shown yet, and what would."""
    asked = []
    if row.at_least is not None and (row.low is None or row.low < row.at_least):
        asked.append(f"at least {_n(row.at_least)} (bound {_n(row.low)})")
    if row.at_most is not None and (row.high is None or row.high > row.at_most):
        asked.append(f"at most {_n(row.at_most)} (bound {_n(row.high)})")
    more = _more(row.episodes_needed)
    if row.low == row.high and row.criterion not in WORDS:
        more = "as a rate without spread shows nothing; gate the checkpoints themselves."
    return f"{_what(row)}, is not shown to be {' and '.join(asked)}; {more}"


def _few(row: GateCriterionDTO, episodes: int, tail: float) -> tuple[str, ...]:
    """What the bound of a tail is worth that has few episodes."""
    n_tail = int(tail * episodes)
    if row.criterion != "cvar" or n_tail >= FEW_IN_TAIL:
        return ()
    return (
        f"The worst {tail:.0%} of {episodes} episodes are {n_tail}, too few to be bounded well, so one crash more "
        f"or less changes all that is said of them; gate at least {math.ceil(FEW_IN_TAIL / tail)} episodes.",
    )


def _more(episodes: int | None) -> str:
    if episodes is None:
        return "no number of episodes would decide."
    return f"about {counted(episodes, 'more episode')} would decide."


def _what(row: GateCriterionDTO) -> str:
    name = WORDS.get(row.criterion, f"the rate of {row.criterion} per 10 000 agent-ticks")
    if row.release is None:
        return f"{_capital(name)}, {row.candidate:.4g}"
    return f"{_capital(name)}, {row.candidate:.4g} against {row.release:.4g} ({row.difference:+.4g})"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _n(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
