"""`townlet-train plugins`: what is told of plugins that work, that do not, and of their strategies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from plugin_distributions import COIN, install

from townlet_train.cli import main
from townlet_train.errors import UnknownNameError
from townlet_train.registry import discover


def asked(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


STATUSES = {
    "coin-dist": (COIN, "ok", ""),
    "broken-dist": ("1 / 0", "failed", "ZeroDivisionError: division by zero"),
    "new-dist": (f"TOWNLET_TRAIN_API = 2\n{COIN.lstrip()}", "incompatible", "written for API version 2"),
    "out-dist": ("1 / 0", "disabled", "kept out by TOWNLET_TRAIN_DISABLE_PLUGINS"),
}


def test_every_status_is_listed_with_its_reason_and_its_time(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOWNLET_TRAIN_DISABLE_PLUGINS", "out-dist")
    for distribution, (source, _, _) in STATUSES.items():
        install(site, distribution, "TOWNLET_TRAIN_API = 2\n1 / 0" if "new" in distribution else source)
    (site / "new_dist.py").write_text("TOWNLET_TRAIN_API = 2\n")
    listed = {row["distribution"]: row for row in asked(capsys, "plugins", "list")["plugins"]}
    for distribution, (_, status, reason) in STATUSES.items():
        assert listed[distribution]["status"] == status
        assert reason in listed[distribution]["reason"]
        assert listed[distribution]["version"] == "1.2"
    assert listed["coin-dist"]["strategies"] == ["coin"]
    assert listed["coin-dist"]["load_ms"] > 0
    assert main(["plugins", "list"]) == 0
    assert "ZeroDivisionError" in capsys.readouterr().out


def test_a_broken_plugin_is_shown_with_its_whole_traceback(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(site, "broken-dist", "def f():\n    return 1 / 0\n\nf()")
    assert "broken_dist.py" in asked(capsys, "plugins", "show", "broken-dist")["traceback"]
    assert main(["plugins", "show", "broken_dist"]) == 0
    shown = capsys.readouterr().out
    assert "Traceback (most recent call last)" in shown
    assert "line 2, in f" in shown


def test_a_plugin_is_found_by_its_name_its_distribution_and_its_strategy(site: Path) -> None:
    install(site, "coin-dist", COIN)
    registry = discover()
    assert {registry.plugin(name).distribution for name in ("coin_dist", "coin-dist", "coin")} == {
        "coin-dist"
    }
    with pytest.raises(UnknownNameError, match="Did you mean 'coin_dist'"):
        registry.plugin("coin_dits")


def test_pins_are_those_of_plugins_that_loaded(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(site, "coin-dist", COIN, version="3.1")
    install(site, "broken-dist", "1 / 0")
    install(site, "torn-dist", COIN.replace('"coin"', '"dice"'))
    (site / "torn_dist-1.2.dist-info" / "METADATA").unlink()
    pins = asked(capsys, "plugins", "freeze")["pins"]
    assert "coin-dist==3.1" in pins
    assert any(pin.startswith("townlet-train==") for pin in pins)
    assert not [pin for pin in pins if "broken" in pin or "unknown" in pin or "None" in pin]
    assert main(["plugins", "freeze"]) == 0
    assert capsys.readouterr().out.splitlines() == pins


def test_checking_a_plugin_tries_all_its_strategies(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two = COIN.replace("[Coin]", "[Coin, type('Dice', (Coin,), {'name': 'dice'})]")
    install(site, "coin-dist", two)
    document = asked(capsys, "plugins", "check", "coin-dist", code=2)
    assert {rule["strategy"] for rule in document["rules"]} == {"coin", "dice"}
    broken = {rule["rule"] for rule in document["rules"] if rule["outcome"] == "failed"}
    assert broken == {"run", "cancel"}  # a die that calls itself coin, and neither can be stopped
    assert document["passed"] is False


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ("show nobody", 3, "No plugin named 'nobody'. Known: "),
        ("show nobody", 3, "Only what is installed is known. Run: pip install DISTRIBUTION"),
        ("show builtn", 3, "No plugin named 'builtn'. Did you mean 'builtin'?"),
        ("show", 3, "Missing argument 'name'. See: townlet-train plugins show --help"),
        ("list coin", 3, "unexpected extra argument(s) (coin). See: townlet-train plugins list --help"),
        ("list --jsn", 3, "No option '--jsn' for townlet-train plugins list. Did you mean '--json'?"),
        ("freeze coin", 3, "unexpected extra argument(s) (coin). See: townlet-train plugins freeze --help"),
        ("freeze --jsn", 3, "No option '--jsn' for townlet-train plugins freeze. Did you mean '--json'?"),
        ("check", 3, "Missing argument 'name'. See: townlet-train plugins check --help"),
        ("check bc ppo", 3, "unexpected extra argument(s) (ppo). See: townlet-train plugins check --help"),
        ("check coin --set x", 3, "--set takes KEY=VALUE, e.g. town.n_agents=4, not 'x'."),
        ("check coin --set coin.speed=1", 3, "Unknown setting 'coin.speed' (--set)."),
        ("check coin --config nowhere.yaml", 3, "Config file nowhere.yaml does not exist."),
        ("check coin --preset town-v11", 3, "No preset named 'town-v11'. Did you mean 'town-v1'?"),
        ("check coin --env Nope-v1", 5, "No environment named 'Nope-v1'."),
        ("chek coin", 3, "No command of townlet-train plugins named 'chek'. Did you mean 'check'?"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(
    arguments: str, code: int, sentence: str, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(site, "coin-dist", COIN)
    assert main(["plugins", *arguments.split()]) == code
    told = capsys.readouterr()
    assert sentence in told.err
    assert told.err.startswith("Error: ")
    assert told.out == ""


@pytest.mark.parametrize(
    ("name", "code", "sentence"),
    [
        ("broken-dist", 2, "ZeroDivisionError"),
        ("nobody", 3, "No plugin named 'nobody'"),
        ("tensorboard", 2, "brings no strategy to check"),
    ],
)
def test_what_cannot_be_checked_is_said(
    name: str, code: int, sentence: str, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(site, "broken-dist", "1 / 0")
    if name == "tensorboard" and not any(plugin.name == name for plugin in discover().plugins):
        pytest.skip("the plugin for TensorBoard is not installed")
    assert main(["plugins", "check", name]) == code
    assert sentence in capsys.readouterr().err


def test_a_check_is_told_params_and_environment(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["random-search", "--env", "Acrobot-v1", "--set", "random-search.max_ticks=20"]
    document = asked(capsys, "plugins", "check", *arguments)
    assert document["passed"] is True
    reasons = asked(capsys, "plugins", "check", "random-search", "--env", "Pendulum-v1")["rules"]
    assert {rule["outcome"] for rule in reasons if rule["rule"] == "seed"} == {"skipped"}
    assert main(["plugins", "check", "random-search", "--set", "random-search.n_best=0"]) == 3
    assert "n_best" in capsys.readouterr().err


def test_a_plugin_that_is_not_installed_is_told_with_the_way_to_install_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = asked(capsys, "plugins", "check", "my-strategy", code=3)["error"]
    assert error["message"].startswith("No plugin named 'my-strategy'.")
    assert error["message"].endswith("Run: pip install DISTRIBUTION, or pip install -e FOLDER")
