"""A candidate over its budget is refused before it is played; what it takes is counted, on any machine the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from townlet_train.cli import main
from townlet_train.config import RunConfig
from townlet_train.data.checkpoint import load_checkpoint
from townlet_train.orchestrator import run_strategy
from townlet_train.policies.network import NetworkSpec
from townlet_train.registry import GATE_CHECK, discover
from townlet_train_budget import Budget, BudgetParams


@pytest.fixture(scope="module")
def candidate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that balances poles, found without torch."""
    config = RunConfig.model_validate({"env": "CartPole-v1"})
    params = {"n_iterations": 1, "evaluation_episodes": 0}
    folder = tmp_path_factory.mktemp("run") / "run"
    return Path(str(run_strategy("random-search", params, config=config, run_dir=folder).checkpoint))


def gate(candidate: Path, *settings: str) -> list[str]:
    sets = [part for setting in settings for part in ("--set", f"gate.checks.{setting}")]
    return ["gate", str(candidate), "--against", "expert", "--episodes", "20", *sets]


def test_it_counts_the_arrays_that_act_and_no_others(candidate: Path) -> None:
    checkpoint = load_checkpoint(candidate)
    names = NetworkSpec.from_document(checkpoint.info.network).actor_shapes()
    arrays = [np.asarray(checkpoint.weights[name], np.float32) for name in names]
    n_bytes = sum(array.nbytes for array in arrays)
    n_products = sum(array.size for array in arrays if array.ndim == 2)
    enough = BudgetParams(bytes=n_bytes, multiply_adds=n_products)
    assert Budget(enough).objections(checkpoint) == []
    assert Budget(BudgetParams()).objections(checkpoint) == []
    short = BudgetParams(bytes=n_bytes - 1, multiply_adds=n_products - 1)
    assert Budget(short).objections(checkpoint) == [
        f"Acting takes {n_bytes} bytes, and gate.checks.budget.bytes allows {n_bytes - 1}.",
        f"Acting takes {n_products} multiply-adds, and gate.checks.budget.multiply_adds allows {n_products - 1}.",
    ]


def test_a_candidate_over_its_budget_fails_unplayed_and_one_within_is_played(
    candidate: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    documents: list[Any] = []
    for limit in ("1", "1000000"):
        main([*gate(candidate, f"budget.bytes={limit}"), "--json"])
        documents.append(json.loads(capsys.readouterr().out))
    over, within = documents
    assert (over["verdict"], over["episodes"]) == ("FAIL", 0)
    assert over["reasons"][0].startswith(
        "The gate check 'budget' of townlet-train-budget 0.1.0 objects: Acting "
    )
    assert within["episodes"] == 20
    assert "objects" not in " ".join(within["reasons"])


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("budget.bytes=-1", "gate.checks.budget.bytes is -1: Input should be greater than 0."),
        (
            "budget.byts=9",
            "gate.checks.budget.byts is 9: Extra inputs are not permitted. Did you mean 'bytes'?",
        ),
        ("budgt.bytes=9", "gate.checks.budgt is for a gate check that no plugin here offers"),
    ],
)
def test_a_budget_that_cannot_be_kept_is_refused_before_anything_is_played(
    setting: str, sentence: str, candidate: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(gate(candidate, setting)) == 3
    assert sentence in capsys.readouterr().err


def test_a_run_that_ends_with_a_gate_hears_of_a_wrong_budget_before_it_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["random-search", "--env", "CartPole-v1", "--output-dir", str(tmp_path / "run")]
    assert main([*arguments, "--set", "gate.checks.budget.bytes=none"]) == 3
    assert "gate.checks.budget.bytes is 'none'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_it_is_listed_with_what_it_offers(capsys: pytest.CaptureFixture[str]) -> None:
    assert "budget" in discover().offered(GATE_CHECK)
    assert main(["plugins", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["plugins"]}
    assert rows["budget"]["offers"] == ["gate check budget"]
