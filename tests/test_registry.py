from __future__ import annotations

import json
import os
import sys
import textwrap
from importlib.metadata import EntryPoint, version
from pathlib import Path

import pytest
from plugin_distributions import COIN, install

from townlet_train.cli import main
from townlet_train.config import RunConfig
from townlet_train.envs.protocol import EnvSpec
from townlet_train.errors import PluginError, TorchNotAvailableError, UnknownNameError
from townlet_train.orchestrator import run_strategy
from townlet_train.policies.experts import EXPERTS, build_expert
from townlet_train.registry import (
    Listing,
    PluginPolicy,
    PluginRecord,
    PluginStatus,
    Registry,
    RunLoggers,
    catalogue,
    discover,
)
from townlet_train.registry import discovery as discovery_module
from townlet_train.results import TrainingResultDTO


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the search path, whose modules are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if file.startswith(str(tmp_path)):
            del sys.modules[name]


def plugin(registry: Registry, distribution: str) -> PluginRecord:
    return next(record for record in registry.plugins if record.distribution == distribution)


def test_a_third_party_strategy_is_found_with_its_distribution_and_version(site: Path) -> None:
    install(site, "coin-dist", COIN)
    registry = discover()
    record = next(record for record in registry.strategies if record.name == "coin")
    assert (record.distribution, record.version, record.available) == ("coin-dist", "1.2", True)
    assert registry.select("coin").summary == "Flip a coin and report it"


BROKEN = {
    "raises": ("1 / 0", PluginStatus.FAILED, "ZeroDivisionError: division by zero"),
    "exits": ("raise SystemExit('bye')", PluginStatus.FAILED, "SystemExit: bye"),
    "lacks a module": ("import no_such_module", PluginStatus.FAILED, "No module named 'no_such_module'"),
    "is no Python": ("def :", PluginStatus.FAILED, "SyntaxError: invalid syntax"),
    "escapes Exception": (
        "class Exit(BaseException):\n  def __str__(self): 1 / 0\nraise Exit",
        PluginStatus.FAILED,
        "Exit",
    ),
    "has no hook": ("x = 1", PluginStatus.FAILED, "no function townlet_train_strategies"),
    "is too new": (
        f"TOWNLET_TRAIN_API = 2\n{textwrap.dedent(COIN)}",
        PluginStatus.INCOMPATIBLE,
        "API version 2",
    ),
    "hook raises": (
        textwrap.dedent(COIN).replace("return [Coin]", "raise KeyError('lost')"),
        PluginStatus.FAILED,
        "KeyError: 'lost'",
    ),
    "returns a word": (
        textwrap.dedent(COIN).replace("return [Coin]", "return 'coin'"),
        PluginStatus.FAILED,
        "returned a str, expected a list of strategy classes",
    ),
    "returns an object": (
        textwrap.dedent(COIN).replace("return [Coin]", "return [Coin(None)]"),
        PluginStatus.FAILED,
        "expected a strategy class",
    ),
    "bad name": (
        textwrap.dedent(COIN).replace('"coin"', '"Coin!"', 1),
        PluginStatus.FAILED,
        "Coin.name is 'Coin!', expected a lower-case word",
    ),
    "no params": (
        textwrap.dedent(COIN).replace("Params = StrategyParams", "Params = dict"),
        PluginStatus.FAILED,
        "Coin.Params is <class 'dict'>, expected a subclass of StrategyParams",
    ),
    "no run": (
        textwrap.dedent(COIN).replace("def run", "def walk"),
        PluginStatus.FAILED,
        "Coin has no run, expected a method",
    ),
    "wrong hook argument": (
        textwrap.dedent(COIN).replace("strategies():", "strategies(app):"),
        PluginStatus.FAILED,
        "PluginValidationError",
    ),
    "experts without environments": (
        textwrap.dedent(COIN) + "\n@hookimpl\ndef townlet_train_experts():\n    return [Coin]\n",
        PluginStatus.FAILED,
        "townlet_train_experts returned a list, expected builders by environment id",
    ),
    "an expert that nobody builds": (
        textwrap.dedent(COIN) + "\n@hookimpl\ndef townlet_train_experts():\n    return {'town': 3}\n",
        PluginStatus.FAILED,
        "returned 3 for 'town', expected a function that builds an expert",
    ),
    "misspelt hook": (
        textwrap.dedent(COIN).replace("townlet_train_strategies", "townlet_train_stratgies"),
        PluginStatus.FAILED,
        "unknown hook",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_one_broken_plugin_is_reported_and_does_not_hide_the_others(site: Path, kind: str) -> None:
    source, status, reason = BROKEN[kind]
    install(site, "broken-dist", source, version="0.3")
    install(site, "zz-coin", COIN)
    registry = discover()
    broken = plugin(registry, "broken-dist")
    assert (broken.status, broken.version) == (status, "0.3")
    assert reason in broken.reason
    assert registry.select("coin").__module__ == "zz_coin"
    assert plugin(registry, "townlet-train").status is PluginStatus.OK


def test_a_broken_plugin_keeps_its_traceback_for_who_wants_it(site: Path) -> None:
    install(site, "broken-dist", "1 / 0")
    assert "broken_dist.py" in plugin(discover(), "broken-dist").traceback


TWICE = "aa-coin 1.2 and zz-coin 1.2 claim it. Say which: aa-coin:coin or zz-coin:coin"


def test_a_name_that_two_claim_is_an_error_that_names_both_and_either_has_an_address(site: Path) -> None:
    install(site, "aa-coin", COIN)
    install(site, "zz-coin", COIN)
    registry = discover()
    both = [record for record in registry.strategies if record.name == "coin"]
    assert [(record.distribution, record.available, record.reason) for record in both] == [
        ("aa-coin", False, TWICE),
        ("zz-coin", False, TWICE),
    ]
    with pytest.raises(
        PluginError, match=r"The name 'coin' is no one strategy's: aa-coin 1\.2 and zz-coin 1\.2"
    ):
        registry.select("coin")
    assert registry.select("aa-coin:coin").__module__ == "aa_coin"
    assert registry.select("zz-coin:coin").__module__ == "zz_coin"
    with pytest.raises(UnknownNameError, match="Did you mean 'zz-coin:coin'"):
        registry.select("zz-coins:coin")


def test_a_name_that_two_claim_is_told_by_whatever_lists_plugins(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    install(site, "aa-coin", COIN)
    install(site, "zz-coin", COIN)
    told = {name: f"Strategy 'coin' of {name} 1.2: {TWICE}" for name in ("aa-coin", "zz-coin")}
    assert main(["plugins", "list", "--json"]) == 0
    rows = {row["distribution"]: row["reason"] for row in json.loads(capsys.readouterr().out)["plugins"]}
    assert {name: rows[name] for name in told} == told
    assert main(["plugins", "show", "coin", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reason"] == told["aa-coin"]
    assert main(["doctor", "--json"]) == 1
    examined = json.loads(capsys.readouterr().out)
    assert f"Plugin 'aa_coin' of aa-coin 1.2: {told['aa-coin']}" in examined["warnings"]
    assert {row["distribution"]: row["reason"] for row in examined["plugins"]}["zz-coin"] == told["zz-coin"]


def test_a_strategy_with_a_clashing_name_runs_by_its_address(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sided = COIN.replace("Params = StrategyParams", "class Params(StrategyParams): sides: int = 2")
    install(site, "aa-coin", COIN)
    install(site, "zz-coin", sided.replace("Flip a coin and report it", "Flip a die"))
    assert main(["coin", "--dry-run"]) == 2
    assert TWICE in capsys.readouterr().err
    run_dir = tmp_path / "run"
    arguments = ["--sides", "6", "--output-dir", str(run_dir), "--json"]
    assert main(["zz-coin:coin", *arguments]) == 0
    assert '"strategy": "coin"' in capsys.readouterr().out
    assert '"sides": 6' in (run_dir / "run.json").read_text()
    assert main(["strategies", "show", "zz-coin:coin"]) == 0
    assert main(["zz-coin:coin", "--set", "coin.sides=x", "--dry-run"]) == 3
    capsys.readouterr()
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert "aa-coin:coin" in shown
    assert "zz-coin:coin" in shown


def test_a_plugin_that_brings_one_name_twice_keeps_the_first(site: Path) -> None:
    install(site, "coin-dist", COIN.replace("[Coin]", "[Coin, type('Other', (Coin,), {})]"))
    registry = discover()
    assert registry.select("coin").__name__ == registry.select("coin-dist:coin").__name__ == "Coin"
    assert "coin-dist brings two of that name" in " ".join(registry.listing.problems)


def test_no_plugin_takes_a_built_in_name(site: Path) -> None:
    install(site, "aa-bc", COIN.replace('"coin"', '"bc"'))
    registry = discover()
    assert registry.find("bc").__module__.startswith("townlet_train.")
    other = next(record for record in registry.strategies if record.distribution == "aa-bc")
    assert (other.available, "has to be called aa-bc:bc" in other.reason) == (False, True)
    assert registry.find("aa-bc:bc").__module__ == "aa_bc"


def test_a_strategy_named_like_a_command_is_refused(site: Path) -> None:
    install(site, "evaluate-dist", COIN.replace('"coin"', '"evaluate"'))
    record = plugin(discover(PluginPolicy(reserved=frozenset({"evaluate"}))), "evaluate-dist")
    assert record.status is PluginStatus.FAILED
    assert "named like a command" in record.reason


def test_what_a_plugin_prints_while_loading_never_reaches_stdout(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(site, "loud-dist", f"print('hello')\n{textwrap.dedent(COIN)}")
    discover()
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "hello" in printed.err


@pytest.mark.parametrize("variable", ["TOWNLET_TRAIN_PLUGINS", "TOWNLET_TRAIN_DISABLE_PLUGINS"])
def test_a_plugin_that_nobody_has_is_warned_of_once(
    site: Path, variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(site, "aa-coin", COIN)
    monkeypatch.setenv(variable, "aa-con, townlet-train")
    main(["strategies", "list"])
    warning = f"Warning: {variable} names 'aa-con', and no plugin of that name is installed. Did you mean 'aa-coin'?"
    assert capsys.readouterr().err.count(warning) == 1


@pytest.mark.parametrize("named", ["builtin", "townlet-train", "aa-coin"])
def test_keeping_our_own_strategies_out_is_warned_of(
    named: str, site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(site, "aa-coin", COIN.replace('"coin"', '"bc"'))
    monkeypatch.setenv("TOWNLET_TRAIN_DISABLE_PLUGINS", named)
    assert main(["strategies", "list"]) == 0
    warning = (
        "Warning: TOWNLET_TRAIN_DISABLE_PLUGINS keeps out the strategies of townlet-train itself, so that a name of "
        "theirs, as 'bc', is free to others.\n"
    )
    assert (warning in capsys.readouterr().err) is (named != "aa-coin")


@pytest.mark.parametrize(
    ("variables", "loaded"),
    [
        ({}, {"townlet-train", "aa-coin", "zz-dice"}),
        ({"TOWNLET_TRAIN_PLUGINS": ""}, {"townlet-train"}),
        ({"TOWNLET_TRAIN_PLUGINS": "zz_dice"}, {"townlet-train", "zz-dice"}),
        ({"TOWNLET_TRAIN_DISABLE_PLUGINS": "AA.coin, other"}, {"townlet-train", "zz-dice"}),
        ({"TOWNLET_TRAIN_DISABLE_PLUGINS": "builtin"}, {"aa-coin", "zz-dice"}),
    ],
)
def test_the_environment_says_which_plugins_load(
    site: Path, variables: dict[str, str], loaded: set[str]
) -> None:
    install(site, "aa-coin", COIN)
    install(site, "zz-dice", COIN.replace('"coin"', '"dice"'))
    registry = discover(PluginPolicy.from_environment(variables))
    named = {"townlet-train", "aa-coin", "zz-dice"}  # beside those that are installed here
    status = {
        record.distribution: record.status for record in registry.plugins if record.distribution in named
    }
    assert {name for name in status if status[name] is PluginStatus.OK} == loaded
    assert all(status[name] is PluginStatus.DISABLED for name in status.keys() - loaded)


@pytest.mark.parametrize("variables", [{"TOWNLET_TRAIN_STRICT_PLUGINS": "1"}])
def test_strict_mode_turns_a_broken_plugin_into_an_error(site: Path, variables: dict[str, str]) -> None:
    install(site, "broken-dist", "1 / 0")
    with pytest.raises(PluginError, match=r"'broken_dist' of broken-dist 1\.2: ZeroDivisionError"):
        discover(PluginPolicy.from_environment(variables))


def test_strict_mode_objects_to_a_name_taken_twice(site: Path) -> None:
    install(site, "aa-coin", COIN)
    install(site, "zz-coin", COIN)
    with pytest.raises(PluginError, match=r"aa-coin 1\.2 and zz-coin 1\.2 claim it"):
        discover(PluginPolicy(strict=True))


def test_without_torch_a_torch_strategy_is_listed_and_refused(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(site, "torch-coin", COIN.replace("requires_torch = False", "requires_torch = True"))
    monkeypatch.setattr(discovery_module, "torch_installed", lambda: False)
    registry = discover()
    record = next(record for record in registry.strategies if record.name == "coin")
    assert not record.available
    assert "pip install 'townlet-train[torch]'" in record.reason
    assert registry.find("coin").name == "coin"
    with pytest.raises(TorchNotAvailableError, match="pip install"):
        registry.select("coin")


NEEDY = COIN.replace(
    "requires_torch = False", 'requires_torch = False; requires = {"no_such_thing": "no-such"}'
)


def test_a_strategy_whose_module_is_missing_is_listed_and_refused_with_what_installs_it(site: Path) -> None:
    install(site, "needy-coin", NEEDY)
    registry = discover()
    record = next(record for record in registry.strategies if record.name == "coin")
    assert not record.available
    assert record.reason == "no_such_thing is not installed. Run: pip install 'no-such'"
    sentence = r"Strategy 'coin' of needy-coin 1\.2: no_such_thing is not installed"
    with pytest.raises(PluginError, match=sentence) as refusal:
        registry.select("coin")
    assert refusal.value.exit_code == 2


def test_a_strategy_whose_modules_are_there_is_available(site: Path) -> None:
    install(site, "needy-coin", NEEDY.replace("no_such_thing", "pluggy"))
    assert discover().select("coin").name == "coin"


def test_what_a_strategy_requires_is_named_by_whole_modules(site: Path) -> None:
    install(site, "needy-coin", NEEDY.replace("no_such_thing", "os.path"))
    assert "Coin.requires is {'os.path': 'no-such'}, expected" in plugin(discover(), "needy-coin").reason


def test_an_unknown_strategy_is_refused_with_the_likely_name(site: Path) -> None:
    install(site, "coin-dist", COIN)
    with pytest.raises(UnknownNameError, match="Did you mean 'coin'"):
        discover().select("coyn")


def test_a_strategy_of_ours_that_is_a_distribution_of_its_own_is_named_with_it() -> None:
    with pytest.raises(UnknownNameError, match="Run: pip install townlet-train-dagger"):
        discover(entry_points=[]).select("dagger")


def test_asking_for_a_broken_plugin_tells_its_cause(site: Path) -> None:
    install(site, "broken-dist", "1 / 0")
    with pytest.raises(PluginError, match="ZeroDivisionError"):
        discover().select("broken_dist")


def test_an_entry_point_without_a_distribution_is_handled() -> None:
    registry = discover(entry_points=[EntryPoint("stray", "no_such_module", "townlet_train")])
    assert plugin(registry, "unknown").status is PluginStatus.FAILED


def test_a_distribution_that_lost_its_metadata_is_handled(site: Path) -> None:
    install(site, "torn-dist", COIN)
    (site / "torn_dist-1.2.dist-info" / "METADATA").unlink()
    install(site, "zz-dice", COIN.replace('"coin"', '"dice"'))
    assert {"coin", "dice"} <= discover().classes.keys()


class TestCatalogue:
    """The remembered listing is used as long as nothing changed, and no longer."""

    @pytest.fixture
    def loads(self) -> list[PluginPolicy]:
        return []

    @pytest.fixture
    def ask(self, tmp_path_factory: pytest.TempPathFactory, loads: list[PluginPolicy]):
        path = tmp_path_factory.mktemp("cache") / "strategies.json"

        def load(policy: PluginPolicy) -> Registry:
            loads.append(policy)
            return discover(policy)

        def ask(policy: PluginPolicy | None = None) -> Listing:
            return catalogue(policy or PluginPolicy(), path=path, load=load)

        ask.path = path
        return ask

    def test_it_is_the_listing_itself(self, site: Path, ask, loads) -> None:
        install(site, "coin-dist", COIN)
        install(site, "player-dist", PLAYER)
        assert ask() == ask() == discover().listing
        assert len(loads) == 1

    def test_a_changed_plugin_is_loaded_again(self, site: Path, ask, loads) -> None:
        install(site, "coin-dist", COIN)
        ask()
        module = site / "coin_dist.py"
        module.write_text(module.read_text().replace("Flip", "Toss"))
        os.utime(module, ns=(1, 1))
        ask()
        assert len(loads) == 2

    def test_a_plugin_that_arrives_or_leaves_is_noticed(self, site: Path, ask, loads) -> None:
        ask()
        install(site, "coin-dist", COIN)
        assert "coin" in {record.name for record in ask().strategies}
        assert len(loads) == 2

    def test_another_policy_has_another_listing(self, site: Path, ask) -> None:
        install(site, "coin-dist", COIN)
        ask()
        names = {record.name for record in ask(PluginPolicy(denied=frozenset({"coin-dist"}))).strategies}
        assert "coin" not in names

    def test_a_broken_plugin_is_tried_again_each_time(self, site: Path, ask, loads) -> None:
        install(site, "broken-dist", "1 / 0")
        ask()
        ask()
        assert len(loads) == 2

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"conditions": 1}', b"\xff"])
    def test_a_damaged_memory_is_no_memory(self, ask, loads, content: bytes) -> None:
        ask()
        ask.path.write_bytes(content)
        ask()
        assert len(loads) == 2

    def test_a_folder_that_cannot_be_written_is_no_failure(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        listing = catalogue(PluginPolicy(), path=tmp_path / "file" / "strategies.json")
        assert listing == discover().listing


PLAYER = """
    from townlet_train.api import hookimpl

    class Fair:
        name = "fair"
        def act(self, observation, uniforms): return (uniforms * 0).astype(int)

    @hookimpl
    def townlet_train_experts():
        return {"Acrobot-v1": lambda spec: Fair()}
"""
SPEC = EnvSpec("Acrobot-v1", ("x",), ("a", "b"))


def test_a_plugin_may_bring_an_expert_and_no_strategy(site: Path) -> None:
    install(site, "player-dist", PLAYER)
    registry = discover()
    assert plugin(registry, "player-dist").status is PluginStatus.OK
    assert registry.experts.keys() >= {"Acrobot-v1", *EXPERTS}
    assert build_expert(SPEC, registry.experts).name == "fair"
    assert ("Acrobot-v1", "player-dist", "1.2") in {
        (expert.env, expert.distribution, expert.version) for expert in registry.listing.experts
    }


def test_an_experts_plugin_is_heard_by_the_commands_that_act(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(site, "player-dist", PLAYER)
    arguments = ["--env", "Acrobot-v1", "--policy", "expert", "--json"]
    assert main(["evaluate", *arguments, "--episodes", "1"]) == 0
    assert '"policy": "fair"' in capsys.readouterr().out
    capture = ["--envs", "2", "--ticks", "5", "--output", str(tmp_path / "capture")]
    assert main(["rollout", "capture", *arguments, *capture]) == 0
    assert '"policy": "fair"' in capsys.readouterr().out


def test_a_run_is_handed_the_experts_of_plugins(site: Path, tmp_path: Path) -> None:
    install(site, "player-dist", PLAYER)
    teller = COIN.replace(
        'TrainingResultDTO(strategy="coin")',
        'TrainingResultDTO(strategy="coin", warnings=(context.services.experts["Acrobot-v1"](None).name,))',
    )
    install(site, "teller-dist", teller)
    result = run_strategy("coin", {}, config=RunConfig(), run_dir=tmp_path / "run")
    assert result.warnings == ("fair",)


def test_an_environment_keeps_its_first_expert_and_the_reason_names_both(site: Path) -> None:
    install(site, "aa-player", PLAYER)
    install(site, "zz-player", PLAYER.replace("Fair", "Other").replace('"fair"', '"other"'))
    install(site, "town-player", PLAYER.replace("Acrobot-v1", "town"))
    registry = discover()
    assert build_expert(SPEC, registry.experts).name == "fair"
    own = version("townlet-train")
    assert [problem for problem in registry.listing.problems if problem.startswith("The expert")] == [
        f"The expert for 'town' of town-player 1.2: the environment already has one of townlet-train {own}, which is "
        f"used",
        "The expert for 'Acrobot-v1' of zz-player 1.2: the environment already has one of aa-player 1.2, which is used",
    ]
    with pytest.raises(PluginError, match="aa-player"):
        discover(PluginPolicy(strict=True))


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        ("1 / 0", "of player-dist 1.2 cannot be built: ZeroDivisionError: division by zero"),
        ("'fair'", "of player-dist 1.2 is a str, expected a policy: a name, and `act`"),
    ],
)
def test_an_expert_that_cannot_act_is_named_with_its_plugin(site: Path, build: str, reason: str) -> None:
    install(site, "player-dist", PLAYER.replace("lambda spec: Fair()", f"lambda spec: {build}"))
    with pytest.raises(PluginError) as failure:
        build_expert(SPEC, discover().experts)
    assert reason in str(failure.value)


LISTENER = """
    from townlet_train.api import hookimpl

    class Listener:
        def __init__(self, path): self.path, self.heard = path, []
        def record(self, line):
            self.heard.append(line["loss"])
            self.path.write_text(f"{self.heard}")
            DO
        def close(self): self.path.write_text(f"{self.heard} and closed")

    @hookimpl
    def townlet_train_logger(run_dir):
        return Listener(run_dir / "heard.txt")
"""


def told(site: Path, folder: Path, *, doing: str = "pass", listener: str = LISTENER) -> tuple[str, list[str]]:
    """What a plugin with a logger alone has heard of three lines after which it does something, and what went wrong."""
    install(site, "listener-dist", listener.replace("DO", doing))
    registry = discover()
    assert plugin(registry, "listener-dist").status is PluginStatus.OK
    sources = [source for source in registry.loggers if source.plugin.distribution == "listener-dist"]
    loggers = RunLoggers(sources, folder, None)
    for number in range(3):
        loggers.record({"loss": number})
    loggers.close()
    loggers.close()
    return (folder / "heard.txt").read_text(), loggers.warnings


def test_a_plugin_may_add_a_logger_and_no_strategy(site: Path, tmp_path: Path) -> None:
    assert told(site, tmp_path) == ("[0, 1, 2] and closed", [])


FAILING = 'if line["loss"]: raise OSError("no room")'
STOPPED = "The logger of 'listener_dist' (listener-dist 1.2) stopped: OSError: no room."


def test_a_logger_that_fails_is_named_and_left_alone_until_it_is_closed(site: Path, tmp_path: Path) -> None:
    assert told(site, tmp_path, doing=FAILING) == ("[0, 1] and closed", [STOPPED])


def test_a_logger_that_fails_and_does_not_close_either_is_two_warnings_and_no_end(
    site: Path, tmp_path: Path
) -> None:
    listener = LISTENER.replace(
        "def close(self): ", 'def close(self): raise OSError("still no room")\n        def end(self): '
    )
    heard, warnings = told(site, tmp_path, doing=FAILING, listener=listener)
    assert heard == "[0, 1]"
    ended = "The logger of 'listener_dist' (listener-dist 1.2) did not end well: OSError: still no room."
    assert warnings == [STOPPED, ended]


@pytest.mark.parametrize("trouble", [False, True])
def test_a_logger_that_asks_for_it_is_handed_the_result_before_it_is_closed(
    trouble: bool, site: Path, tmp_path: Path
) -> None:
    finish = "def finish(self, result): self.heard.append(result.strategy); FULL"
    finish = finish.replace("FULL", "raise UsageError('There is no room. Make some.')" if trouble else "")
    source = LISTENER.replace("DO", "pass").replace("def close", f"{finish}\n        def close")
    install(site, "listener-dist", source.replace("import hookimpl", "import UsageError, hookimpl"))
    sources = [source for source in discover().loggers if source.plugin.distribution == "listener-dist"]
    loggers = RunLoggers(sources, tmp_path, None)
    loggers.record({"loss": 0})
    loggers.finish(TrainingResultDTO(strategy="coin"))
    loggers.close()
    assert (tmp_path / "heard.txt").read_text() == "[0, 'coin'] and closed"
    assert loggers.warnings == trouble * [
        "The logger of 'listener_dist' (listener-dist 1.2) did not take the result: There is no room. Make some."
    ]


def test_a_logger_that_cannot_start_is_named(site: Path, tmp_path: Path) -> None:
    install(site, "listener-dist", LISTENER.replace("return Listener(", "raise KeyError("))
    sources = [source for source in discover().loggers if source.plugin.distribution == "listener-dist"]
    loggers = RunLoggers(sources, tmp_path, None)
    loggers.record({"loss": 1})
    [warning] = loggers.warnings
    assert "did not start: KeyError" in warning
