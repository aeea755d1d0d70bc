"""What nobody says is taken from the files a run begins with: the environment, and of a policy the network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.policies import small_checkpoint
from townlet_train.cli import main
from townlet_train.config import DEFAULT, RunConfig, load
from townlet_train.contract import TrainingStrategy
from townlet_train.data.checkpoint import load_checkpoint, save_checkpoint
from townlet_train.envs.build import spec_of
from townlet_train.plan import plan_run
from townlet_train.policies.network import NetworkSpec
from townlet_train.strategies.anneal.strategy import AnnealStrategy
from townlet_train.strategies.bc import BCStrategy
from townlet_train.strategies.ppo import PPOStrategy

POLES = "CartPole-v1"
NARROW = NetworkSpec("mlp", n_features=4, n_actions=2, hidden_sizes=(32,), activation="relu")
QUICK = ["--timesteps", "40", "--n-steps", "20", "--evaluation-episodes", "0"]


@pytest.fixture
def clone(tmp_path: Path) -> str:
    """A policy of 32 hidden units that balances poles, or tries to."""
    path = tmp_path / "clone.zip"
    save_checkpoint(path, small_checkpoint(NARROW, spec_of(RunConfig(env=POLES))))
    return str(path)


@pytest.fixture(scope="module")
def poles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of balanced poles."""
    folder = tmp_path_factory.mktemp("recorded") / "poles"
    size = ["--towns", "4", "--ticks", "100", "--output", str(folder)]
    assert main(["rollout", "capture", "--env", POLES, *size]) in (0, 1)
    return folder


def test_every_strategy_says_which_of_its_files_tell_the_environment(clone: str, poles: Path) -> None:
    expected: list[tuple[type[TrainingStrategy], str, object]] = [
        (BCStrategy, "manifest", poles),
        (AnnealStrategy, "bc_manifest", poles),
        (AnnealStrategy, "capture_dir", poles),
        (AnnealStrategy, "clone", clone),
        (PPOStrategy, "replay_manifest", poles),
        (PPOStrategy, "reference", clone),
    ]
    settings = load(environ={})
    named = load(environ={}, named={"env": "town"})
    for strategy, param, file in expected:
        plan = plan_run(settings.config, settings.origin, strategy, {param: file}, None, None, fork=False)
        assert (plan.config.env, plan.origin["env"]) == (POLES, str(file))
        plan = plan_run(named.config, named.origin, strategy, {param: file}, None, None, fork=False)
        assert (plan.config.env, plan.origin["env"]) == ("town", "option")


def test_a_file_that_tells_no_environment_leaves_it_to_the_next(clone: str, tmp_path: Path) -> None:
    settings = load(environ={})
    params = {"replay_manifest": str(tmp_path / "nothing"), "reference": clone}
    plan = plan_run(settings.config, settings.origin, PPOStrategy, params, None, None, fork=False)
    assert plan.origin["env"] == clone
    params = {"replay_manifest": str(tmp_path / "nothing")}
    plan = plan_run(settings.config, settings.origin, PPOStrategy, params, None, None, fork=False)
    assert (plan.config.env, plan.origin["env"]) == ("town", DEFAULT)


@pytest.mark.torch
@pytest.mark.parametrize("strategy", ["ppo", "a2c"])
def test_a_fork_takes_environment_and_network_from_its_checkpoint(
    strategy: str, clone: str, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    run, again = tmp_path / "run", tmp_path / "again"
    fork = [strategy, "--resume-from", clone, "--fork", *QUICK, "--checkpoint-interval", "20"]
    assert main([*fork, "--output-dir", str(run)]) in (0, 1)
    document = json.loads((run / "run.json").read_text())
    assert (document["config"]["env"], document["origin"]["env"]) == (POLES, clone)
    info = load_checkpoint(run / f"{strategy}_seed42_model.zip").info
    assert (info.env_id, info.network) == (POLES, load_checkpoint(Path(clone)).info.network)
    half = str(run / "checkpoint_20.zip")
    assert main([strategy, "--resume-from", half, "--output-dir", str(again)]) in (0, 1)
    assert load_checkpoint(again / f"{strategy}_seed42_model.zip").info.network == info.network


@pytest.mark.torch
def test_a_clone_that_reads_the_map_is_gone_on_with_and_resumed_untold(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    spec = spec_of(RunConfig())
    seeing = NetworkSpec(
        "conflict_aware", len(spec.feature_names), len(spec.action_names), (8,), "relu", spec.map_shape
    )
    save_checkpoint(tmp_path / "seeing.zip", small_checkpoint(seeing, spec))
    fork = ["ppo", "--resume-from", str(tmp_path / "seeing.zip"), "--fork", "--set", "town.n_agents=2"]
    sized = [*QUICK, "--checkpoint-interval", "20", "--output-dir", str(tmp_path / "run")]
    assert main([*fork, *sized]) in (0, 1)
    half = str(tmp_path / "run/checkpoint_20.zip")
    assert main(["ppo", "--resume-from", half, "--output-dir", str(tmp_path / "again")]) in (0, 1)
    network = load_checkpoint(tmp_path / "again/ppo_seed42_model.zip").info.network
    assert (network["kind"], network["hidden_sizes"]) == ("conflict_aware", [8])


@pytest.mark.torch
@pytest.mark.parametrize("how", ["option", "--set", "file", "variable"])
def test_another_environment_that_is_named_stays_an_error(
    how: str, clone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    (tmp_path / "town.yaml").write_text("env: town\n")
    if how == "variable":
        monkeypatch.setenv("TOWNLET_TRAIN__ENV", "town")
    said = {
        "option": ["--env", "town"],
        "--set": ["--set", "env=town"],
        "file": ["--config", str(tmp_path / "town.yaml")],
    }
    for command in (["ppo", "--resume-from", clone, "--fork", *QUICK], ["anneal", "--clone", clone]):
        assert main([*command, *said.get(how, []), "--output-dir", str(tmp_path / "run")]) == 6
        assert f"in environment '{POLES}', this one is 'town'. Pass --env" in capsys.readouterr().err


@pytest.mark.torch
def test_an_anneal_begins_in_the_environment_of_its_clone_or_demonstrations(
    clone: str, poles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    for begun in (["--clone", clone], ["--bc-manifest", str(poles)]):
        assert main(["anneal", *begun, "--output-dir", str(tmp_path / "run"), "--dry-run"]) == 0
    assert main(["anneal", "--bc-manifest", str(poles), "--env", "town", "--dry-run"]) == 3
    assert f"was recorded in environment '{POLES}'" in capsys.readouterr().err


@pytest.mark.torch
@pytest.mark.parametrize(
    ("param", "value", "sentence"),
    [
        ("hidden-sizes", "64", "hidden_sizes (32,), and hidden_sizes is (64,) here. Leave it out."),
        ("activation", "tanh", "activation 'relu', and activation is 'tanh' here. Leave it out."),
        ("network", "conflict_aware", "network 'mlp', and network is 'conflict_aware' here. Leave it out."),
    ],
)
def test_a_network_that_is_said_and_is_not_the_checkpoints_is_an_error(
    param: str, value: str, sentence: str, clone: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    fork = ["ppo", "--resume-from", clone, "--fork", *QUICK, "--output-dir", str(tmp_path / "run")]
    options = ["--activation", "relu"] if param == "network" else []
    assert main([*fork, *options, f"--{param}", value]) == 6
    assert sentence in capsys.readouterr().err
