from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from plugin_distributions import COIN, install

from townlet_train import __version__
from townlet_train.cli import main
from townlet_train.cli.commands import COMMANDS
from townlet_train.cli.generated import SHARED
from townlet_train.cli.params import TAKEN
from townlet_train.errors import ExitCode
from townlet_train.policies.experts import EXPERT, SCRIPTED_HELP, SCRIPTED_NAMES
from townlet_train.policies.scripted import SCRIPTED

ECHO = """
    import os
    from enum import Enum
    from pathlib import Path
    from typing import Literal

    from pydantic import Field

    from townlet_train.api import StrategyParams, TrainingResultDTO, hookimpl

    class Colour(Enum):
        RED = "red"
        BLUE = "blue"

    class EchoParams(StrategyParams):
        count: int = Field(3, gt=0, le=9, description="how often")
        rate: float | None = None
        fast: bool = Field(False, description="hurry")
        source: Path | None = None
        mode: Literal["loud", "soft"] = "soft"
        colour: Colour = Colour.RED
        sizes: tuple[int, ...] = (64, 64)
        words: list[str] = []
        pair: tuple[int, float] = (1, 0.5)
        table: dict[str, int] = {}
        seed: int = 7

    class EchoResult(TrainingResultDTO):
        params: dict[str, object]
        config_seed: int

    class Echo:
        name = "echo"
        summary = "Tell what it was told"
        requires_torch = False
        Params = EchoParams

        def __init__(self, params): self.params = params
        def prepare(self, context): pass
        def run(self, context):
            print("noise on standard output")
            os.system("echo noise of a child process")
            params = self.params.model_dump(mode="json")
            return EchoResult(strategy="echo", params=params, config_seed=context.config.seed)

    @hookimpl
    def townlet_train_strategies():
        return [Echo]
"""


SPEAKING = ["--help", "config --help", "config show --help", "strategies list", "strategies list --json"]


def townlet_train(arguments: str, **streams: Any) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own."""
    command = [sys.executable, "-m", "townlet_train", *arguments.split()]
    return subprocess.run(command, text=True, check=False, timeout=60, **streams)


def strategy_that(body: str) -> str:
    """A plugin whose strategy `coin` runs this."""
    run = "def run(self, context):\n" + textwrap.indent(textwrap.dedent(body).strip(), "    ")
    plain = 'def run(self, context): return TrainingResultDTO(strategy="coin")'
    return textwrap.dedent(COIN).replace(plain, textwrap.indent(run, "    ").lstrip())


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the search path, whose modules are forgotten afterwards; runs leave their files beside it."""
    folder = tmp_path / "site"
    folder.mkdir()
    before = set(sys.modules)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    yield folder
    for name in set(sys.modules) - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict]:
    code, out, _ = call(capsys, *arguments, "--json")
    assert out.count("\n") == 1
    return code, json.loads(out)


def test_help_names_every_command_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "--help")
    assert code == ExitCode.OK
    for name, entry in COMMANDS.items():
        assert f"  {name} " in out
        assert entry.help[:30] in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_loads_and_explains_itself(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    code, out, _ = call(capsys, name, "--help")
    assert code == ExitCode.OK
    assert f"Usage: townlet-train {name}" in out
    assert "--json" in out or "COMMAND" in out


def test_help_of_anneal_names_the_study_that_is_a_command_below_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, _ = call(capsys, "anneal", "--help")
    assert code == ExitCode.OK
    assert f"See also `anneal study`: {COMMANDS['anneal study'].help}" in " ".join(out.split())
    assert "See also" not in call(capsys, "bc", "--help")[1]


@pytest.mark.parametrize("command", ["evaluate", "gate", "rollout capture"])
def test_help_names_every_scripted_policy_there_is(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert {*SCRIPTED_NAMES} == {EXPERT, *SCRIPTED}
    assert SCRIPTED_HELP in " ".join(call(capsys, *command.split(), "--help")[1].split())


def test_without_arguments_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys)[:2] == call(capsys, "--help")[:2]


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "--version") == (0, f"townlet-train {__version__}\n", "")


WRONG = {
    "unknown command": (["strategie"], "No command named 'strategie'. Did you mean 'strategies'? Known: "),
    "unknown command of a group": (
        ["config", "shw"],
        "No command of townlet-train config named 'shw'. Did you mean 'show'? Known: import-upstream,",
    ),
    "no command of a group": (["config"], "See: townlet-train config --help"),
    "unknown option": (
        ["strategies", "list", "--jsn"],
        "No option '--jsn' for townlet-train strategies list. Did you mean '--json'?",
    ),
    "another library's option": (
        ["compare", "--out", "x"],
        "No option '--out' for townlet-train compare. See",
    ),
    "unknown option before": (["--vers"], "No option '--vers' for townlet-train. Did you mean '--version'?"),
    "unknown strategy": (["strategies", "show", "pppo"], "No strategy named 'pppo'."),
    "missing argument": (["strategies", "show"], "Missing argument 'name'"),
    "missing value": (["config", "show", "--seed"], "'--seed' requires an argument"),
    "wrong value": (["config", "show", "--seed", "x"], "Invalid value for '--seed'"),
    "wrong setting": (
        ["config", "show", "--set", "sed=1"],
        "Unknown setting 'sed' (--set). Did you mean 'seed'?",
    ),
    "missing file": (["config", "show", "--config", "no.yaml"], "Config file no.yaml does not exist."),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_command_line_is_told_in_a_sentence_and_ends_with_3(
    capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    arguments, sentence = WRONG[kind]
    code, out, err = call(capsys, *arguments)
    assert (code, out) == (ExitCode.USAGE, "")
    assert sentence in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("gate --returns a.json", "'--returns' requires 2 arguments. See: townlet-train gate --help"),
        ("ppo --gamma", "'--gamma' requires an argument. See: townlet-train ppo --help"),
        ("replay split --seed", "'--seed' requires an argument. See: townlet-train replay split --help"),
    ],
)
def test_a_value_that_is_missing_is_told_with_the_help_of_its_command(
    capsys: pytest.CaptureFixture[str], line: str, sentence: str
) -> None:
    code, out, err = call(capsys, *line.split())
    assert (code, out) == (ExitCode.USAGE, "")
    assert sentence in err


@pytest.mark.parametrize("kind", WRONG)
def test_with_json_a_wrong_command_line_is_one_document_too(
    capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    arguments, sentence = WRONG[kind]
    if kind == "missing value":
        arguments = ["config", "show", "--json", "--seed"]
        code, out, err = call(capsys, *arguments)
    else:
        code, out, err = call(capsys, *arguments, "--json")
    error = json.loads(out)["error"]
    assert (code, error["exit_code"]) == (ExitCode.USAGE, ExitCode.USAGE)
    assert sentence in error["message"]
    assert sentence in err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("townlet-train st", "strategies"),
        ("townlet-train strategies s", "show"),
        ("townlet-train bc --learn", "--learning-rate"),
        ("townlet-train nonsense x", ""),
        ("townlet-train config nonsense x", ""),
    ],
)
def test_the_shell_completes_commands_and_options(words: str, expected: str) -> None:
    variables = {
        "_TOWNLET_TRAIN_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    command = [sys.executable, "-m", "townlet_train"]
    result = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **variables}, check=True
    )
    assert (result.stdout.strip(), result.stderr) == (expected, "")


class TestStrategies:
    def test_the_list_says_where_each_strategy_comes_from(
        self, site: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        install(site, "coin-dist", COIN)
        install(site, "broken-dist", "1 / 0", version="0.3")
        code, listing = document(capsys, "strategies", "list")
        assert code == ExitCode.OK
        coin = next(record for record in listing["strategies"] if record["name"] == "coin")
        assert coin == {
            "name": "coin",
            "summary": "Flip a coin and report it",
            "requires_torch": False,
            "available": True,
            "reason": "",
            "distribution": "coin-dist",
            "version": "1.2",
        }
        broken = next(record for record in listing["plugins"] if record["status"] == "failed")
        assert (broken["distribution"], broken["version"]) == ("broken-dist", "0.3")
        assert "ZeroDivisionError" in broken["reason"]

    def test_the_table_shows_a_broken_plugin_and_its_reason(
        self, site: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        install(site, "broken-dist", "1 / 0")
        code, out, _ = call(capsys, "strategies", "list")
        assert code == ExitCode.OK
        assert "ZeroDivisionError: division by zero" in out
        assert "bc " in out

    @pytest.mark.parametrize(
        "arguments", [["--strict-plugins", "strategies", "list"], ["strategies", "list", "--strict-plugins"]]
    )
    def test_strict_plugins_fails_on_a_broken_one(
        self, site: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
    ) -> None:
        install(site, "broken-dist", "1 / 0")
        code, out, err = call(capsys, *arguments)
        assert (code, out) == (ExitCode.FAILED, "")
        assert "Plugin 'broken_dist' of broken-dist 1.2: ZeroDivisionError" in err

    def test_show_describes_every_param(self, site: Path, capsys: pytest.CaptureFixture[str]) -> None:
        install(site, "echo-dist", ECHO)
        _, shown = document(capsys, "strategies", "show", "echo")
        count, rate, *_ = shown["params"]
        assert count == {
            "name": "count",
            "option": "--count",
            "type": "int",
            "default": 3,
            "required": False,
            "limits": "> 0, <= 9",
            "description": "how often",
        }
        assert (rate["type"], rate["default"]) == ("float or none", None)
        types = {param["name"]: param["type"] for param in shown["params"]}
        assert (types["mode"], types["colour"], types["sizes"]) == ("loud|soft", "red|blue", "list of int")

        options = {param["name"]: param["option"] for param in shown["params"]}
        assert options["seed"] == "--set echo.seed="

    def test_asking_for_a_broken_plugin_by_name_tells_its_cause(
        self, site: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        install(site, "broken-dist", "1 / 0")
        code, _, err = call(capsys, "broken_dist")
        assert code == ExitCode.FAILED
        assert "ZeroDivisionError" in err


class TestGeneratedCommands:
    def test_every_shared_option_is_kept_from_params(self) -> None:
        assert SHARED.keys() <= TAKEN

    @pytest.mark.parametrize(
        ("typed", "meant"),
        [
            ("--lr", "--learning-rate"),
            ("--total-timesteps", "--timesteps"),
            ("--num-envs", "--n-envs"),
            ("--num-steps", "--n-steps"),
        ],
    )
    def test_what_other_libraries_call_an_option_is_understood(
        self, typed: str, meant: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        code, _, err = call(capsys, "ppo", typed, "1")
        assert code == ExitCode.USAGE
        assert f"No option '{typed}' for townlet-train ppo. Did you mean '{meant}'?" in err

    def test_options_of_every_type_reach_the_params(
        self, site: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        install(site, "echo-dist", ECHO)
        code, result = document(
            capsys,
            "echo",
            *("--count", "5", "--rate", "1e-3", "--fast", "--source", "a/b", "--mode", "loud"),
            *("--colour", "blue", "--sizes", "1,2", "--sizes", "3", "--words", "x,y", "--words", "2"),
            *("--pair", "4", "0.25", "--table", "{a: 1}", "--seed", "11"),
        )
        assert code == ExitCode.OK
        assert result["config_seed"] == 11
        assert result["params"] == {
            "count": 5,
            "rate": 0.001,
            "fast": True,
            "source": "a/b",
            "mode": "loud",
            "colour": "blue",
            "sizes": [1, 2, 3],
            "words": ["x,y", "2"],
            "pair": [4, 0.25],
            "table": {"a": 1},
            "seed": 7,
        }

    def test_options_beat_set_and_files_and_what_is_left_open_is_the_default(
        self, site: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        install(site, "echo-dist", ECHO)
        file = tmp_path / "run.yaml"
        file.write_text("seed: 5\necho: {count: 2, mode: loud, fast: true, seed: 1}\n")
        arguments = ("--config", str(file), "--set", "echo.count=4", "--no-fast")
        _, result = document(capsys, "echo", *arguments)
        params = result["params"]
        assert (params["count"], params["mode"], params["fast"], params["rate"]) == (4, "loud", False, None)
        assert (params["seed"], result["config_seed"]) == (1, 5)

    def test_help_shows_defaults_limits_and_choices(
        self, site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", "200")
        install(site, "echo-dist", ECHO)
        _, out, _ = call(capsys, "echo", "--help")
        plain = " ".join(out.split())
        assert "how often [> 0, <= 9; default: 3]" in plain
        assert "--mode <loud|soft>" in plain
        assert "--fast / --no-fast" in plain
        assert "--dry-run" in plain

    @pytest.mark.parametrize(
        ("arguments", "sentence"),
        [
            (["--count", "0"], "echo.count = 0 (option): expected greater than 0."),
            (["--count", "many"], "Invalid value for '--count'"),
            (["--mode", "shy"], "Invalid value for '--mode'"),
            (["--sizes", "1,x"], "echo.sizes.1 = 'x' (option): expected a valid integer"),
            (["--cont", "2"], "No option '--cont' for townlet-train echo. Did you mean '--count'?"),
            (["--set", "echo.cont=2"], "Unknown setting 'echo.cont' (--set). Did you mean 'echo.count'?"),
        ],
    )
    def test_a_wrong_param_is_refused_before_anything_is_written(
        self,
        site: Path,
        capsys: pytest.CaptureFixture[str],
        arguments: list[str],
        sentence: str,
        tmp_path: Path,
    ) -> None:
        install(site, "echo-dist", ECHO)
        code, _, err = call(capsys, "echo", *arguments)
        assert code == ExitCode.USAGE
        assert sentence in err
        assert not (tmp_path / "results").exists()

    def test_what_a_strategy_prints_stays_off_the_json(
        self, site: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        install(site, "echo-dist", ECHO)
        code, out, err = call(capsys, "echo", "--json")
        assert code == ExitCode.OK
        assert json.loads(out)["strategy"] == "echo"
        assert "noise on standard output" in err

    def test_not_even_what_a_child_process_prints_reaches_the_json(self, site: Path) -> None:
        install(site, "echo-dist", ECHO)
        command = [sys.executable, "-m", "townlet_train", "echo", "--json"]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        assert json.loads(result.stdout)["strategy"] == "echo"
        assert "noise of a child process" in result.stderr

    def test_a_dry_run_writes_nothing(
        self, site: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        install(site, "echo-dist", ECHO)
        code, _, _ = call(capsys, "echo", "--dry-run")
        assert code == ExitCode.OK
        assert not (tmp_path / "results").exists()

    def test_another_conda_environment_is_refused_with_4(
        self, site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        install(site, "echo-dist", ECHO)
        monkeypatch.setenv("CONDA_DEFAULT_ENV", "base")
        code, _, err = call(capsys, "echo", "--require-conda-env", "rocm")
        assert code == ExitCode.CONDA
        assert "'rocm' is required and 'base' is active. Run: conda activate rocm" in err
        assert call(capsys, "echo", "--require-conda-env", "base")[0] == ExitCode.OK

    def test_without_torch_a_torch_strategy_is_refused_and_nothing_is_written(
        self,
        site: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        monkeypatch.setattr("townlet_train.registry.discovery.torch_installed", lambda: False)
        install(site, "coin-dist", COIN.replace("requires_torch = False", "requires_torch = True"))
        code, failure = document(capsys, "coin")
        assert code == ExitCode.FAILED
        assert failure["error"]["type"] == "TorchNotAvailableError"
        assert "pip install 'townlet-train[torch]'" in failure["error"]["message"]
        assert not (tmp_path / "results").exists()


class TestEndings:
    def test_warnings_end_with_1_and_are_told_on_stderr(
        self, site: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        install(
            site, "coin-dist", strategy_that('return TrainingResultDTO(strategy="coin", warnings=("odd",))')
        )
        code, out, err = call(capsys, "coin", "--json")
        assert code == ExitCode.WARNINGS
        assert json.loads(out)["warnings"] == ["odd"]
        assert "Warning: odd" in err

    @pytest.mark.parametrize(
        ("body", "what"),
        [
            ("raise RuntimeError('edge')", "failed with RuntimeError: edge"),
            ("raise SystemExit(5)", "failed with SystemExit: 5"),
            ("return None", "returned NoneType, expected a TrainingResultDTO"),
        ],
    )
    def test_what_a_plugin_does_wrong_is_told_with_its_name_and_logged(
        self, site: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, body: str, what: str
    ) -> None:
        install(site, "coin-dist", strategy_that(body))
        code, out, err = call(capsys, "coin", "--json", "--output-dir", str(tmp_path / "run"))
        assert code == ExitCode.FAILED
        message = json.loads(out)["error"]["message"]
        assert message.startswith(f"Strategy 'coin' of coin-dist 1.2 {what}.")
        assert "Traceback" not in err
        (log,) = (tmp_path / "run/logs").glob("training_*.log")
        assert ("coin_dist.py" in log.read_text()) == body.startswith("raise")

    def test_an_unforeseen_exception_ends_with_2_and_tells_where_its_traceback_is(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        def edge(*arguments: object) -> None:
            raise RuntimeError("edge")

        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.setattr("tempfile.tempdir", None)
        monkeypatch.setattr("townlet_train.sim.feasibility.compute_budget", edge)
        code, out, err = call(capsys, "town", "show", "--json")
        assert code == ExitCode.FAILED
        assert "Unexpected RuntimeError: edge." in json.loads(out)["error"]["message"]
        assert "Traceback" not in err
        (log,) = tmp_path.glob("townlet-train-*.log")
        assert str(log) in err
        assert "test_cli.py" in log.read_text()

    def test_a_broken_pipe_inside_the_work_is_no_success(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def dead_worker(*arguments: object) -> None:
            raise BrokenPipeError

        monkeypatch.setattr("townlet_train.sim.feasibility.compute_budget", dead_worker)
        assert call(capsys, "town", "show")[0] == ExitCode.FAILED

    @pytest.mark.parametrize("command", SPEAKING)
    def test_a_reader_that_has_seen_enough_ends_the_program_as_sigpipe_would(self, command: str) -> None:
        read, write = os.pipe()
        os.close(read)
        ended = townlet_train(command, stdout=write, stderr=subprocess.PIPE)
        os.close(write)
        assert (ended.returncode, ended.stderr) == (ExitCode.READER_GONE, "")

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here that is full")
    @pytest.mark.parametrize("command", SPEAKING)
    def test_a_full_disk_below_standard_output_is_one_sentence(self, command: str) -> None:
        with open("/dev/full", "w") as full:
            ended = townlet_train(command, stdout=full, stderr=subprocess.PIPE)
        assert ended.returncode == ExitCode.FAILED
        assert ended.stderr == (
            "Error: Standard output cannot be written: No space left on device. Make room or get the rights, or "
            "write elsewhere.\n"
        )

    @pytest.mark.parametrize("command", SPEAKING)
    @pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
    def test_streams_closed_from_the_start_stop_nothing(self, command: str, closed: tuple[int, ...]) -> None:
        ended = townlet_train(command, preexec_fn=lambda: [os.close(number) for number in closed])
        assert ended.returncode == ExitCode.OK

    def test_an_error_stands_alone_where_nothing_was_begun(self) -> None:
        ended = townlet_train("evaluate nowhere.zip --env town", stderr=subprocess.PIPE)
        assert ended.returncode == ExitCode.CHECKPOINT
        assert ended.stderr.startswith("Error: Checkpoint nowhere.zip does not exist.")

    def test_errors_are_still_exit_codes_where_standard_error_takes_nothing(self) -> None:
        with open("/dev/full", "w") as full:
            assert townlet_train("evaluate", stdout=full, stderr=full).returncode == ExitCode.USAGE
            assert townlet_train("evaluate --json", stdout=full, stderr=full).returncode == ExitCode.USAGE

    def test_debug_shows_the_traceback(self, site: Path, capsys: pytest.CaptureFixture[str]) -> None:
        install(site, "coin-dist", strategy_that("raise RuntimeError('edge')"))
        code, _, err = call(capsys, "--debug", "coin")
        assert code == ExitCode.FAILED
        assert "Traceback" in err

    def test_ctrl_c_ends_with_7(self, site: Path, capsys: pytest.CaptureFixture[str]) -> None:
        install(site, "coin-dist", strategy_that("raise KeyboardInterrupt"))
        code, out, err = call(capsys, "coin", "--json")
        assert code == ExitCode.INTERRUPTED
        assert json.loads(out)["error"]["type"] == "Interrupted"
        assert "Interrupted" in err

    @pytest.mark.timeout(60)
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_stops_work_at_its_next_report(self, site: Path, number: signal.Signals) -> None:
        body = """
            import sys, time
            from townlet_train.api import Progress
            sys.stderr.write("ready\\n")
            sys.stderr.flush()
            for step in range(1000):
                time.sleep(0.02)
                context.report(Progress("tossing", step, 1000, {}))
        """
        install(site, "coin-dist", strategy_that(body))
        command = [sys.executable, "-m", "townlet_train", "coin", "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            assert process.stderr.readline() == "ready\n"
            process.send_signal(number)
            out, _ = process.communicate(timeout=30)
        assert process.returncode == ExitCode.INTERRUPTED
        assert number.name in json.loads(out)["error"]["message"]

    def test_the_module_and_the_script_are_the_same_program(self) -> None:
        script = Path(sys.executable).with_name("townlet-train")
        as_module = [sys.executable, "-m", "townlet_train"]
        for command in ([str(script)], as_module):
            result = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
            assert (result.returncode, result.stdout) == (0, f"townlet-train {__version__}\n")


class TestConfigCommands:
    def test_show_tells_where_values_come_from(self, capsys: pytest.CaptureFixture[str]) -> None:
        _, shown = document(capsys, "config", "show", "--origin", "--set", "seed=3")
        assert shown["config"]["seed"] == 3
        assert shown["origin"]["seed"] == "--set"
        assert len(shown["hash"]) == 64
        assert document(capsys, "config", "show")[1]["origin"] is None

    def test_the_schema_covers_every_setting_and_strategy(
        self, site: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        install(site, "echo-dist", ECHO)
        _, schema = document(capsys, "config", "schema")
        assert {"seed", "town", "rollout", "echo"} <= schema["properties"].keys()
        name = schema["properties"]["echo"]["$ref"].rpartition("/")[2]
        assert "count" in schema["$defs"][name]["properties"]
        table = call(capsys, "config", "schema")[1]
        assert "town.queue.cooldown_ticks" in table
        assert "echo.count" in table

    def test_validate_judges_each_file_and_ends_with_3_when_one_is_wrong(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
        good.write_text("seed: 1")
        bad.write_text("seed: -1")
        code, verdict = document(capsys, "config", "validate", str(good), str(bad))
        assert code == ExitCode.USAGE
        assert [file["valid"] for file in verdict["files"]] == [True, False]
        assert "expected greater than or equal to 0" in verdict["files"][1]["problems"][0]
        assert document(capsys, "config", "validate", str(good))[0] == ExitCode.OK

    def test_an_upstream_file_becomes_one_of_ours(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path, townlet_data: Path
    ) -> None:
        upstream = townlet_data / "configs/scenarios/queue_conflict.yaml"
        ours = tmp_path / "ours.yaml"
        arguments = ("config", "import-upstream", str(upstream), "--output", str(ours))
        code, imported = document(capsys, *arguments)
        assert code == ExitCode.OK
        assert ("seed", 5252) in {(item["target"], item["value"]) for item in imported["carried"][-20:]}
        assert document(capsys, "config", "show", "--config", str(ours))[1]["config"]["seed"] == 5252
        assert call(capsys, *arguments)[0] == ExitCode.USAGE
        assert call(capsys, *arguments, "--overwrite")[0] == ExitCode.OK
