"""`check_strategy` names the rule that a strategy breaks, and every strategy of ours keeps them all."""

from __future__ import annotations

import sys
import textwrap
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from townlet_train.errors import PluginError
from townlet_train.registry import discover
from townlet_train.results import RuleDTO
from townlet_train.testing import check_strategy, examine_strategy

GOOD = """
    from townlet_train.api import Progress, StrategyParams, TrainingResultDTO, UsageError
    from pathlib import Path
    from pydantic import Field, computed_field

    class CoinParams(StrategyParams):
        may_change_on_resume = frozenset()
        flips: int = Field(4, gt=0, description="times the coin is flipped")

    class CoinResult(TrainingResultDTO):
        heads: float = Field(0, description="share of heads")

    class Coin:
        Params = CoinParams
        name = "coin"
        summary = "Flip a coin and report it"
        requires_torch = False

        def __init__(self, params):
            self.params = params

        def prepare(self, context):
            pass

        def run(self, context):
            heads, flips = 0, self.params.flips
            for flip in range(1, flips + 1):
                heads += int(context.rng.random() < 0.5)
                context.record({"timestep": flip, "heads": heads})
                context.report(Progress("coin", flip, flips, {}))
            return CoinResult(strategy=self.name, heads=heads / flips)
"""
# What is written instead of what, the rule it breaks, and what is said of it.
FAKES: dict[str, tuple[str, str, str, str]] = {
    "a summary is missing": (
        'summary = "Flip a coin and report it"',
        "pass",
        "contract",
        "Coin has no summary",
    ),
    "a summary is two lines": ("a coin and", "a coin\\nand", "contract", "expected one line of text"),
    "a param tells nobody what it does": (
        ', description="times the coin is flipped"',
        "",
        "params",
        "flips of CoinParams has no description",
    ),
    "a default is no value of its param": ("Field(4", "Field(0", "params", "the default of flips is 0"),
    "params take any key": (
        "(StrategyParams):",
        "(StrategyParams, extra='ignore'):",
        "params",
        "takes keys that nobody declared",
    ),
    "params can be changed": (
        "(StrategyParams):",
        "(StrategyParams, frozen=False):",
        "params",
        "can be changed",
    ),
    "the import brings NumPy": (
        "from pathlib import Path",
        "from pathlib import Path\n    import numpy",
        "import",
        "importing FAKE brings numpy",
    ),
    "the import prints": (
        "from pathlib import Path",
        "from pathlib import Path\n    print('hello')",
        "import",
        "importing FAKE prints 'hello'",
    ),
    "prepare draws": (
        "def prepare(self, context):\n            pass",
        "def prepare(self, context):\n            context.rng.random()",
        "prepare",
        "`prepare` draws from context.rng",
    ),
    "prepare draws from Python": (
        "def prepare(self, context):\n            pass",
        "def prepare(self, context):\n            import random; random.random()",
        "prepare",
        "`prepare` draws from Python's own random numbers",
    ),
    "prepare writes": (
        "def prepare(self, context):\n            pass",
        "def prepare(self, context):\n            open('made_up.txt', 'w').close()",
        "prepare",
        "`prepare` writes files",
    ),
    "prepare goes elsewhere": (
        "def prepare(self, context):\n            pass",
        "def prepare(self, context):\n            import os; os.chdir('..')",
        "prepare",
        "`prepare` changes the working directory",
    ),
    "prepare changes what it is handed": (
        "def prepare(self, context):\n            pass",
        "def prepare(self, context):\n            object.__setattr__(context, 'seed', 7)",
        "prepare",
        "`prepare` changes the context",
    ),
    "prepare raises anything": (
        "def prepare(self, context):\n            pass",
        "def prepare(self, context):\n            {}['lost']",
        "prepare",
        "`prepare` raises KeyError: 'lost' (",
    ),
    "run raises": ("heads, flips = 0,", "heads, flips = 1 / 0,", "run", "ZeroDivisionError"),
    "run returns a number": (
        "return CoinResult(strategy=self.name, heads=heads / flips)",
        "return heads",
        "run",
        "returned int, expected a TrainingResultDTO",
    ),
    "a result without its strategy": (
        "strategy=self.name, ",
        "",
        "run",
        "returned a result of '', expected a TrainingResultDTO of 'coin': pass",
    ),
    "a result that JSON changes": (
        'heads: float = Field(0, description="share of heads")',
        "heads: float = Field(0)\n        @computed_field\n        def tails(self) -> float: return 0.5",
        "result",
        "CoinResult does not survive JSON",
    ),
    "random numbers of its own": (
        "context.rng.random()",
        "__import__('random').random()",
        "seed",
        "two runs with seed 5 differ",
    ),
    "a run that nobody can stop": (
        'context.report(Progress("coin", flip, flips, {}))',
        "pass",
        "cancel",
        "`run` never calls context.report",
    ),
    "a run that goes on": (
        'context.report(Progress("coin", flip, flips, {}))',
        'try: context.report(Progress("coin", flip, flips, {}))\n                except Exception: pass',
        "cancel",
        "goes on to its end after context.report raised Interrupted",
    ),
    "a run that goes on for a while": (
        'context.report(Progress("coin", flip, flips, {}))',
        'try: context.report(Progress("coin", flip, flips, {}))\n'
        "                except Exception:\n"
        "                    if flip == 3: raise",
        "cancel",
        "`run` went on to 3 of 'coin' after context.report raised Interrupted at 1 of 'coin'",
    ),
    "a run that nobody can stop at its end": (
        "return CoinResult(",
        "try: context.report(Progress('end', 1, 1, {}))\n"
        "            except Exception: pass\n"
        "            return CoinResult(",
        "cancel",
        "goes on to its end after context.report raised Interrupted",
    ),
    "a silent evaluation": (
        "return CoinResult(",
        "context.services.evaluation.evaluate(scripted='random', episodes=2)\n            return CoinResult(",
        "cancel",
        "`run` calls context.services.evaluation.evaluate without `report`",
    ),
    "a silent evaluation of what is left after a stop": (
        'context.report(Progress("coin", flip, flips, {}))',
        'try: context.report(Progress("coin", flip, flips, {}))\n'
        "                except Exception:\n"
        "                    context.services.evaluation.evaluate(scripted='random', episodes=2)\n"
        "                    raise",
        "cancel",
        "`run` calls context.services.evaluation.evaluate without `report`",
    ),
    "a long silent loop after a stop": (
        'context.report(Progress("coin", flip, flips, {}))',
        'try: context.report(Progress("coin", flip, flips, {}))\n'
        "                except Exception:\n"
        "                    from townlet_train.api import build_env\n"
        "                    import numpy\n"
        "                    env = build_env(context.config, 1)\n"
        "                    env.reset(numpy.arange(1))\n"
        "                    for _ in range(3000): env.step(numpy.zeros((1, 1), int))\n"
        "                    raise",
        "cancel",
        "`run` steps its environments 3000 ticks without a report",
    ),
    "a stop becomes something else": (
        'context.report(Progress("coin", flip, flips, {}))',
        'try: context.report(Progress("coin", flip, flips, {}))\n'
        "                except Exception: raise KeyError('stopped')",
        "cancel",
        "turns Interrupted into something else",
    ),
    "a resumed run that finds what it should have lost": (
        "heads, flips = 0, self.params.flips",
        "left = context.run_dir / 'heads.txt'\n"
        "            heads, flips = int(left.read_text()) if left.exists() else 0, self.params.flips\n"
        "            left.write_text('3')",
        "resume",
        "a run stopped at 2 of 4 and resumed is another than one that was not stopped: line 1 of metrics.jsonl",
    ),
    "an environment that nobody has is no sentence": (
        "def prepare(self, context):\n            pass",
        "def prepare(self, context):\n            {'CartPole-v1': 1}[context.config.env]",
        "errors",
        "`prepare` raises KeyError: 'NoEnvironmentHasThisName-v0'",
    ),
    "a file that is not there ends in Python's own error": (
        "def prepare(self, context):\n            pass",
        "def prepare(self, context):\n            open(self.params.manifest / 'rollout_sample_manifest.json').close()\n"
        "        class Params(CoinParams):\n"
        "            manifest: Path = Field(description='demonstrations')",
        "errors",
        "`prepare` ends with FileNotFoundError",
    ),
    "a file that is not there is nobody's trouble": (
        'description="times the coin is flipped")',
        'description="times the coin is flipped")\n        manifest: Path = Field(description="demonstrations")',
        "errors",
        "`prepare` takes manifest=",
    ),
}


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """Writes a module with a strategy and imports it, under a name no other test has."""
    monkeypatch.syspath_prepend(tmp_path)
    names: list[str] = []

    def write(source: str) -> Any:
        name = f"fake_{tmp_path.name.replace('-', '_')}_{len(names)}"
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source).replace("FAKE", name))
        names.append(name)
        return import_module(name).Coin

    yield write
    for name in names:
        sys.modules.pop(name, None)


def outcomes(rules: tuple[RuleDTO, ...]) -> dict[str, str]:
    return {rule.rule: rule.outcome for rule in rules}


def test_a_strategy_that_keeps_every_rule_passes(fake: Any) -> None:
    rules = check_strategy(fake(GOOD))
    assert outcomes(rules) == {
        **dict.fromkeys(["contract", "params", "import", "prepare", "run"], "passed"),
        **dict.fromkeys(["result", "seed", "cancel", "errors"], "passed"),
        "resume": "passed",
    }


@pytest.mark.parametrize(
    ("before", "after", "skipped", "reason"),
    [
        ("may_change_on_resume = frozenset()", "pass", {"resume"}, "Its runs cannot be resumed"),
        ("Field(4,", "Field(1,", {"resume"}, "It reports nothing between its beginning and its end"),
        (
            "Field(4,",
            "Field(",
            {"prepare", "run", "result", "seed", "cancel", "resume", "errors"},
            "It needs flips. Hand the check params with them.",
        ),
        (
            "pass",
            "raise UsageError('It plays Pong.')",
            {"prepare", "run", "result", "seed", "cancel", "resume"},
            "`prepare` refused: It plays Pong.",
        ),
    ],
)
def test_a_rule_that_cannot_be_tried_is_skipped_with_the_reason(
    fake: Any, before: str, after: str, skipped: set[str], reason: str
) -> None:
    rules = check_strategy(fake(GOOD.replace(before, after)))
    assert {rule.rule for rule in rules if rule.outcome == "skipped"} == skipped
    assert all(rule.reason.startswith(reason) for rule in rules if rule.outcome == "skipped")


def test_what_is_given_wins_over_what_is_made_small(fake: Any) -> None:
    assert (
        outcomes(check_strategy(fake(GOOD.replace("Field(4,", "Field(")), {"flips": 6}))["resume"] == "passed"
    )


@pytest.mark.torch
@pytest.mark.parametrize("name", ["bc", "ppo", "a2c", "dagger", "random-search"])
def test_the_strategies_we_ship_keep_every_rule(name: str) -> None:
    pytest.importorskip("torch")
    rules = outcomes(check_strategy(discover().classes[name]))
    assert {rule for rule in rules if rules[rule] != "passed"} <= {"resume"}
    assert (rules["resume"] == "passed") is (name in ("bc", "ppo", "a2c", "dagger"))


@pytest.mark.slow
@pytest.mark.torch
def test_an_anneal_keeps_every_rule() -> None:
    pytest.importorskip("torch")
    params = {
        "timesteps": 1024,
        "n_cycles": 2,
        "stage_episodes": 4,
        "evaluation_episodes": 4,
        "gate": False,
        "bc_threshold": 0.0,
        "bc": {"n_epochs": 1},
        "ppo": {"n_envs": 2, "n_steps": 64, "batch_size": 64, "n_epochs": 1},
    }
    small = {"env": "CartPole-v1", "seed": 5, "rollout": {"towns": 8, "ticks": 64}}
    rules = outcomes(check_strategy(discover().classes["anneal"], params, config=small))
    assert {rule for rule in rules if rules[rule] != "passed"} == set()


@pytest.mark.parametrize("kind", FAKES)
def test_a_strategy_that_breaks_a_rule_is_told_which(fake: Any, kind: str) -> None:
    before, after, rule, sentence = FAKES[kind]
    assert GOOD.count(before) == 1
    strategy = fake(GOOD.replace(before, after))
    found = next(found for found in examine_strategy(strategy) if found.rule == rule)
    assert found.outcome == "failed"
    assert sentence.replace("FAKE", strategy.__module__) in found.reason


def test_every_broken_rule_is_a_sentence_of_the_error(fake: Any) -> None:
    two = GOOD.replace(', description="times the coin is flipped"', "").replace("strategy=self.name, ", "")
    with pytest.raises(PluginError, match=r"Coin breaks the rule 'params': .* Coin breaks the rule 'run': "):
        check_strategy(fake(two))
