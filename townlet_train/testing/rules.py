"""What a strategy promises, rule by rule: a rule returns, or raises `BrokenRule` or `Unchecked` with a sentence."""

from __future__ import annotations

import copy
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from townlet_train.contract import Progress, TrainingContext
from townlet_train.errors import Interrupted, PluginError, TorchNotAvailableError, TownletTrainError
from townlet_train.testing.bench import Bench, BrokenRule, Trial, Unchecked, told, watching_prepare

HEAVY = ("gymnasium", "numba", "numpy", "torch")
IMPORT_TIMEOUT = 120.0  # seconds
LATE_STEPS = 1  # that a run may still go after a report that raised Interrupted, to end what it is in
MOST_SILENT_TICKS = 2048  # of its environments between two reports, or after the last
NOWHERE = "NoEnvironmentHasThisName-v0"


def check_params(bench: Bench) -> None:
    """Every param has a description, defaults are values the param takes, and params are frozen and strict."""
    model = bench.strategy.Params
    silent = [name for name, field in model.model_fields.items() if not (field.description or "").strip()]
    if silent:
        raise BrokenRule(
            f"{', '.join(silent)} of {model.__qualname__} has no description. Say what it does: "
            f"Field(..., description=...), which is its help."
        )
    for option, wanted, instead in (
        ("extra", "forbid", "takes keys that nobody declared"),
        ("frozen", True, "can be changed"),
    ):
        if model.model_config.get(option) != wanted:
            raise BrokenRule(f"{model.__qualname__} {instead}. Leave {option} as StrategyParams has it.")
    for name, field in model.model_fields.items():
        if not field.is_required():
            _check_default(model, name, field.get_default(call_default_factory=False))


def _check_default(model: type[Any], name: str, default: object) -> None:
    """pydantic takes a default as it is; whether the field would take it from a user shows in what it says of it."""
    try:
        model.model_validate({name: copy.deepcopy(default)})
    except ValidationError as error:
        own = [found for found in error.errors() if found["loc"][:1] == (name,) and default is not None]
        if own:
            raise BrokenRule(
                f"the default of {name} is {default!r}, which it does not take itself: {own[0]['msg']}."
            ) from error


def check_import(bench: Bench) -> None:
    """Importing the module that declares the strategy is cheap and quiet: it happens whenever strategies are listed."""
    module = bench.strategy.__module__
    code = (
        "import importlib, json, sys\n"
        f"try:\n    importlib.import_module({module!r})\n"
        f"except ModuleNotFoundError as error:\n"
        f"    if error.name and {module!r}.startswith(error.name): sys.exit(77)\n"
        f"    raise\n"
        f"print()\nprint(json.dumps(sorted(set({HEAVY!r}) & set(sys.modules))))\n"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            timeout=IMPORT_TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        raise BrokenRule(f"importing {module} takes more than {IMPORT_TIMEOUT:.0f} s.") from None
    if done.returncode == 77 or module == "__main__":
        raise Unchecked(f"A new process does not find its module {module!r}.")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BrokenRule(f"importing {module} in a new process fails: {last}")
    *printed, heavy = done.stdout.rstrip("\n").split("\n")
    brought = json.loads(heavy)
    if brought:
        raise BrokenRule(
            f"importing {module} brings {', '.join(brought)}, which every listing would wait for. Import "
            f"{'it' if len(brought) == 1 else 'them'} inside `prepare` and `run`."
        )
    if "".join(printed).strip():
        raise BrokenRule(f"importing {module} prints {printed[0][:60]!r}; print nothing on import.")


def check_prepare(bench: Bench) -> None:
    """`prepare` looks and changes nothing: no file, no random stream, no setting."""
    seen: list[dict[str, Any]] = []
    folder = bench.folder / "prepared"

    def look(context: TrainingContext) -> None:
        seen.append(
            {
                "draws from context.rng": copy.deepcopy(context.rng.bit_generator.state),
                "draws from Python's own random numbers": random.getstate(),
                "draws from NumPy's own random numbers": repr(np.random.get_state()),  # noqa: NPY002 - must not move
                "writes files": _files(folder),
                "changes the working directory": Path.cwd(),
                "changes the context": _settings(context),
            }
        )

    watched = watching_prepare(bench.strategy, look, look)
    bench.prepare("prepared", strategy=watched)
    before, after = seen
    for what, value in before.items():
        if value != after[what]:
            raise BrokenRule(f"`prepare` {what}; it may only look, since --dry-run ends after it.")


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder in a folder, with size and time."""
    stats = {path: path.stat() for path in sorted(folder.rglob("*"))}
    return {str(path): (found.st_size, found.st_mtime_ns) for path, found in stats.items()}


def _settings(context: TrainingContext) -> tuple[Any, ...]:
    """What a context says, as values."""
    return (
        context.config.model_dump_json(),
        context.config_hash,
        context.seed,
        context.run_dir,
        id(context.rng),
        id(context.services),
    )


def check_run(bench: Bench) -> None:
    """`run` comes to its end and returns a result that carries the strategy's name."""
    failure = bench.failure()
    if failure is not None:
        raise failure


def check_result(bench: Bench) -> None:
    """The result is the same after a way through JSON."""
    result = bench.whole().result
    kind = type(result)
    try:
        text = result.model_dump_json()
        again = kind.model_validate_json(text)
    except (ValidationError, ValueError, TypeError) as error:
        first = str(error).strip().splitlines()[0]
        raise BrokenRule(
            f"{kind.__qualname__} does not survive JSON: {first}. Use plain values and no aliases."
        ) from error
    if again.model_dump_json() != text:
        raise BrokenRule(f"{kind.__qualname__} is another after JSON. Use values that JSON keeps.")
    if kind.model_config.get("extra") != "forbid" or not kind.model_config.get("frozen"):
        raise BrokenRule(
            f"{kind.__qualname__} can be changed or takes unknown fields. Leave both as they are."
        )


def check_seed(bench: Bench) -> None:
    """The same seed gives the same result and the same lines, whatever global random generators are at."""
    whole = bench.whole()
    again = bench.run("again", noise=1)
    what = _difference(whole.found, again.found) or _lines_differ(whole, again)
    if not what and whole.weights != again.weights:
        what = "other weights"
    if what:
        raise BrokenRule(
            f"two runs with seed {bench.config.seed} differ: {what}. Draw from context.rng and from nothing else."
        )


def check_cancel(bench: Bench) -> None:
    """When `context.report` raises Interrupted, early or late, the run lets it pass; no service works in silence."""
    reports = bench.whole().reports
    if not reports:
        raise BrokenRule("`run` never calls context.report, so Ctrl-C cannot stop it. Report in every loop.")
    _check_stop(bench, "cancelled", reports[0])
    _check_stop(bench, "cancelled_late", reports[-1])
    if bench.silent:
        raise BrokenRule(
            f"`run` calls context.{bench.silent[0]} without `report`, so Ctrl-C is not heard while that lasts. "
            f"Hand it a function that calls context.report."
        )
    if bench.silent_ticks > MOST_SILENT_TICKS:
        raise BrokenRule(
            f"`run` steps its environments {bench.silent_ticks} ticks without a report, where Ctrl-C is not heard; "
            f"expected at most {MOST_SILENT_TICKS}. Report in every loop, and after a stop save and let it pass."
        )


def _check_stop(bench: Bench, name: str, moment: Progress) -> None:
    """Stop a run where an equal one reported this, and watch what it does then."""
    calls: list[Progress] = []

    def stop(progress: Progress) -> None:
        if calls or (progress.phase == moment.phase and progress.done >= moment.done):
            calls.append(progress)
            raise Interrupted("The check asks for a stop.")

    try:
        bench.run(name, report=stop)
    except Interrupted:
        first, last = calls[0], calls[-1]
        if len({(call.phase, call.done) for call in calls}) > 1 + LATE_STEPS:
            raise BrokenRule(
                f"`run` went on to {last.done} of {last.phase!r} after context.report raised Interrupted at "
                f"{first.done} of {first.phase!r}. End the step at hand, save, and let it pass."
            ) from None
        return
    except BrokenRule as broken:
        raise BrokenRule(f"`run` turns Interrupted into something else: {broken} Let it pass.") from broken
    if calls:  # a report that comes by the clock need not come again
        raise BrokenRule("`run` goes on to its end after context.report raised Interrupted. Let it pass.")


def check_resume(bench: Bench) -> None:
    """A run that is stopped in its middle and resumed is the run that was not stopped."""
    if bench.strategy.Params.may_change_on_resume is None:
        raise Unchecked("Its runs cannot be resumed: Params.may_change_on_resume is None.")
    whole = bench.whole()
    phase = whole.reports[0].phase if whole.reports else ""
    on_the_way = [p.done for p in whole.reports if p.phase == phase and 0 < p.done < p.total]
    if not on_the_way:
        raise Unchecked("It reports nothing between its beginning and its end. Hand the check more to do.")
    at, total = on_the_way[len(on_the_way) // 2], whole.reports[0].total

    def stop(progress: Progress) -> None:
        if progress.phase == phase and at <= progress.done < total:
            raise Interrupted("The check asks for a stop.")

    try:
        bench.run("resumed", report=stop)
    except Interrupted:
        pass
    else:
        raise Unchecked("It did not report in its middle this time. Hand the check more to do.")
    try:
        resumed = bench.run("resumed", resume_from="latest", noise=1)
    except (BrokenRule, Unchecked) as error:
        raise BrokenRule(f"a run stopped at {at} of {total} cannot be resumed: {error}") from error
    what = "other weights" if whole.weights != resumed.weights else _lines_differ(whole, resumed)
    if not whole.lines and not whole.weights:
        what = _difference(whole.found, resumed.found)
    if what:
        raise BrokenRule(
            f"a run stopped at {at} of {total} and resumed is another than one that was not stopped: {what}. "
            f"Save everything that what comes next depends on, random streams included."
        )


def check_errors(bench: Bench) -> None:
    """What cannot be is refused by `prepare` in a sentence, with an error that has an exit code."""
    if bench.strategy.requires_torch:
        bench.whole()  # says where torch is missing
    elsewhere = bench.config.model_copy(update={"env": NOWHERE})
    _refuses(bench, f"an environment that does not exist, env={NOWHERE!r},", config=elsewhere)
    for name in sorted(bench.paths):
        if bench.params.get(name) is not None:
            missing = bench.folder / "no_such_file"
            refused = _refuses(bench, f"{name}={missing}", params={**bench.params, name: missing})
            if not refused:
                raise BrokenRule(
                    f"`prepare` takes {name}={missing}, which does not exist. Fail there, not in `run`."
                )


def _refuses(bench: Bench, what: str, **changed: Any) -> bool:
    """Whether a dry run is refused; `BrokenRule` where that is not said as an error of ours."""
    try:
        bench.attempt("refused", dry_run=True, **changed)
    except TorchNotAvailableError as error:
        raise Unchecked(str(error)) from error
    except (PluginError, OSError) as error:
        raise BrokenRule(
            f"given {what} {told(error, '`prepare`')} Raise an error of townlet_train.api."
        ) from error
    except TownletTrainError as error:
        if not str(error).strip():
            raise BrokenRule(f"given {what} it raises {type(error).__name__} without a message.") from error
        return True
    return False


def _difference(first: Any, second: Any, where: str = "") -> str:
    """Where two documents differ first, with both values, or an empty string."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        for name in dict.fromkeys([*first, *second]):
            found = _difference(first.get(name), second.get(name), f"{where}.{name}" if where else str(name))
            if found:
                return found
        return ""
    return "" if first == second else f"{where} is {_short(first)} and {_short(second)}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _lines_differ(first: Trial, second: Trial) -> str:
    """The first of their recorded lines that differs, or an empty string."""
    ours, theirs = first.lines, second.lines
    for number, (one, other) in enumerate(zip(ours, theirs, strict=False), 1):
        what = _difference(one, other)
        if what:
            return f"line {number} of metrics.jsonl, {what}"
    return "" if len(ours) == len(theirs) else f"metrics.jsonl has {len(ours)} and {len(theirs)} lines"


RULES: Mapping[str, Callable[[Bench], None]] = {
    "params": check_params,
    "import": check_import,
    "prepare": check_prepare,
    "run": check_run,
    "result": check_result,
    "seed": check_seed,
    "cancel": check_cancel,
    "resume": check_resume,
    "errors": check_errors,
}
