"""From what was measured to a verdict: PASS, HOLD or FAIL, and the sentences that say why.

PASS: no worse in anything that is asked, each claim with a chance of error of at most alpha. FAIL: shown to be worse in
something, or damaged. HOLD: neither is shown yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from townlet_train.config import GateSettings
from townlet_train.config.gate import FEWEST_EPISODES
from townlet_train.envs.streams import stream
from townlet_train.errors import UsageError
from townlet_train.results import GateCandidateDTO, GateCriterionDTO, GateDTO, Verdict
from townlet_train.services.gate.blocks import block_name, block_seeds
from townlet_train.services.gate.bounds import Measure, anytime_bounds, fixed_bounds, signs_needed
from townlet_train.services.gate.criteria import (
    Claim,
    Criterion,
    Margins,
    guardrail_criteria,
    margins,
    returns_criteria,
    share_better,
    threshold_criterion,
)
from townlet_train.services.gate.measured import Measured, Values, check_comparable
from townlet_train.services.gate.sentences import explain
from townlet_train.services.statistics import (
    Studentised,
    holm_levels,
    mean_estimate,
    resample_indices,
    sign_e_value,
)

RESAMPLING_SEED = 20251121  # fixed, so that equal returns give equal verdicts
FIRST_LOOK = 32  # episodes; bounds that hold at any time rest on the central limit theorem
RETURNS = ("mean", "iqm", "cvar")


def judge(candidate: Measured, release: Measured | None, settings: GateSettings) -> GateDTO:
    """The verdict on one candidate from episodes that were all measured before anybody looked.

    Raises:
        UsageError: the episodes are too few or not paired, or there is nothing to compare with.
    """
    return judge_all([candidate], release, settings)


def judge_all(candidates: Sequence[Measured], release: Measured | None, settings: GateSettings) -> GateDTO:
    """The verdicts on several candidates, in full on the best; Holm's levels (1979) keep alpha for all together.

    Raises:
        UsageError: as `judge`.
    """
    asked = [_ask(candidate, release, settings) for candidate in candidates]
    levels = holm_levels([case.p_value for case in asked], settings.alpha)
    superior_levels = holm_levels([case.p_superior for case in asked], settings.alpha)
    verdicts = [
        case.verdict(settings, level, superior_level)
        for case, level, superior_level in zip(asked, levels, superior_levels, strict=True)
    ]
    return best_of(verdicts)


def judge_sequentially(
    candidate: Measured, release: Measured | None, settings: GateSettings, *, level: float | None = None
) -> GateDTO:
    """The verdict so far, by bounds and bets that hold however often one looks and whenever one stops.

    PASS needs what a judgement of fixed size needs, and a sign e-process (`sign_e_value`) that has reached 1 / level
    for "better than the release less the margin on most seeds". FAIL is that e-process mirrored, or a bound. `level` is
    alpha unless several candidates share it. Margins that are shares are those of the first episodes alone, so that
    what is tested does not move.

    Raises:
        UsageError: as `judge`, or no release is given.
    """
    level = settings.alpha if level is None else level
    if candidate.problems:
        return _damaged(candidate, release, settings)
    if release is None:
        raise UsageError("A sequential gate compares signs, so it needs a release: name one with --against.")
    check_comparable(candidate, release, FIRST_LOOK)
    case = _SequentialCase.of(candidate, release, settings)
    verdict = case.verdict(level)
    result = _described(candidate, release, settings, case.criteria, verdict, level)
    better = anytime_bounds(mean_estimate, candidate.returns - release.returns).low(level) > 0
    result = result.model_copy(
        update={
            "method": "sequential",
            "superior": verdict == "PASS" and case.e_superior >= 1 / level and better,
            "e_non_inferior": case.e_non_inferior,
            "e_superior": case.e_superior,
            "e_inferior": case.e_inferior,
            "episodes_needed": case.needed(result.episodes_needed, level) if verdict == "HOLD" else None,
        }
    )
    return result.model_copy(update={"reasons": explain(result, settings)})


@dataclass(frozen=True)
class _SequentialCase:
    """A candidate's pairs so far, everything that is asked of them, and the bets on their signs."""

    candidate: Measured
    criteria: tuple[Criterion, ...]
    e_non_inferior: float
    e_superior: float
    e_inferior: float
    signs: tuple[int, int]  # pairs in which it earns more than the release less the margin, and less

    @classmethod
    def of(cls, candidate: Measured, release: Measured, settings: GateSettings) -> _SequentialCase:
        margin = margins(release.first(FIRST_LOOK), settings)
        apart = candidate.returns - release.returns
        return cls(
            candidate,
            _criteria(candidate, release, settings, margin, anytime_bounds),
            _e_value(apart + margin.mean),
            _e_value(apart),
            _e_value(-apart - margin.mean),
            (int((apart + margin.mean > 0).sum()), int((apart + margin.mean < 0).sum())),
        )

    def needed(self, by_bounds: int | None, level: float) -> int | None:
        """Episodes until bounds and signs have both decided; None when either never does."""
        n, (wins, losses) = len(self.candidate.seeds), self.signs
        bounds_open = _joined([criterion.status(level) for criterion in self.criteria]) == "HOLD"
        signs_open = self.e_non_inferior < 1 / level
        needed = [
            *([by_bounds] if bounds_open else []),
            *([signs_needed(wins, losses, n, level=level)] if signs_open else []),
        ]
        return None if None in needed else max(more for more in needed if more is not None)

    def verdict(self, level: float) -> Verdict:
        """FAIL: a bet or a bound shows it to be worse; PASS: bets and every bound show it to be no worse."""
        joined = _joined([criterion.status(level) for criterion in self.criteria])
        if self.e_inferior >= 1 / level:
            return "FAIL"
        return "HOLD" if joined == "PASS" and self.e_non_inferior < 1 / level else joined


def sequential_looks(
    candidate: Measured, release: Measured | None, settings: GateSettings, *, level: float | None = None
) -> GateDTO:
    """The first decision, looking after every episode; the last look's HOLD if there is none."""
    n_all = len(candidate.seeds)
    if candidate.problems or release is None or n_all < FIRST_LOOK:
        return judge_sequentially(candidate, release, settings, level=level)
    check_comparable(candidate, release, FIRST_LOOK)
    alpha = settings.alpha if level is None else level
    asked = (_SequentialCase.of(candidate.first(n), release.first(n), settings) for n in looks(n_all))
    decided = next((case for case in asked if case.verdict(alpha) != "HOLD"), None)
    n = n_all if decided is None else len(decided.candidate.seeds)
    return judge_sequentially(candidate.first(n), release.first(n), settings, level=level)


def looks(n: int) -> Iterator[int]:
    """Every number of episodes at which one may decide."""
    return iter(range(FIRST_LOOK, n + 1))


def best_of(verdicts: Sequence[GateDTO]) -> GateDTO:
    """The best verdict, and a row for each where there are several."""
    if len(verdicts) == 1:
        return verdicts[0]
    order: dict[Verdict, int] = {"PASS": 0, "HOLD": 1, "FAIL": 2}
    best = min(verdicts, key=lambda one: (order[one.verdict], not one.superior, -(_mean(one) or 0.0)))
    rows = tuple(
        GateCandidateDTO(
            candidate=one.candidate,
            verdict=one.verdict,
            superior=one.superior,
            mean=_mean(one),
            p_value=one.p_value,
            level=one.level,
            reason=one.reasons[0],
        )
        for one in verdicts
    )
    warnings = dict.fromkeys(warning for one in verdicts for warning in one.warnings)
    return best.model_copy(update={"candidates": rows, "warnings": tuple(warnings)})


@dataclass(frozen=True)
class _Case:
    """A candidate and everything that is asked of it."""

    candidate: Measured
    release: Measured | None
    criteria: tuple[Criterion, ...]
    p_value: float = 1.0
    p_superior: float = 1.0

    def verdict(self, settings: GateSettings, level: float, superior_level: float) -> GateDTO:
        """The verdict with each family of claims at its own level."""
        if self.candidate.problems:
            return _damaged(self.candidate, self.release, settings)
        statuses = tuple(criterion.status(level) for criterion in self.criteria)
        verdict = _joined(statuses)
        result = _described(self.candidate, self.release, settings, self.criteria, verdict, level)
        better = self.p_superior <= superior_level and self._middle_is_no_worse(superior_level)
        result = result.model_copy(
            update={
                "p_value": self.p_value,
                "p_superior": None if self.release is None else self.p_superior,
                "superior": verdict == "PASS" and better,
            }
        )
        return result.model_copy(update={"reasons": explain(result, settings)})

    def _middle_is_no_worse(self, level: float) -> bool:
        """Whether the interquartile mean bears the better mean out: its bound is not below 0."""
        return any(
            criterion.claims[0].bounds.low(level) >= 0
            for criterion in self.criteria
            if criterion.name == "iqm"
        )


def _ask(candidate: Measured, release: Measured | None, settings: GateSettings) -> _Case:
    if candidate.problems:
        return _Case(candidate, release, ())
    check_comparable(candidate, release, FEWEST_EPISODES)
    indices = resample_indices(
        len(candidate.seeds), settings.resamples, stream(RESAMPLING_SEED, "gate bootstrap")
    )
    margin = None if release is None else margins(release, settings)
    criteria = _criteria(candidate, release, settings, margin, fixed_bounds(indices))
    p_superior = 1.0
    if release is not None:
        p_superior = _p_better(criteria[0].claims[0])
    return _Case(candidate, release, criteria, max(criterion.p_value() for criterion in criteria), p_superior)


def _p_better(mean: Claim) -> float:
    """The smallest level at which the mean difference is above 0; 1 where it is 0 throughout."""
    assert isinstance(mean.bounds, Studentised)
    return mean.bounds.p_above(0.0) if mean.bounds.value > 0 else 1.0


def _criteria(
    candidate: Measured,
    release: Measured | None,
    settings: GateSettings,
    margin: Margins | None,
    measure: Measure,
) -> tuple[Criterion, ...]:
    criteria: list[Criterion] = []
    if release is not None and margin is not None:
        criteria += returns_criteria(candidate, release, settings, margin, measure)
    if settings.threshold is not None:
        criteria.append(threshold_criterion(candidate, settings.threshold, measure))
    if not criteria:
        raise UsageError(
            "There is nothing to judge by: name a release with --against, in the town perhaps `expert`, or an absolute "
            "--threshold."
        )
    return (*criteria, *guardrail_criteria(candidate, release, settings, measure))


def _joined(statuses: Sequence[Verdict]) -> Verdict:
    if "FAIL" in statuses:
        return "FAIL"
    return "HOLD" if "HOLD" in statuses else "PASS"


def _e_value(apart: Values) -> float:
    return sign_e_value(int((apart > 0).sum()), int((apart < 0).sum()))


def _described(
    candidate: Measured,
    release: Measured | None,
    settings: GateSettings,
    criteria: Sequence[Criterion],
    verdict: Verdict,
    level: float,
) -> GateDTO:
    """Everything of a verdict but its reasons."""
    rows = tuple(criterion.report(level, settings.power) for criterion in criteria)
    seeds = block_seeds(settings)
    in_block = (
        bool(candidate.seeds) and min(candidate.seeds) >= seeds[0] and max(candidate.seeds) <= seeds[-1]
    )
    ours = [row.status for row in rows if row.criterion in RETURNS]
    return GateDTO(
        verdict=verdict,
        non_inferior=None if release is None else _joined(ours) == "PASS",
        candidate=candidate.name,
        candidate_sha256=candidate.sha256,
        release=None if release is None else release.name,
        release_sha256=None if release is None else release.sha256,
        env=candidate.env,
        block=block_name(settings) if in_block else None,
        episodes=len(candidate.seeds),
        alpha=settings.alpha,
        level=level,
        share_better=None if release is None else share_better(candidate, release),
        criteria=rows,
        reasons=(),
        episodes_needed=_needed(rows) if verdict == "HOLD" else None,
        seeds=candidate.seeds,
        candidate_returns=tuple(candidate.returns.tolist()),
        release_returns=() if release is None else tuple(release.returns.tolist()),
        warnings=_doubts(candidate, release, settings),
    )


def _needed(rows: Sequence[GateCriterionDTO]) -> int | None:
    """Episodes until the last open criterion is decided; None when one of them never is."""
    needed = [row.episodes_needed for row in rows if row.status == "HOLD"]
    known = [n for n in needed if n is not None]
    return max(known) if known and len(known) == len(needed) else None


def _doubts(candidate: Measured, release: Measured | None, settings: GateSettings) -> tuple[str, ...]:
    if not settings.guardrails:
        return ()
    if release is not None and bool(candidate.events) != bool(release.events):
        if candidate.events:
            return (f"{release.name} has no events, so guardrails were judged by their limits alone.",)
        return (f"{candidate.name} has no events, so no guardrail was judged.",)
    if candidate.events and (candidate.rates_only or (release is not None and release.rates_only)):
        return ("Events in files are rates without spread: guardrails took them as they stand.",)
    return ()


def _damaged(candidate: Measured, release: Measured | None, settings: GateSettings) -> GateDTO:
    """FAIL for a candidate that is damaged, whatever it might earn."""
    return GateDTO(
        verdict="FAIL",
        non_inferior=None if release is None else False,
        candidate=candidate.name,
        candidate_sha256=candidate.sha256,
        release=None if release is None else release.name,
        release_sha256=None if release is None else release.sha256,
        env=candidate.env,
        alpha=settings.alpha,
        reasons=candidate.problems,
    )


def _mean(verdict: GateDTO) -> float | None:
    returns = verdict.candidate_returns
    return sum(returns) / len(returns) if returns else None
