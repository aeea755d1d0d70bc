"""How far an anneal has come: plain values that a checkpoint keeps, and what guardrails make of them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from townlet_train.api import AnnealStageResultDTO, EvaluationDTO

SOFTER = 2.0  # what KL is multiplied with, and learning rates are divided by
FIRST_KL = 0.01  # where there was none


class Journey(BaseModel):
    """Everything the stages to come depend on."""

    model_config = ConfigDict(frozen=True)

    stages: tuple[AnnealStageResultDTO, ...] = ()
    steps: int = 0
    current: str | None = None  # checkpoint the next stage begins with, below the run's directory
    continues: str | None = None  # mode of the stage that left it; None after a return to an older one
    best: str | None = None
    best_measured: EvaluationDTO | None = None
    best_is_sure: bool = False  # to keep within the gate's guardrails
    restart: str | None = None  # the newest checkpoint that acts as the best does, whose critic knows most
    clone: str | None = None
    reference: EvaluationDTO | None = None  # the pinned one
    previous: EvaluationDTO | None = None
    random_mean: float | None = None
    loss: float | None = None
    baselines: dict[str, dict[str, float]] = {}  # by dataset label, of anneals before this one
    kl_scale: float = 1.0
    kl_least: float = 0.0
    rate_scale: float = 1.0
    strikes: int = 0
    reasons: tuple[str, ...] = ()
    status: str | None = None  # once it is decided: HOLD or FAIL

    def accept(self, measured: EvaluationDTO, loss: float | None, *, sure: bool) -> Journey:
        """A stage kept within the guardrails: strikes are forgotten, and the best may be a new one.

        Who is `sure` to keep within the gate's guardrails is better than who is not, then who earns more.
        """
        before = self.best_measured
        better = before is None or (sure, measured.mean) > (self.best_is_sure, before.mean)
        best = {
            "best": self.current,
            "best_measured": measured,
            "best_is_sure": sure,
            "restart": self.current,
        }
        kept = {"strikes": 0, "previous": measured, "loss": loss}
        return self.model_copy(update={**kept, **(best if better else {})})

    def note(self, measured: EvaluationDTO, loss: float | None) -> Journey:
        """A stage went through a guardrail that only looks: it goes on, and its policy is not the best."""
        return self.model_copy(update={"previous": measured, "loss": loss})

    def object(self, reasons: tuple[str, ...]) -> Journey:
        """A stage went through a guardrail: first more KL and smaller steps, then back to the best, then an end."""
        if self.strikes == 0:
            softer = {
                "kl_scale": self.kl_scale * SOFTER,
                "kl_least": max(FIRST_KL, self.kl_least * SOFTER),
                "rate_scale": self.rate_scale / SOFTER,
            }
            return self.model_copy(update={**softer, "strikes": 1})
        back = {
            "current": self.restart or self.best,
            "continues": None,
            "previous": self.best_measured,
            "loss": None,
        }
        if self.strikes == 1:
            return self.model_copy(update={**back, "strikes": 2})
        return self.model_copy(update={**back, "status": "HOLD", "reasons": reasons})

    def fail(self, reason: str) -> Journey:
        """Something is wrong that no guardrail mends."""
        return self.model_copy(update={"current": self.best, "status": "FAIL", "reasons": (reason,)})


ACTIONS = ("soften", "restore", "hold")  # by strikes before
