"""Environments, exporters and commands of plugins: found, used, and kept apart when they are broken or clash."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import gymnasium
import pytest
from plugin_distributions import COIN, install

from townlet_train.cli import main, session
from townlet_train.config import RunConfig
from townlet_train.errors import ConfigError, ExitCode, PluginError, UsageError
from townlet_train.orchestrator import TrainingOrchestrator, run_strategy
from townlet_train.registry import COMMAND, ENVIRONMENT, EXPORTER, PluginPolicy, PluginStatus, discover
from townlet_train.registry.offers import OUR_FORMATS
from townlet_train.services.export import FORMATS
from townlet_train.services.gate import evaluate_pair, judge
from townlet_train.services.replay import ReplayDatasetService

CORRIDOR = """
    import gymnasium
    import numpy as np

    class Corridor(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        action_space = gymnasium.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.at = 0
            return np.zeros(1, np.float32), {}

        def step(self, action):
            self.at += 1 if action else -1
            over = self.at == 5
            return np.full(1, self.at / 40, np.float32), float(over), over, abs(self.at) > 30, {}

    gymnasium.register("Corridor-v0", Corridor, max_episode_steps=30)
"""
PLUGIN = """
    import typer
    from townlet_train.api import hookimpl

    app = typer.Typer(help="Say hello.")

    @app.command()
    def hello(name: str = "you", fail: bool = False, env: str = typer.Option("town", "--env")):
        if env != "town":
            print(f"hello {env}")
            return
        print(f"hello {name}", 1 / (not fail))

    def write_names(checkpoint, output):
        \\"\\"\\"Names of what it sees, a line each.\\"\\"\\"
        output.write_text(chr(10).join(checkpoint.info.feature_names))

    @hookimpl
    def townlet_train_environments():
        return {"corridor": "corridor_envs:Corridor-v0"}

    @hookimpl
    def townlet_train_exporters():
        return {"names": write_names}

    @hookimpl
    def townlet_train_commands():
        return {"hello": app}
""".replace("\\", "")


@pytest.fixture
def offering(site: Path) -> Path:
    """The site with a plugin that offers one thing of each kind."""
    install(site, "offer-dist", PLUGIN)
    (site / "corridor_envs.py").write_text(CORRIDOR.replace("\n    ", "\n"))
    yield site
    gymnasium.registry.pop("Corridor-v0", None)


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ("corridor", "hello corridor_envs:Corridor-v0\n"),
        ("CartPole-v1", "hello CartPole-v1\n"),
    ],
)
def test_a_plugins_command_takes_the_names_that_plugins_give_environments(
    env: str, told: str, offering: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["hello", "--env", env]) == 0
    assert told in "".join(capsys.readouterr())
    assert main(["hello", "--env", "corridr"]) == 5
    assert "Did you mean 'corridor'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "asked", [["import-sb3", "m.zip"], ["export", "m.zip", "--format", "sb3", "--output", "o"]]
)
def test_a_command_or_format_of_a_distribution_of_ours_that_is_missing_is_named_with_it(
    asked: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(session, "discover", partial(discover, entry_points=[]))
    assert main(asked) == 3
    hint = "It is in townlet-train-sb3, which is not installed. Run: pip install townlet-train-sb3"
    assert hint in capsys.readouterr().err


def test_what_a_plugin_offers_is_found_by_kind_and_name(offering: Path) -> None:
    registry = discover()
    assert registry.offered(EXPORTER)["names"].value.__name__ == "write_names"
    listed = {(offer.kind, offer.name): offer.about for offer in registry.listing.offers}
    assert listed[(EXPORTER, "names")] == "Names of what it sees, a line each."
    assert listed[(COMMAND, "hello")] == "Say hello."
    assert listed[(ENVIRONMENT, "corridor")] == "corridor_envs:Corridor-v0"


def test_plugins_list_says_what_each_offers_and_show_describes_it(
    offering: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = (offering / "offer_dist.py").read_text()
    (offering / "offer_dist.py").write_text(
        source.replace('{"names": write_names}', "{n: write_names for n in 'abc'}")
    )
    assert main(["plugins", "list", "--json"]) == 0
    rows = {row["distribution"]: row for row in json.loads(capsys.readouterr().out)["plugins"]}
    assert rows["offer-dist"]["offers"] == ["environment corridor", "3 exporters", "command hello"]
    assert rows["townlet-train"]["offers"] == ["4 experts"]
    assert main(["plugins", "show", "offer-dist", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["offers"]
    assert {"kind": "exporter", "name": "c", "about": "Names of what it sees, a line each."} in shown
    assert main(["plugins", "list"]) == 0
    assert "environment corridor, 3 exporters, command hello" in capsys.readouterr().out


@pytest.mark.parametrize("env", ["corridr", "corridor"])
def test_a_misspelt_environment_of_a_plugin_is_told(
    env: str, offering: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["evaluate", "--env", env, "--policy", "random", "--episodes", "1"])
    told = "No environment named 'corridr'. Did you mean 'corridor'?" in capsys.readouterr().err
    assert (code, told) == ((5, True) if env == "corridr" else (0, False))


def test_a_recording_of_a_plugins_environment_is_one_of_the_environment_of_its_name(
    offering: Path, tmp_path: Path
) -> None:
    config = RunConfig.model_validate({"env": "corridor", "rollout": {"towns": 2, "ticks": 20}})
    orchestrator = TrainingOrchestrator(config)
    captured = orchestrator.capture_rollout(tmp_path / "demos", policy="random")
    replay = ReplayDatasetService()
    assert replay.check_env(Path(captured.manifest), orchestrator.config.env) == "Corridor-v0"
    with pytest.raises(UsageError, match="was recorded in environment 'Corridor-v0'"):
        replay.check_env(Path(captured.manifest), "corridor_envs:Corridor-v1")


def test_a_plugins_environment_is_played_by_its_name(
    offering: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):  # from a plugin that is loaded, and from what is remembered of it
        assert main(["evaluate", "--env", "corridor", "--policy", "random", "--episodes", "2", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["env"] == "Corridor-v0"
    config = RunConfig.model_validate({"env": "corridor"})
    params = {"n_iterations": 1, "evaluation_episodes": 1}
    result = run_strategy("random-search", params, config=config, run_dir=tmp_path / "run")
    assert Path(str(result.checkpoint)).is_file()
    arguments = ["evaluate", str(result.checkpoint), "--episodes", "2", "--json"]
    fresh = subprocess.run(
        [sys.executable, "-m", "townlet_train", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(offering), *filter(None, sys.path)])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert fresh.returncode == 0, fresh.stderr


def test_a_plugins_command_is_in_the_help_and_runs(
    offering: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert main(["--help"]) == 0
        assert "hello" in capsys.readouterr().out
    assert main(["hello", "--name", "Ada"]) == 0
    assert capsys.readouterr().out == "hello Ada 1.0\n"
    assert main(["hello", "--nam", "Ada"]) == 3
    assert "Did you mean '--name'" in capsys.readouterr().err


def test_a_command_that_fails_is_named_with_its_distribution(
    offering: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["hello", "--fail"]) == 2
    assert "The command 'hello' of offer-dist 1.2 failed with ZeroDivisionError" in capsys.readouterr().err


NONSENSE = {
    "environments": (
        "corridor_envs:Corridor-v0",
        "Corridor-v0",
        "expected the id of Gymnasium's with its module",
    ),
    "exporters": (
        '{"names": write_names}',
        '{"names": 3}',
        "expected a function of checkpoint and output file",
    ),
    "an exporter's name": ('{"names"', '{"Names!"', "expected a lower-case word"),
    "commands": ('{"hello": app}', '{"hello": hello}', "expected a typer.Typer"),
    "a command's name": ('{"hello": app}', '{"evaluate": app}', "is named like a command of townlet-train"),
    "no mapping": (
        '{"hello": app}',
        "[app]",
        "townlet_train_commands returned a list, expected a mapping by name",
    ),
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_an_offer_that_cannot_be_used_is_told_with_what_was_expected(site: Path, kind: str) -> None:
    before, after, sentence = NONSENSE[kind]
    assert PLUGIN.count(before) == 1
    install(site, "offer-dist", PLUGIN.replace(before, after))
    registry = discover(PluginPolicy(reserved=frozenset({"evaluate"})))
    record = next(record for record in registry.plugins if record.distribution == "offer-dist")
    assert record.status is PluginStatus.FAILED
    assert sentence in record.reason


def test_a_name_offered_twice_is_the_firsts_and_the_problem_names_both(offering: Path) -> None:
    install(offering, "zz-offer", PLUGIN)
    registry = discover()
    assert registry.offered(COMMAND)["hello"].record.distribution == "offer-dist"
    problems = [problem for problem in registry.listing.problems if "zz-offer" in problem]
    assert len(problems) == 3
    assert (
        "The command 'hello' of zz-offer 1.2: there is one of that name of offer-dist 1.2 already, which is used"
        in problems
    )
    with pytest.raises(PluginError, match="zz-offer"):
        discover(PluginPolicy(strict=True))


@pytest.mark.parametrize(
    ("offered", "reason"),
    [
        ('{"town": "gymnasium:CartPole-v1"}', "'town' is the town of townlet-train, which is used"),
        ('{"village": "corridor_envs:town"}', "'town' is the town of townlet-train, which is used"),
        ('{"envpool:CartPole-v1": "corridor_envs:Corridor-v0"}', "a name with a colon is an id"),
        ('{"CartPole-v1": "corridor_envs:Corridor-v0"}', "call it otherwise"),
    ],
)
def test_an_environment_that_takes_a_name_of_ours_or_of_gymnasium_is_not_used_and_is_told(
    offered: str, reason: str, offering: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = (offering / "offer_dist.py").read_text()
    (offering / "offer_dist.py").write_text(
        source.replace('{"corridor": "corridor_envs:Corridor-v0"}', offered)
    )
    registry = discover()
    assert not registry.offered(ENVIRONMENT).keys() & {
        "town",
        "village",
        "envpool:CartPole-v1",
        "CartPole-v1",
    }
    [problem] = [told for told in registry.listing.problems if "offer-dist" in told]
    assert reason in problem
    for env in ("town", "CartPole-v1", "envpool:CartPole-v1"):
        assert registry.listing.with_env(RunConfig.model_validate({"env": env})).env == env
    assert main(["--strict-plugins", "config", "show"]) == 2
    assert reason in capsys.readouterr().err
    assert main(["strategies", "list"]) == 0
    assert reason in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("module", ["no_such_module", "no_such_package.envs", "corridor_envs.more"])
def test_an_environment_whose_module_is_missing_is_told_with_its_name_and_its_plugin(
    module: str, offering: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = (offering / "offer_dist.py").read_text()
    (offering / "offer_dist.py").write_text(source.replace("corridor_envs:", f"{module}:"))
    assert main(["evaluate", "--env", "corridor", "--policy", "random", "--episodes", "1"]) == 5
    assert (
        f"The environment 'corridor' of offer-dist 1.2 cannot be built: there is no module '{module}', which is to "
        f"register '{module}:Corridor-v0'. Install what offer-dist needs, or tell its author."
    ) in capsys.readouterr().err
    assert main(["plugins", "show", "offer-dist"]) == 0


def test_an_id_of_gymnasiums_own_stays_its_own_whoever_offers_it_under_another_name(offering: Path) -> None:
    source = (offering / "offer_dist.py").read_text()
    (offering / "offer_dist.py").write_text(
        source.replace("corridor_envs:Corridor-v0", "corridor_envs:CartPole-v1")
    )
    listing = discover().listing
    played = {
        env: listing.with_env(RunConfig.model_validate({"env": env})).env
        for env in ("corridor", "CartPole-v1")
    }
    assert played == {"corridor": "corridor_envs:CartPole-v1", "CartPole-v1": "CartPole-v1"}


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_of_ours_stays_ours_and_it_is_told_in_whose_plugin_another_is(
    name: str, offering: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = (offering / "offer_dist.py").read_text()
    (offering / "offer_dist.py").write_text(source.replace('{"names"', f'{{"{name}"'))
    told = f"The exporter '{name}' of offer-dist 1.2: there is one of that name of townlet-train itself, which is used"
    registry = discover()
    assert name not in registry.offered(EXPORTER)
    assert told in registry.listing.problems
    assert main(["plugins", "show", "offer-dist", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["status"], shown["reason"]) == ("ok", told)
    assert {offer["kind"] for offer in shown["offers"]} == {"environment", "command"}
    assert main(["--strict-plugins", "config", "show"]) == 2
    assert told in capsys.readouterr().err


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    """A policy that balances poles."""
    params = {"n_iterations": 1, "evaluation_episodes": 0}
    config = RunConfig.model_validate({"env": "CartPole-v1"})
    return str(run_strategy("random-search", params, config=config, run_dir=tmp_path / "run").checkpoint)


def test_a_plugins_format_is_written_and_it_is_said_that_nothing_was_compared(
    offering: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "names.txt"
    arguments = ["export", checkpoint, "--output", str(output), "--json"]
    assert main([*arguments, "--format", "names"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["warnings"] == [
        f"Nobody here can run names, so {output} was not compared with the checkpoint."
    ]
    assert (told["checked_rows"], told["same_actions"], told["largest_difference"]) == (0, None, None)
    assert len(output.read_text().splitlines()) == 4
    assert main([*arguments, "--format", "name"]) == 3
    assert "Did you mean 'names'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("output.write_text", "1 / 0; output.write_text", "of offer-dist 1.2 failed with ZeroDivisionError"),
        (
            "chr(10).join(checkpoint.info.feature_names)",
            "''",
            "of offer-dist 1.2 wrote nothing to the file it was handed",
        ),
    ],
)
def test_an_exporter_that_fails_is_named_and_leaves_nothing(
    before: str,
    after: str,
    sentence: str,
    site: Path,
    checkpoint: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    install(site, "offer-dist", PLUGIN.replace(before, after))
    assert main(["export", checkpoint, "--format", "names", "--output", str(tmp_path / "names.txt")]) == 2
    assert f"The exporter 'names' {sentence}" in capsys.readouterr().err
    assert not list(tmp_path.glob("*names.txt*"))


PROVEN = """
    import numpy as np
    from townlet_train.api import NetworkPolicy, Observation, ResultDTO, hookimpl, load_checkpoint, save_checkpoint
    import typer

    class Copy:
        def __call__(self, checkpoint, output):
            save_checkpoint(output, checkpoint)

        def act(self, output, inputs):
            features = inputs["features"][:, None]
            mask = np.ones((len(features), 1, 2), bool)
            shown = Observation(features, np.zeros((len(features), 1, 0, 0, 0), np.uint8), mask)
            return NetworkPolicy(load_checkpoint(output)).logits(shown)[:, 0]

    class Sum(ResultDTO):
        total: int

    app = typer.Typer()

    @app.command()
    def add(first: int, second: int, as_json: bool = typer.Option(False, "--json")) -> Sum:
        return Sum(total=first + second, warnings=("That was easy.",))

    @hookimpl
    def townlet_train_exporters():
        return {"copy": Copy()}

    @hookimpl
    def townlet_train_commands():
        return {"add": app}
"""


def test_a_plugins_format_that_acts_is_proven_as_ours_are(
    site: Path, checkpoint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(site, "proven-dist", PROVEN)
    output = tmp_path / "copy.zip"
    assert main(["export", checkpoint, "--format", "copy", "--output", str(output), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["checked_rows"], told["same_actions"], told["warnings"]) == (1000, 1000, [])
    assert told["largest_difference"] == 0
    assert (told["inputs"], told["outputs"]) == ([], [])  # nobody told
    assert output.is_file()


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ("return NetworkPolicy", "return 2 + NetworkPolicy", "acts otherwise"),
        (
            "return NetworkPolicy",
            "1 / 0; return NetworkPolicy",
            "The exporter 'copy' of proven-dist 1.2 failed with ZeroDivisionError",
        ),
        (
            "(shown)[:, 0]",
            "(shown)[:, 0, :1]",
            "puts out float32 of shape (1000, 1), expected (1000, 2)",
        ),
    ],
)
def test_a_plugins_format_that_acts_otherwise_leaves_nothing(
    before: str,
    after: str,
    sentence: str,
    site: Path,
    checkpoint: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = PROVEN.replace(before, after)
    install(site, "proven-dist", source)
    assert main(["export", checkpoint, "--format", "copy", "--output", str(tmp_path / "copy.zip")]) == 2
    assert sentence in capsys.readouterr().err
    assert not list(tmp_path.glob("*copy.zip*"))


def test_what_a_plugins_command_returns_is_shown_as_results_of_ours_are(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(site, "proven-dist", PROVEN)
    assert main(["add", "2", "3"]) == 1
    shown = capsys.readouterr()
    assert shown.out.split() == ["total", "5"]
    assert "Warning: That was easy." in shown.err
    assert main(["add", "2", "3", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "schema_version": "1.0.0",
        "warnings": ["That was easy."],
        "total": 5,
    }


@pytest.mark.parametrize("arguments", [["add", "2", "3"], ["add", "2", "3", "--json"], ["hello"]])
def test_a_plugins_command_that_nobody_reads_to_the_end_is_no_failure_of_the_plugin(
    arguments: list[str], offering: Path
) -> None:
    install(offering, "proven-dist", PROVEN)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run(
        [sys.executable, "-m", "townlet_train", *arguments],
        env=buffered | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=write,
        stderr=subprocess.PIPE,
        timeout=120,
    )
    os.close(write)
    assert (ended.returncode, b"Error" in ended.stderr) == (ExitCode.READER_GONE, False)


def test_a_command_named_like_a_strategy_is_not_used_and_the_problem_names_both(
    offering: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(offering, "zz-coin", COIN.replace('"coin"', '"hello"'))
    registry = discover()
    assert "hello" not in registry.offered(COMMAND)
    assert (
        "The command 'hello' of offer-dist 1.2: there is a strategy of that name of zz-coin 1.2, which is used"
        in registry.listing.problems
    )
    assert main(["hello", "--output-dir", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["strategy"] == "hello"


CHECK = """
    from townlet_train.api import hookimpl

    def is_small(checkpoint):
        size = sum(array.size for array in checkpoint.weights.values())
        return [] if size < LIMIT else [f"It has {size} weights."]

    @hookimpl
    def townlet_train_gate_checks():
        return {"small": is_small}
"""


@pytest.mark.parametrize(
    ("limit", "code", "sentence"),
    [
        ("10**9", 10, ""),  # too few episodes to tell
        ("1", 11, "The gate check 'small' of check-dist 1.2 objects: It has "),
        ("None", 2, "The gate check 'small' of check-dist 1.2 failed with TypeError"),
    ],
)
def test_what_a_plugins_check_objects_to_fails_the_gate(
    limit: str, code: int, sentence: str, site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(site, "check-dist", CHECK.replace("LIMIT", limit))
    params = {"n_iterations": 1, "evaluation_episodes": 0}
    config = RunConfig.model_validate({"env": "CartPole-v1"})
    result = run_strategy("random-search", params, config=config, run_dir=tmp_path / "run")
    arguments = ["gate", str(result.checkpoint), "--against", "expert", "--episodes", "20", "--json"]
    found = main(arguments)
    assert found == code if sentence else found in (0, 10, 11)
    told = capsys.readouterr().out
    assert sentence in told
    assert ("objects" in told) is (code == 11)


TOLD = """
    from pydantic import Field
    from townlet_train.api import StrategyParams, hookimpl

    class LimitParams(StrategyParams):
        most: int = Field(10**9, gt=0, description="weights")

    class Limit:
        \"\"\"Few weights.\"\"\"
        Params = LimitParams

        def __init__(self, params):
            self.most = params.most

        def objections(self, checkpoint):
            size = sum(array.size for array in checkpoint.weights.values())
            return [f"It has {size} weights."] * (size > self.most)

    @hookimpl
    def townlet_train_gate_checks():
        return {"limit": Limit}
""".replace("\\", "")


def test_a_check_is_told_its_settings_by_gate_checks(
    site: Path, checkpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    install(site, "limit-dist", TOLD)
    arguments = ["gate", checkpoint, "--against", "expert", "--episodes", "20", "--json"]
    assert main(arguments) in (0, 10, 11)
    assert "objects" not in capsys.readouterr().out
    assert main([*arguments, "--set", "gate.checks.limit.most=1"]) == 11
    assert "The gate check 'limit' of limit-dist 1.2 objects: It has " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("source", "checks", "sentence"),
    [
        (TOLD, {"limit": {"most": 0}}, "gate.checks.limit.most is 0: Input should be greater than 0."),
        (TOLD, {"limit": {"mots": 1}}, "gate.checks.limit.mots is 1: .* Did you mean 'most'?"),
        (
            TOLD,
            {"limt": {"most": 1}},
            "gate.checks.limt is for a gate check that no plugin .* Did you mean 'limit'?",
        ),
        (
            CHECK.replace("LIMIT", "1"),
            {"small": {"most": 1}},
            "gate.checks.small has settings, and that check takes none",
        ),
    ],
)
def test_what_a_check_cannot_be_told_is_refused_before_a_run_begins(
    source: str, checks: dict[str, dict[str, int]], sentence: str, site: Path, tmp_path: Path
) -> None:
    install(site, "limit-dist", source)
    config = RunConfig.model_validate({"env": "CartPole-v1", "gate": {"checks": checks}})
    with pytest.raises(ConfigError, match=sentence):
        run_strategy("random-search", {}, config=config, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("without", ["Params = LimitParams", "def objections(self, checkpoint)"])
def test_a_class_that_is_no_check_is_told_with_what_was_expected(without: str, site: Path) -> None:
    assert TOLD.count(without) == 1
    install(site, "limit-dist", TOLD.replace(without, "def other(self)" if "def" in without else ""))
    [record] = [plugin for plugin in discover().plugins if plugin.distribution == "limit-dist"]
    assert record.status is PluginStatus.FAILED
    assert "expected a function of a checkpoint, or a class with Params and objections" in record.reason


def test_a_candidate_that_a_check_objects_to_is_not_played_from_python_either(
    site: Path, checkpoint: str
) -> None:
    install(site, "check-dist", CHECK.replace("LIMIT", "1"))
    config = RunConfig.model_validate({"env": "CartPole-v1", "gate": {"episodes": 20}})
    checks = discover().gate_checks({})
    verdict = judge(*evaluate_pair(config, Path(checkpoint), "expert", checks=checks), config.gate)
    assert verdict.verdict == "FAIL"
    assert verdict.reasons[0].startswith("The gate check 'small' of check-dist 1.2 objects: It has ")


def test_the_formats_that_no_plugin_may_have_are_those_we_write() -> None:
    assert set(OUR_FORMATS) == set(FORMATS)
