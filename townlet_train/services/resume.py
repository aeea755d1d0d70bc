"""Going on from a checkpoint: which one, with which settings, and whether that is still the same run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from townlet_train.config import RunConfig, flatten, nest
from townlet_train.data.checkpoint import Checkpoint, load_checkpoint, sorted_checkpoints
from townlet_train.errors import CheckpointError, UsageError
from townlet_train.files import sha256_of
from townlet_train.services.run_files import RUN
from townlet_train.services.runs import Resumed, read_run

LATEST = "latest"
MAY_CHANGE = ("seed", "evaluation.", "gate.")  # settings of the config; a strategy names those of its params
LENGTHS = ("timesteps", "n_epochs")  # params that say how long a run is
UNBEGUN = {"timestep": 0, "recorded": 0}  # how far a run has come that is yet to begin


class Found(NamedTuple):
    """Where a run goes on, what is known of it, and what was found on the way to it."""

    path: Path  # a checkpoint, or the run.json of a run that begins again
    algorithm: str
    state: Mapping[str, Any]  # its config, params and counters
    checkpoint: Checkpoint | None  # None: the run begins again from nothing
    sha256: str = ""  # of the checkpoint
    warnings: tuple[str, ...] = ()
    damaged: tuple[Path, ...] = ()  # newer checkpoints, passed over
    again: bool = False  # the run was killed before it saved any checkpoint, and begins as it began
    forked: bool = False  # the run that begins again was a fork

    def resumed(self, may_change: frozenset[str]) -> Resumed:
        """How far the run had come that goes on here, some of its params perhaps changed."""
        path = None if self.checkpoint is None or self.forked else self.path
        longer_by = next((f"--{name.replace('_', '-')}" for name in LENGTHS if name in may_change), None)
        return Resumed(
            path, self.state["timestep"], self.state["recorded"], self.damaged, self.again, longer_by
        )


def find_checkpoint(wanted: str, run_dir: Path) -> Found:
    """The checkpoint of that path, or the newest intact one in `run_dir` for "latest"; warnings name those passed over.

    Raises:
        CheckpointError: there is none, or the one that was named cannot be read.
    """
    if wanted != LATEST:
        return _read(Path(wanted))
    passed: dict[Path, str] = {}
    for path in reversed(sorted_checkpoints(run_dir)):
        try:
            return _read(path)._replace(warnings=tuple(passed.values()), damaged=tuple(passed))
        except CheckpointError as error:
            passed[path] = f"{error} An older one was taken."
    damaged = (
        f" that can be read: {next(iter(passed.values()))}"
        if passed
        else ". Name the run's directory with --output-dir."
    )
    raise CheckpointError(f"{run_dir} holds no checkpoint to resume from{damaged}")


def find_start(wanted: str, run_dir: Path) -> Found:
    """Where the run of `run_dir` goes on: as `find_checkpoint`; where it began, if it saved none before it was stopped.

    Raises:
        CheckpointError: there is neither, or what there is cannot be read.
        UsageError: the run's own document cannot be read.
    """
    if wanted == LATEST and not sorted_checkpoints(run_dir) and (run_dir / RUN).exists():
        document = read_run(run_dir / RUN)
        if document["status"] != "finished":
            return _beginning(run_dir / RUN, document)
    return find_checkpoint(wanted, run_dir)


def _beginning(path: Path, document: Mapping[str, Any]) -> Found:
    """What a run.json says of how its run began: from nothing, or from a checkpoint that lies elsewhere."""
    try:
        algorithm, start = document["strategy"], document["start"]
        config = RunConfig.model_validate(document["config"]).model_dump(mode="json")
        settings = {"config": config, "params": dict(document["params"])}
        if start is None:
            return Found(path, algorithm, settings | UNBEGUN, None, again=True)
        found, forked, sha256 = _read(Path(start["checkpoint"])), bool(start["fork"]), start["sha256"]
    except (LookupError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} does not say how its run began, and it saved no checkpoint. Begin anew with --overwrite."
        ) from error
    if found.sha256 != sha256:
        raise CheckpointError(
            f"{found.path} is no longer the file that the run of {path} began with, and it saved no checkpoint of its "
            f"own. Begin anew with --overwrite."
        )
    state = settings | UNBEGUN if forked else {**found.state, **settings}
    return found._replace(algorithm=algorithm, state=state, again=True, forked=forked)


def _read(path: Path) -> Found:
    checkpoint = load_checkpoint(path)
    return Found(path, checkpoint.info.algorithm, checkpoint.state, checkpoint, sha256_of(path))


def check_resumable(found: Found, algorithm: str) -> None:
    """Raise `CheckpointError` unless that algorithm trained what was found and it holds the state of its training."""
    path, checkpoint = found.path, found.checkpoint
    if found.algorithm != algorithm:
        raise CheckpointError(
            f"{path} was trained by {found.algorithm!r}, not by {algorithm!r}. "
            f"Resume it with `townlet-train {found.algorithm}`, or begin a new run with its policy by --fork, "
            f"an anneal by --clone."
        )
    if checkpoint is None or found.forked:
        return
    if checkpoint.training is None or not {"config", "params", "timestep", "recorded"} <= set(found.state):
        raise CheckpointError(
            f"{path} holds a policy and no state of its training. Resume from a checkpoint_<step>.zip, or begin a "
            f"new run with its policy by --fork."
        )


def continued_config(found: Found, given: Mapping[str, Any]) -> tuple[RunConfig, tuple[str, ...]]:
    """The run's config with what was given now, by dotted key; and a warning when that is another seed.

    Raises:
        CheckpointError: another environment was given.
        UsageError: something was given that would make it another run.
    """
    path, saved = found.path, dict(flatten(found.state["config"]))
    if given.get("env", saved["env"]) != saved["env"]:
        raise CheckpointError(f"{path} was trained in environment {saved['env']!r}, not in {given['env']!r}.")
    for key, value in given.items():
        if not key.startswith(MAY_CHANGE) and value != saved.get(key):
            raise _another_run(path, key, saved.get(key), value, ["evaluation"])
    config = RunConfig.model_validate(nest({**saved, **given, "seed": saved["seed"]}))
    seed = given.get("seed", saved["seed"])
    if seed == saved["seed"]:
        return config, ()
    return config, (
        f"{path} was trained with seed {saved['seed']}, which goes on; seed {seed} has no effect.",
    )


def check_same_params(found: Found, params: Mapping[str, Any], may_change: frozenset[str]) -> None:
    """Raise `UsageError` when params differ from the run's in more than what may change."""
    saved = found.state["params"]
    for key, value in params.items():
        if key not in may_change and key in saved and value != saved[key]:
            raise _another_run(found.path, key, saved[key], value, sorted(may_change))


def check_budget(found: Found, params: Mapping[str, Any]) -> None:
    """Raise `UsageError` when the run had come to its end before the checkpoint, and learned from all of it."""
    state = found.state
    beyond = state["timestep"] - (params.get("timesteps") or math.inf)
    if beyond >= (state.get("slots", 1) if state.get("unlearned") else 0):
        raise UsageError(
            f"{found.path} is at step {state['timestep']}, {params['timesteps']} are asked for. Raise --timesteps."
        )


def changed_keys(config: RunConfig, origin: Mapping[str, str], default: str) -> Iterator[tuple[str, Any]]:
    """What was said of a config, by dotted key; `origin` tells where values came from, where that is known."""
    if origin:
        leaves = flatten(config.model_dump(mode="json"))
        return ((key, value) for key, value in leaves if origin.get(key, default) != default)
    return flatten(config.model_dump(mode="json", exclude_unset=True))


def _another_run(path: Path, key: str, saved: object, given: object, may_change: list[str]) -> UsageError:
    allowed = f"only {', '.join(may_change)} may" if may_change else "nothing may"
    new = "a new run with its policy by --fork" if may_change else "a new run in another --output-dir"
    return UsageError(
        f"{key} is {saved!r} in {path} and {given!r} now, which makes it another run; {allowed} change. "
        f"Leave it out, or begin {new}."
    )
