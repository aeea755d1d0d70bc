"""Schemas are committed as they are, and files of every version that was ever written go on being read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.golden_files import DOCUMENTS, GOLDEN, RESULTS, SCHEMAS, golden_of
from townlet_train.cli import main
from townlet_train.config import RunConfig
from townlet_train.data.checkpoint import load_checkpoint
from townlet_train.envs.protocol import Observation
from townlet_train.errors import ExitCode
from townlet_train.policies.network import NetworkPolicy
from townlet_train.services.card import write_card
from townlet_train.services.comparison import read_run
from townlet_train.services.documents import MetricsLine, ResultsDocument, RunDocument
from townlet_train.services.promotion import PromotionService
from townlet_train.services.recorded import show_run
from townlet_train.services.recordings import recording_stats
from townlet_train.services.replay import ReplayDatasetService
from townlet_train.services.rolling import read_log
from townlet_train.services.schemas import FILES, PRINTED_BY, documents, schema_of

RENEW = "python -m tests.golden_files"


@pytest.mark.parametrize("name", documents())
def test_the_committed_schema_is_that_of_the_code(name: str) -> None:
    committed = SCHEMAS / f"{name}.json"
    assert committed.exists(), f"run: {RENEW}"
    assert json.loads(committed.read_text()) == schema_of(name), f"run: {RENEW}"


def test_no_schema_is_committed_of_what_is_no_more() -> None:
    assert {path.stem for path in SCHEMAS.glob("*.json")} == documents().keys()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_result_has_a_golden_file_of_its_version(name: str) -> None:
    assert golden_of(name).exists(), f"run: {RENEW}"


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_a_result_of_any_version_loads_with_every_value_it_has(path: Path) -> None:
    model = DOCUMENTS[path.stem.rpartition("-")[0]]
    document = json.loads(path.read_text())
    loaded = model.model_validate_json(path.read_text())
    assert holds(loaded.model_dump(mode="json"), document)


def holds(loaded: Any, document: Any) -> bool:
    """Whether every value of a document was loaded; what is loaded may have more fields, at any depth."""
    if isinstance(document, dict):
        return all(name in loaded and holds(loaded[name], value) for name, value in document.items())
    if isinstance(document, list):
        return len(loaded) == len(document) and all(map(holds, loaded, document))
    return bool(loaded == document)


@pytest.mark.parametrize("run", sorted(GOLDEN.glob("run-*")), ids=lambda path: path.name)
def test_a_run_of_any_version_is_read(run: Path) -> None:
    document = json.loads((run / "run.json").read_text())
    assert RunDocument.model_validate(document).status == "finished"
    assert RunConfig.model_validate(document["config"]).env == "CartPole-v1"
    assert [MetricsLine.model_validate(line) for line in read_log(run / "metrics.jsonl")]
    [results] = run.glob("*_results.json")
    assert ResultsDocument.model_validate_json(results.read_text()).experiment_results.metadata.seed == 3
    assert read_run(run).timesteps == 200
    assert show_run(run).status == "finished"
    assert write_card(run, None).warnings == ()


@pytest.mark.parametrize("model", sorted(GOLDEN.glob("run-*/*_model.zip")), ids=lambda path: path.parent.name)
def test_a_checkpoint_of_any_version_acts(model: Path) -> None:
    observation = Observation(
        np.zeros((1, 1, 4), np.float32), np.zeros((1, 1, 0, 0, 0), np.uint8), np.ones((1, 1, 2), np.bool_)
    )
    policy = NetworkPolicy(load_checkpoint(model), deterministic=True)
    assert policy.act(observation, np.zeros((1, 1))).item() in (0, 1)


@pytest.mark.parametrize("capture", sorted(GOLDEN.glob("capture-*")), ids=lambda path: path.name)
def test_a_capture_of_any_version_is_read(capture: Path) -> None:
    assert ReplayDatasetService().validate(capture).problems == ()
    assert recording_stats(capture).frames == 12
    kind = "capture-store" if capture.name.endswith("memmap") else "capture-samples"
    manifest = json.loads((capture / "rollout_sample_manifest.json").read_text())
    assert FILES[kind].model.model_validate_json(json.dumps(manifest))


@pytest.mark.parametrize("folder", sorted(GOLDEN.glob("promotion-*")), ids=lambda path: path.name)
def test_a_promotion_of_any_version_is_verified(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    verified = PromotionService(tmp_path / "copy/promotion").verify()
    assert (verified.valid, verified.releases) == (True, 2)


def test_there_are_golden_files_of_every_kind() -> None:
    kinds = {path.name.partition("-")[0] for path in GOLDEN.iterdir()}
    assert kinds == {"capture", "promotion", "results", "run"}


def test_the_command_lists_schemas_and_prints_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["schema", "--json", "--output", str(tmp_path)]) == ExitCode.OK
    listed: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in listed["schemas"]} == {path.stem for path in tmp_path.iterdir()}
    assert main(["schema", "run"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == schema_of("run")


@pytest.mark.parametrize("named", ["replay stats", "ReplayStatsDTO", "replaystatsdto", "ReplayStats"])
def test_a_schema_is_found_by_its_document_and_by_the_command_that_prints_it(
    named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["schema", *named.split()]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == schema_of("ReplayStatsDTO")


def test_a_file_is_found_before_a_result_of_that_name() -> None:
    assert schema_of("run")["$id"].startswith("townlet-train/run/")


def test_every_result_is_printed_by_some_command_that_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    bases = {"ResultDTO", "TrainingResultDTO", "OnPolicyResultDTO"}
    assert set(PRINTED_BY.values()) == set(DOCUMENTS) - bases
    for command in PRINTED_BY:
        assert main([*command.split(), "--help"]) == ExitCode.OK
        assert f"townlet-train {command} " in capsys.readouterr().out


def test_a_number_may_be_null_and_says_where_it_was_not_finite() -> None:
    described = schema_of("EvaluationDTO")["properties"]
    assert described["mean"]["type"] == ["number", "null"]
    assert described["non_finite"]["items"] == {"type": "string"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["schema", "a2c"], "names what it prints, too; results of plugins have none here."),
        (["schema", "runn"], "No schema named 'runn'. Did you mean 'run'?"),
        (["schema", "run", "--output", "x"], "--output writes every schema. Leave the name out"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == ExitCode.USAGE
    assert sentence in capsys.readouterr().err
