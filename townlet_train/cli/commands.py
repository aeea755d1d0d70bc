"""Every command of the program by name, with its one line of help, importing none of them.

A module named here offers either `app`, a `typer.Typer` with the commands of a group, or `command`, one
function. Strategies are not listed: each one the registry finds is a command too (`cli/generated.py`).
"""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """Where a command lives, and what it does in one line."""

    module: str
    help: str


COMMANDS: dict[str, Entry] = {
    "demo": Entry(
        "townlet_train.cli.demo", "From nothing to a released policy: capture, clone, anneal, gate, promote."
    ),
    "rollout": Entry("townlet_train.cli.rollout", "Capture demonstrations."),
    "replay": Entry(
        "townlet_train.cli.replay", "Look at demonstrations, check, split, convert and merge them."
    ),
    "evaluate": Entry(
        "townlet_train.cli.evaluate", "Measure a checkpoint or a scripted policy on fixed seeds."
    ),
    "gate": Entry(
        "townlet_train.cli.gate", "Judge candidates beside the released policy: PASS, HOLD or FAIL."
    ),
    "compare": Entry("townlet_train.cli.compare", "Compare training methods by their runs, not by episodes."),
    "anneal study": Entry(
        "townlet_train.cli.study", "Measure what each term of the warm start earns, seed by seed."
    ),
    "runs": Entry(
        "townlet_train.cli.runs", "List runs, look at them, compare them, free what they do without."
    ),
    "card": Entry("townlet_train.cli.card", "Write a model card from what a run wrote down."),
    "promotion": Entry(
        "townlet_train.cli.promotion", "Release what a gate passed, go back, and see what happened."
    ),
    "strategies": Entry(
        "townlet_train.cli.strategies", "List the training methods and describe their params."
    ),
    "plugins": Entry("townlet_train.cli.plugins", "List, show, pin, check and begin plugins."),
    "config": Entry("townlet_train.cli.config", "Show, describe, check and import configurations."),
    "export": Entry("townlet_train.cli.export", "Write a policy as onnx, safetensors, npz or torchscript."),
    "minari": Entry("townlet_train.cli.minari", "Read and write Minari datasets."),
    "schema": Entry("townlet_train.cli.schema", "Print JSON Schemas of what commands print and leave."),
    "town": Entry("townlet_train.cli.town", "Look at the embedded town and prepare its kernels."),
    "doctor": Entry("townlet_train.cli.doctor", "Measure whether things are as they should be."),
}
