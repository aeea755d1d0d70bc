"""The command line: the only place that knows Typer, and the one that turns errors into exit codes."""

from townlet_train.cli.app import main

__all__ = ["main"]
