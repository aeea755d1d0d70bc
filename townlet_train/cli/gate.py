"""`townlet-train gate`: whether candidates may be released, judged on seeds nobody has seen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from townlet_train.cli.options import ConfigFiles, Deterministic, Env, JsonOutput, Preset, Sets
from townlet_train.cli.output import emit, reporting, verdict_code
from townlet_train.errors import ExitCode, UsageError
from townlet_train.policies.experts import SCRIPTED_HELP

if TYPE_CHECKING:
    from townlet_train.config import RunConfig
    from townlet_train.policies.experts import Experts
    from townlet_train.results import GateDTO
    from townlet_train.services.gate.integrity import GateChecks

Candidates = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="CANDIDATE...", help="Checkpoints to judge; of several, the best is told in full."
    ),
]
Against = Annotated[
    str | None,
    typer.Option(
        "--against",
        metavar="RELEASE",
        help=f"Released checkpoint, or a scripted policy: {SCRIPTED_HELP}.",
    ),
]
Returns = Annotated[
    tuple[Path, Path] | None,
    typer.Option(
        "--returns",
        metavar="CANDIDATE.json RELEASE.json",
        help="Judge two files of `evaluate --json` on the same seeds, and play nothing.",
    ),
]
Episodes = Annotated[int | None, typer.Option("--episodes", help="Paired episodes, at most.")]
Block = Annotated[
    int | None, typer.Option("--block", help="Block of gate seeds; take a new one to ask again.")
]
Threshold = Annotated[float | None, typer.Option("--threshold", help="Mean return that must be reached.")]
Margin = Annotated[
    float | None, typer.Option("--margin", help="Share of the release's mean by which worse is no worse.")
]
Alpha = Annotated[float | None, typer.Option("--alpha", help="Chance of a false claim.")]
Sequential = Annotated[
    bool, typer.Option("--sequential", help="Stop as soon as it is decided; bounds hold at any time.")
]


def command(
    context: typer.Context,
    candidates: Candidates = None,
    against: Against = None,
    returns: Returns = None,
    env: Env = None,
    episodes: Episodes = None,
    block: Block = None,
    threshold: Threshold = None,
    margin: Margin = None,
    alpha: Alpha = None,
    sequential: Sequential = False,
    deterministic: Deterministic = None,
    config: ConfigFiles = None,
    sets: Sets = None,
    preset: Preset = None,
    json_output: JsonOutput = False,
) -> int:
    """Judge candidates beside the released policy: PASS (exit code 0), HOLD (10) or FAIL (11).

    Both play the same seeds of a block that nobody trains on or selects by. See docs/gate.md for what that promises.
    """
    from townlet_train.cli.session import experts_for, gate_checks_of, in_env_of, load_settings

    if bool(candidates) == (returns is not None):
        raise UsageError(
            "Name checkpoints to judge beside a release (CANDIDATE --against RELEASE), or two files of returns "
            "(--returns CANDIDATE.json RELEASE.json)."
        )
    if returns is not None and against is not None:
        raise UsageError("--returns names the release's file itself; leave out --against.")
    played = {"--env": env, "--episodes": episodes, "--block": block, "--deterministic": deterministic}
    told = [option for option, value in played.items() if value is not None]
    if returns is not None and told:
        option = "--sampled" if deterministic is False and told[0] == "--deterministic" else told[0]
        raise UsageError(f"{option} says what to play, and --returns plays nothing; leave it out.")
    named = {
        "env": env,
        "gate.episodes": episodes,
        "gate.block": block,
        "gate.threshold": threshold,
        "gate.margin": margin,
        "gate.alpha": alpha,
        "evaluation.deterministic": deterministic,
    }
    settings = load_settings(context, files=config, preset=preset, sets=sets, named=named)
    if returns is not None:
        result = _judge_files(settings.config, *returns, sequential=sequential)
    else:
        released = [] if against is None else [Path(against)]
        result = _play(
            in_env_of(context, settings, [*(candidates or []), *released]),
            candidates or [],
            against,
            sequential=sequential,
            experts=experts_for(context, against),
            checks=gate_checks_of(context, settings.config.gate.checks),
        )
    emit(result, json_output=json_output)
    return verdict_code(result.verdict, ExitCode.OK)


def _judge_files(config: RunConfig, candidate: Path, release: Path, *, sequential: bool) -> GateDTO:
    from townlet_train.services.gate import judge, read_returns, sequential_looks

    decide = sequential_looks if sequential else judge
    return decide(read_returns(candidate), read_returns(release), config.gate)


def _play(
    config: RunConfig,
    candidates: list[Path],
    release: str | None,
    *,
    sequential: bool,
    experts: Experts,
    checks: GateChecks,
) -> GateDTO:
    from townlet_train.contract import Progress
    from townlet_train.services.gate import gate_checkpoints

    with reporting() as report:
        return gate_checkpoints(
            config,
            candidates,
            release,
            sequential=sequential,
            report=lambda done, total: report(Progress("gate", done, total, {})),
            experts=experts,
            checks=checks,
        )
