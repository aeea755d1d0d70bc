"""`townlet-train anneal study`: what each term of the warm start earns."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from townlet_train.cli.options import ConfigFiles, Env, JsonOutput, Preset, Sets
from townlet_train.cli.output import emit, reporting
from townlet_train.cli.session import load_settings, plugin_policy, session_registry
from townlet_train.errors import Interrupted
from townlet_train.study.conditions import CONDITIONS, TRUNKS

ALL_CONDITIONS, ALL_TRUNKS = ",".join(CONDITIONS), ",".join(TRUNKS)

Seeds = Annotated[int, typer.Option("--seeds", min=1, help="Training seeds, one run of every cell for each.")]
FirstSeed = Annotated[
    int, typer.Option("--first-seed", min=0, help="The first of them; the others count up.")
]
Timesteps = Annotated[
    int | None,
    typer.Option("--timesteps", min=1, help="Environment steps of every run; unset: as anneal's own."),
]
Conditions = Annotated[
    str,
    typer.Option(
        "--conditions",
        help=f"Of {', '.join(CONDITIONS)}; separated by commas.",
    ),
]
Trunks = Annotated[str, typer.Option("--trunks", help=f"Of {' and '.join(TRUNKS)}; separated by commas.")]
Jobs = Annotated[int, typer.Option("--jobs", min=1, help="Processes at a time.")]
Root = Annotated[Path, typer.Option("--output-dir", help="Directory to leave everything in.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on: what is done is not run again.")]
Figure = Annotated[Path | None, typer.Option("--figure", help="SVG file to draw learning curves in.")]


def command(
    context: typer.Context,
    env: Env = None,
    seeds: Seeds = 10,
    first_seed: FirstSeed = 1,
    timesteps: Timesteps = None,
    conditions: Conditions = ALL_CONDITIONS,
    trunks: Trunks = ALL_TRUNKS,
    jobs: Jobs = 2,
    output_dir: Root = Path("study"),
    resume: Resume = False,
    figure: Figure = None,
    config: ConfigFiles = None,
    sets: Sets = None,
    preset: Preset = None,
    json_output: JsonOutput = False,
) -> int:
    """Measure what each term of the warm start earns: falls after the hand-over, and returns beside clone and scratch.

    Every training seed has demonstrations of its own and one clone for each kind of trunk, which all conditions
    begin with; steps are equal. Settings of anneal that conditions do not decide can be said, as for anneal itself.
    """
    registry = session_registry(context)
    for strategy in ("anneal", "bc", "ppo"):
        registry.select(strategy)
    settings = load_settings(context, files=config, preset=preset, sets=sets, named={"env": env})

    from townlet_train.contract import Progress
    from townlet_train.study.figure import check_can_draw, draw
    from townlet_train.study.study import plan_study, run_study

    if figure is not None:
        check_can_draw(figure)
    study = plan_study(
        settings.config,
        settings.section("anneal"),
        seeds=range(first_seed, first_seed + seeds),
        conditions=_names(conditions),
        trunks=_names(trunks),
        timesteps=timesteps,
        root=output_dir.absolute(),
        experts=registry.experts,
        plugins=plugin_policy(context),
    )
    with reporting() as report:
        try:
            result = run_study(
                study,
                n_at_once=jobs,
                resume=resume,
                report=lambda done, total: report(Progress("study", done, total, {})),
            )
        except Interrupted as stop:
            raise Interrupted(f"{stop} Runs that had ended are kept: go on with --resume.") from stop
    if figure is not None:
        draw(result, figure)
        result = result.model_copy(update={"figure": str(figure)})
    return emit(result, json_output=json_output)


def _names(listed: str) -> tuple[str, ...]:
    """Names between commas, each once."""
    return tuple(dict.fromkeys(name.strip() for name in listed.split(",") if name.strip()))
