"""The door plugins come through: hooks, of which a plugin has at least one.

A whole plugin is a module like this, named in the entry-point group `townlet_train` of its distribution:

    from townlet_train.api import StrategyParams, TrainingContext, TrainingResultDTO, hookimpl

    class Coin:
        name = "coin"
        summary = "Flip a coin and report it"
        requires_torch = False
        Params = StrategyParams

        def __init__(self, params): self.params = params
        def prepare(self, context): pass
        def run(self, context): return TrainingResultDTO(strategy="coin")

    @hookimpl
    def townlet_train_strategies():
        return [Coin]

A plugin that wants every number of every run, to draw it or to send it somewhere, has the other hook:

    class Printer:
        def record(self, line): print(line["timestamp"], line.get("loss"))
        def close(self): pass

    @hookimpl
    def townlet_train_logger(run_dir):
        return Printer()

A plugin that knows how an environment is played has the third, which names a function that builds who plays it:

    class WithTheSwing:
        name = "expert"
        def act(self, observation, uniforms): return (observation.features[..., 1] > 0) * 2

    @hookimpl
    def townlet_train_experts():
        return {"MountainCar-v0": lambda spec: WithTheSwing()}

Four more hooks name other things that a plugin has: environments, formats that checkpoints are exported to, checks
of the gate, and commands of its own.

    @hookimpl
    def townlet_train_commands():
        return {"hello": app}  # a typer.Typer: `townlet-train hello`

A plugin may say which version of this door it was written for: `TOWNLET_TRAIN_API = 1`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from pathlib import Path

    from townlet_train.contract import GateCheck, RunLogger, TrainingStrategy
    from townlet_train.data.checkpoint import Checkpoint
    from townlet_train.policies.experts import Experts

PROJECT = "townlet_train"
API_VERSION = 1

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def townlet_train_strategies() -> Iterable[type[TrainingStrategy]]:  # type: ignore[empty-body]  # a hook specification has no body
    """Strategy classes this plugin contributes. Importing their module must not import torch."""


@hookspec
def townlet_train_logger(run_dir: Path, recorded: int | None) -> RunLogger | None:
    """What is handed every line of one run, or None to leave that run alone.

    `run_dir` is locked and belongs to the run; what goes into `logs/<name of the plugin>/` is set aside with the run's
    other files when it is replaced. `recorded` is None for a run from nothing. For one that is resumed it is the
    timestep of the last line in its `metrics.jsonl`, which is cut back to that: lines with a larger one come anew.
    """


@hookspec
def townlet_train_experts() -> Experts:  # type: ignore[empty-body]  # a hook specification has no body
    """Who plays which environment: environment ids, and for each what builds its expert from an `EnvSpec`.

    An expert is a `Policy` without chance: the same observation, the same action, whatever else is in the batch and
    whatever draws come with it. Import what it needs when it is built; this is called for every command that acts.
    """


@hookspec
def townlet_train_environments() -> Mapping[str, str]:  # type: ignore[empty-body]  # a hook specification has no body
    """Environments by the id that `--env` takes, each the id of Gymnasium's with the module that registers it.

    As in `{"corridor": "my_plugin.envs:Corridor-v0"}`: any process can build it from that, and nothing is imported
    before.
    """


@hookspec
def townlet_train_exporters() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]  # a hook specification has no body
    """Formats by the name that `--format` takes, each a function that writes a checkpoint to a file in it.

    It is handed a `Checkpoint` and the path of an empty file, and what it wrote there lands at `--output`. A function
    that has an attribute `act`, another function, is proven: `act` is handed the file and random observations,
    arrays by name (`features` as (n, n_features) and, where actions are named, `action_mask`), and returns what the
    written policy puts out for them, (n, n_actions): logits, of which those of illegal actions do not count, or means.
    The file lands only if that is what the checkpoint puts out.
    """


@hookspec
def townlet_train_gate_checks() -> Mapping[  # type: ignore[empty-body]  # a hook specification has no body
    str, Callable[[Checkpoint], Iterable[str]] | type[GateCheck]
]:
    """Checks by name, each a function that takes a candidate and returns what it objects to, a sentence each.

    One that must be told something is a `GateCheck`: a class with `Params`, which are `gate.checks.NAME` of the
    settings. Any objection is a reason to FAIL before anything is played; a check that raises leaves the gate without
    a verdict.
    """


@hookspec
def townlet_train_commands() -> Mapping[str, Any]:  # type: ignore[empty-body]  # a hook specification has no body
    """Commands by name, each a `typer.Typer`. A name of ours is refused; one of a strategy stays the strategy's.

    A command returns an exit code, None, or a `ResultDTO`, which is shown as those of our commands are: as tables, or
    as one JSON document where the command has an option `--json` and was given it.
    """
