"""The end of a run: the policy that training left, and what it earns on seeds that nobody trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from townlet_train.contract import Progress, TrainingContext
from townlet_train.errors import Interrupted
from townlet_train.files import sha256_of


def held_out_facts(
    model: Path, episodes: int | None, context: TrainingContext, threshold: float | None
) -> dict[str, Any]:
    """What results say of a policy, by their names: its file, and its returns on the run's held-out seeds.

    Without `episodes` it plays as many as the config's `evaluation` says, none where they are 0. `threshold` is the
    mean return at which the environment is solved.

    Raises:
        Interrupted: the user asked to stop; names the policy, which is whole.
    """

    def report(done: int, total: int) -> None:
        context.report(Progress("evaluation", done, total, {}))

    evaluation = None
    if episodes != 0:
        try:
            evaluation = context.services.evaluation.evaluate(
                checkpoint=model, episodes=episodes, report=report
            )
        except Interrupted as stop:
            raise Interrupted(f"{stop} Training had ended; the policy is {model}") from stop
    return {
        "evaluation": evaluation,
        "reward_threshold": threshold,
        "converged": None if evaluation is None else evaluation.reaches(threshold),
        "checkpoint": str(model),
        "checkpoint_sha256": sha256_of(model),
    }
