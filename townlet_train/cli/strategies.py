"""`townlet-train strategies`: which training methods are installed, and what they can be told."""

from __future__ import annotations

from typing import Annotated

import typer

from townlet_train.cli.options import JsonOutput
from townlet_train.cli.output import emit, write
from townlet_train.cli.session import session_listing, session_registry

app = typer.Typer()


@app.command("list")
def list_strategies(
    context: typer.Context,
    json_output: JsonOutput = False,
    strict_plugins: Annotated[
        bool, typer.Option("--strict-plugins", help="Fail when any plugin is broken.")
    ] = False,
) -> int:
    """List strategies: summary, whether each can run here, and the plugin it comes from."""
    from dataclasses import replace

    from townlet_train.errors import PluginError

    listing = session_listing(context)
    if strict_plugins and listing.problems:
        raise PluginError("\n".join(listing.problems))
    if json_output:
        return emit(listing, json_output=True)
    broken = tuple(replace(plugin, traceback="") for plugin in listing.plugins if plugin.reason)
    unused = tuple(offer for offer in listing.offers if offer.reason)
    emit(replace(listing, plugins=broken, offers=unused), json_output=False)
    if any(plugin.broken for plugin in broken):
        write("\n--json shows the tracebacks of broken plugins.")
    return 0


@app.command()
def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of a strategy.")],
    json_output: JsonOutput = False,
) -> int:
    """Describe a strategy: its params with types, defaults and descriptions."""
    from townlet_train.cli.params import describe_strategy

    registry = session_registry(context)
    strategy = registry.find(name)
    return emit(describe_strategy(registry.record(name), strategy.Params), json_output=json_output)
