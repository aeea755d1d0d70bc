"""A model card: what a run wrote down about the policy it left, as Markdown. What it did not write down, it says so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from townlet_train.data.checkpoint import CheckpointInfo, load_checkpoint
from townlet_train.data.landing import check_file
from townlet_train.errors import CheckpointError
from townlet_train.files import sha256_of, write_bytes
from townlet_train.results import CardDTO
from townlet_train.services.recorded import RecordedRun, flatten, read_recorded

ABSENT = "not recorded"
EVALUATED = (
    "evaluation",
    "policies",
    "stages",
    "warnings",
    "gate",
)  # told on their own, or too long for a table
ABOUT_THE_RUN = ("schema_version", "strategy", "duration_sec", "checkpoint", "checkpoint_sha256", "manifest")
ANCESTORS = {
    "demonstrations": "demonstrations",
    "sha256 of their manifest": "demonstrations_sha256",
    "sha256 of the policy it began with": "parent_sha256",
    "sha256 of the policy it stayed near to": "reference_sha256",
}
LONGEST_LIST = 20

Facts = Mapping[str, Any]


def write_card(path: Path, output: Path | None, *, overwrite: bool = False) -> CardDTO:
    """The card of the run in a directory, written to `output` where that is named.

    Raises:
        UsageError: there is no run, or `output` is there already.
    """
    run = read_recorded(path)
    if output is not None:
        check_file(output, overwrite=overwrite)
    info, warnings = _model(run)
    sections = {
        "Model": _about_model(run, info),
        "Training": _about_training(run),
        "Held-out evaluation": _about_evaluation(run),
        "Reached": _reached(run),
        "Lineage": _about_lineage(run, info),
        "Settings": {
            name: "left open" if value is None else value
            for name, value in flatten(run.part("params")).items()
        },
        "Versions": dict(run.part("versions")),
    }
    markdown = "\n\n".join(
        [_head(run), *(_section(name, facts) for name, facts in sections.items()), _remarks(run)]
    )
    markdown += "\n"
    if output is not None:
        write_bytes(output, markdown.encode())
    empty = [name for name, facts in sections.items() if not facts]
    missing = [
        f"{section}: {name}"
        for section, facts in sections.items()
        for name, fact in facts.items()
        if fact is None
    ]
    return CardDTO(
        run=str(path),
        output=None if output is None else str(output),
        markdown=markdown,
        not_recorded=(*empty, *missing),
        warnings=(*run.damage.values(), *warnings),
    )


def _model(run: RecordedRun) -> tuple[CheckpointInfo | None, list[str]]:
    """What the model file says of itself, and what is wrong with it."""
    if len(run.models) > 1:
        names = " and ".join(path.name for path in run.models)
        return None, [
            f"{run.path} holds {len(run.models)} model files, {names}; expected one. Move the others away."
        ]
    if run.model is None:
        return None, [f"{run.path} holds no model file; it is {run.status}."]
    try:
        info = load_checkpoint(run.model).info
    except CheckpointError as error:
        return None, [str(error)]
    recorded, found = run.reached.get("checkpoint_sha256"), sha256_of(run.model)
    if recorded not in (None, found):
        return info, [
            f"{run.model} has sha256 {found:.12}, its run recorded {recorded:.12}; it was replaced."
        ]
    return info, []


def _head(run: RecordedRun) -> str:
    document = run.document
    title = document.get("id") or run.path.name
    strategy, env, seed = document.get("strategy"), run.env, document.get("seed")
    about = f"A policy trained by {_code(strategy)} in {_code(env)} with seed {_code(seed)}."
    return f"# {title}\n\n{about} Every line below is what the run wrote down; `{ABSENT}` is what it did not."


def _about_model(run: RecordedRun, info: CheckpointInfo | None) -> dict[str, Any]:
    network = flatten(info.network) if info else {}
    return {
        "file": None if run.model is None else run.model.name,
        "sha256": None if run.model is None else sha256_of(run.model),
        "bytes": None if run.model is None else run.model.stat().st_size,
        "features": None if info is None else len(info.feature_names),
        "actions": None if info is None else _listed(info.action_names),
        "map channels": None if info is None else _listed(info.map_channels) or "none",
        **{f"network {name}": value for name, value in network.items()},
    }


def _about_training(run: RecordedRun) -> dict[str, Any]:
    metadata, document = run.results.get("metadata", {}), run.document
    placed = {name: run.part("chosen").get(name) for name in ("device", "precision")}
    return {
        "status": run.status,
        "started": document.get("started_at"),
        "ended": document.get("ended_at"),
        "seconds": run.reached.get("duration_sec"),
        "timesteps": metadata.get("total_timesteps"),
        "episodes": run.reached.get("total_episodes"),
        "times resumed": len(document.get("resumed", ())) if document else None,
        **placed,
        "config hash": document.get("config_hash"),
    }


def _about_evaluation(run: RecordedRun) -> dict[str, Any]:
    """Returns on seeds that training did not see; empty where nothing was evaluated."""
    compared = {
        f"mean return of {each['policy']}": f"{_text(each['mean_return'])} [{_interval(each)}]"
        for each in run.reached.get("policies") or ()
    }
    found = run.reached.get("evaluation")
    if not isinstance(found, dict):
        return compared
    seeds = found.get("seeds") or ()
    greedy = found.get("deterministic")
    threshold = run.reached.get("reward_threshold")
    solving = {} if threshold is None else {"solved at": threshold, "converged": run.reached.get("converged")}
    return compared | {
        "mean return": found.get("mean"),
        "95 % interval": _interval(found),
        "interquartile mean": found.get("iqm"),
        "episodes": len(seeds) or None,
        "seeds": f"{min(seeds)} to {max(seeds)}" if seeds else None,
        "actions": None if greedy is None else "the most probable" if greedy else "sampled",
        **solving,
    }


def _reached(run: RecordedRun) -> dict[str, Any]:
    """The other single numbers of the result."""
    skipped = {*EVALUATED, *ABOUT_THE_RUN}
    return {
        name: value
        for name, value in flatten({k: v for k, v in run.reached.items() if k not in skipped}).items()
        if value is not None and value != "[]"
    }


def _about_lineage(run: RecordedRun, info: CheckpointInfo | None) -> dict[str, Any]:
    lineage = run.part("lineage") or (info.lineage.model_dump(mode="json") if info else {})
    if not lineage:
        return {}
    seeds = [f"{first} to {last}" for first, last in lineage.get("training_seeds") or ()]
    return {
        "training seeds": ", ".join(seeds) or None,
        **{
            name: (lineage[field] or "none") if field in lineage else None
            for name, field in ANCESTORS.items()
        },
    }


def _remarks(run: RecordedRun) -> str:
    """The warnings that the run ended with."""
    warnings = run.reached.get("warnings")
    if warnings is None:
        return f"## Warnings\n\n{ABSENT}"
    lines = [f"- {warning}" for warning in warnings] or ["none"]
    return "## Warnings\n\n" + "\n".join(lines)


def _section(name: str, facts: Facts) -> str:
    if not facts:
        return f"## {name}\n\n{ABSENT}"
    rows = [f"| {_cell(key)} | {_cell(_text(value))} |" for key, value in facts.items()]
    return "\n".join([f"## {name}\n", "| | |", "|---|---|", *rows])


def _text(value: Any) -> str:
    match value:
        case None:
            return ABSENT
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.6g}"
    return str(value)


def _interval(measured: Facts) -> str | None:
    low, high = measured.get("ci_low"), measured.get("ci_high")
    return None if low is None or high is None else f"{_text(low)} to {_text(high)}"


def _listed(names: Iterable[str]) -> str:
    """Names between commas; of many, how many there are."""
    every = list(names)
    return ", ".join(every) if len(every) <= LONGEST_LIST else f"{len(every)} of them"


def _code(value: Any) -> str:
    return ABSENT if value is None else f"`{value}`"


def _cell(text: str) -> str:
    """Text that a cell of a Markdown table can hold."""
    return " ".join(text.replace("|", "\\|").split())
