"""What the program offers is documented, and what is documented exists."""

from __future__ import annotations

import dataclasses
import inspect
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel
from typer.core import TyperGroup

from tests import recordings
from tests.contract.markdown import DOCS, PAGES, PROGRAM, ROOT, commands, documented, links
from townlet_train import api, hookspecs, results
from townlet_train.cli.app import app
from townlet_train.config import RunConfig
from townlet_train.errors import ExitCode, TownletTrainError
from townlet_train.orchestrator import run_strategy
from townlet_train.registry import PluginStatus
from townlet_train.services.replay import ReplayDatasetService
from townlet_train.services.rolling import read_log
from townlet_train.sim.layout import EVENTS

METRICS_PAGE = DOCS / "metrics.md"
GLOSSARY = documented(DOCS / "glossary.md") | documented(METRICS_PAGE)
PLUGIN_PAGE = DOCS / "writing-a-plugin.md"
FLOW_PAGE = DOCS / "how-a-run-flows.md"
DOCUMENTS = {
    name: model
    for name, model in vars(results).items()
    if inspect.isclass(model) and issubclass(model, BaseModel) and model is not BaseModel
}


def section(named: str) -> set[str]:
    """The names that the glossary's section about something explains."""
    [heading] = [heading for heading in GLOSSARY if heading.endswith((named, f"`{named}`"))]
    return GLOSSARY[heading]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_field_of_a_result_is_in_the_glossary_and_nothing_else(name: str) -> None:
    inherited = {field for base in DOCUMENTS[name].__bases__ for field in getattr(base, "model_fields", ())}
    assert section(name) == DOCUMENTS[name].model_fields.keys() - inherited


def test_every_town_event_is_in_the_glossary_and_nothing_else() -> None:
    assert section("Town events") == set(EVENTS)


@pytest.mark.torch
def test_every_number_of_metrics_jsonl_is_in_the_glossary() -> None:
    pytest.importorskip("torch")
    from townlet_train.learners.bc import BCStats
    from townlet_train.learners.ppo import PPOStats

    assert section("PPOStats") == PPOStats.__dataclass_fields__.keys()
    assert section("BCStats") == BCStats.__dataclass_fields__.keys() | {"timestamp"}


@pytest.mark.torch
def test_every_key_that_a_run_records_is_explained_and_nothing_else(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    params = {"timesteps": 600, "n_steps": 50, "batch_size": 50, "n_epochs": 1, "evaluation_episodes": 0}
    run_strategy("ppo", params, config=RunConfig(), run_dir=tmp_path / "run")
    recorded = {name for line in read_log(tmp_path / "run/metrics.jsonl") for name in line}
    assert recorded - {"non_finite"} == section("every method that acts") | section("PPOStats")
    told = {name for line in read_log(tmp_path / "run/ppo_log.jsonl") for name in line} - {"non_finite"}
    fields = section("OnPolicyResultDTO") | section("PPOTrainingResultDTO")
    assert {name.partition(".")[0] for name in told} <= fields


def test_every_metric_has_a_meaning_a_unit_and_a_source_column() -> None:
    rows = [
        line.strip("|").split("|") for line in METRICS_PAGE.read_text().splitlines() if line.startswith("| `")
    ]
    assert len(rows) > 100
    assert [row[0] for row in rows if len(row) not in (2, 4) or not row[1].strip()] == []


def test_every_source_of_a_metric_is_listed() -> None:
    page = METRICS_PAGE.read_text()
    listed = set(re.findall(r"^\| (\w+ \d{4}|[\w-]+) \|[^|]+\|$", page, re.M))
    cells = [line.strip("|").split("|")[3] for line in page.splitlines() if line.count("|") == 5]
    cited = {re.split(r"[,;] ", part)[0].strip() for cell in cells for part in cell.split("; ")}
    assert cited - {"", "source", "---"} <= listed


def test_every_name_in_a_runs_documents_is_in_the_glossary() -> None:
    from townlet_train.services.experiment import MEASURED, SERIES

    [heading] = [heading for heading in GLOSSARY if "experiment_results" in heading]
    assert {*MEASURED, *SERIES} <= GLOSSARY[heading] | section("every method that acts")


def test_every_sample_metric_is_in_the_glossary(tmp_path: Path) -> None:
    sample = recordings.townlet_sample(tmp_path / "sample.npz")
    recordings.capture(tmp_path / "capture")
    replay = ReplayDatasetService()
    found = replay.inspect(sample).baseline.keys() | replay.inspect(tmp_path / "capture").baseline.keys()
    assert len(found) > 10
    assert {re.sub(r"^action_\w+_count$", "action_<kind>_count", name) for name in found} <= section(
        "Sample metrics"
    )


def test_every_word_of_the_project_is_explained() -> None:
    words = {
        *(
            "episode",
            "tick",
            "step",
            "update",
            "epoch",
            "rollout",
            "replay",
            "trajectory",
            "dataset",
            "stage",
        ),
        *("held-out", "forced frame", "majority share", "macro recall", "normalised return", "iqm"),
        "bootstrap interval",
    }
    assert words <= section("Words")


def test_every_name_behind_the_door_is_documented() -> None:
    named = set().union(*documented(PLUGIN_PAGE).values())
    errors = {name for name in api.__all__ if is_error(name)}
    assert named >= set(api.__all__) - errors
    assert errors <= set(re.findall(r"`(\w+)`", PLUGIN_PAGE.read_text()))


def is_error(name: str) -> bool:
    value = getattr(api, name)
    return inspect.isclass(value) and issubclass(value, TownletTrainError)


def test_everything_a_strategy_has_and_is_handed_is_documented() -> None:
    members = {"name", "summary", "requires_torch", "Params", "prepare", "run"}
    handed = {field.name for field in dataclasses.fields(api.TrainingContext)}
    assert documented(PLUGIN_PAGE)["The contract"] >= members | handed


def test_exit_codes_of_errors_on_the_plugin_page_are_theirs() -> None:
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| (\d+) \|$", PLUGIN_PAGE.read_text(), re.M)
    assert len(rows) > 4
    assert {name: int(code) for name, code in rows} == {
        name: int(getattr(api, name).exit_code) for name, _ in rows
    }


def test_every_hook_and_every_plugin_status_is_documented() -> None:
    text = PLUGIN_PAGE.read_text()
    hooks = [name for name in vars(hookspecs) if name.startswith("townlet_train_")]
    assert hooks
    assert all(f"`{name}`" in text for name in hooks)
    assert documented(PLUGIN_PAGE)["When something is wrong with a plugin"] >= set(PluginStatus)


def test_every_exit_code_is_documented_under_its_name() -> None:
    rows = re.findall(r"^\| `(\d+)` \| `(\w+)` \|", FLOW_PAGE.read_text(), re.M)
    assert {name: int(code) for code, name in rows} == {code.name: code.value for code in ExitCode}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    dead = [target for target in links(page) if not (page.parent / target.partition("#")[0]).exists()]
    assert dead == []


# The commands of the plugin page need its plugin; test_tutorial.py runs them.
SHOWN = sorted({command for page in PAGES if page != PLUGIN_PAGE for command in commands(page)})


def test_the_docs_show_commands() -> None:
    assert f"{PROGRAM} rollout capture --output demonstrations --seed 1" in SHOWN


@pytest.mark.parametrize("command", SHOWN)
def test_every_command_shown_is_understood(command: str) -> None:
    name, *arguments = shlex.split(command)
    parser: Any = typer.main.get_command(app)
    context: Any = parser.make_context(name, [])
    while isinstance(parser, TyperGroup) and arguments:
        _, parser, arguments = parser.resolve_command(context, arguments)
        context = parser.make_context(parser.name, list(arguments), parent=context)
    assert context.command is parser
