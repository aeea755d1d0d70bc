"""`townlet-train plugins`: what is installed, what became of it, and what a plugin author begins and ends with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from townlet_train.cli.options import ConfigFiles, Env, JsonOutput, Preset, Sets
from townlet_train.cli.output import emit, log_to_stderr, reporting, write
from townlet_train.cli.session import load_settings, session_listing, session_registry
from townlet_train.errors import ExitCode

if TYPE_CHECKING:
    from townlet_train.contract import TrainingStrategy
    from townlet_train.registry import Listing, OfferRecord, PluginRecord, Registry

app = typer.Typer()

Name = Annotated[str, typer.Argument(help="Name of a plugin, its distribution or one of its strategies.")]


@app.command()
def new(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the strategy, e.g. my-strategy.")],
    torch: Annotated[bool, typer.Option("--torch", help="A method that learns by gradients.")] = False,
    output_dir: Annotated[
        Path, typer.Option("--output-dir", help="Where the distribution's folder goes.", show_default=False)
    ] = Path(),
    json_output: JsonOutput = False,
) -> int:
    """Write a distribution with a strategy that runs and a test that passes, to change into your own."""
    from townlet_train.cli.commands import COMMANDS
    from townlet_train.testing.scaffold import write_plugin

    strategies = {record.name for record in session_listing(context).strategies}
    words = {word for command in COMMANDS for word in command.split()}
    result = write_plugin(name, output_dir, torch=torch, taken=strategies | words)
    return emit(result, json_output=json_output)


@app.command("list")
def list_plugins(context: typer.Context, json_output: JsonOutput = False) -> int:
    """List plugins: distribution, version, what became of each, and how long it took to load."""
    from townlet_train.results import PluginListDTO, PluginRowDTO

    listing = session_listing(context)
    rows = tuple(
        PluginRowDTO(
            name=plugin.name,
            distribution=plugin.distribution,
            version=plugin.version,
            status=plugin.status,
            load_ms=plugin.load_ms,
            strategies=_strategies(listing, plugin),
            offers=_kinds(listing, plugin),
            reason=plugin.reason,
            traceback=plugin.traceback,
        )
        for plugin in listing.plugins
    )
    return emit(PluginListDTO(plugins=rows), json_output=json_output)


@app.command()
def show(context: typer.Context, name: Name, json_output: JsonOutput = False) -> int:
    """Show a plugin: all it brings, or why it did not load, with the whole traceback."""
    from townlet_train.results import OfferDTO, PluginDTO

    registry = session_registry(context)
    plugin = registry.plugin(name)
    result = PluginDTO(
        name=plugin.name,
        distribution=plugin.distribution,
        version=plugin.version,
        status=plugin.status,
        load_ms=plugin.load_ms,
        strategies=_strategies(registry.listing, plugin),
        experts=_experts(registry.listing, plugin),
        offers=tuple(
            OfferDTO(kind=offer.kind, name=offer.name, about=offer.about)
            for offer in _offers(registry.listing, plugin)
        ),
        reason=registry.listing.reason(plugin),
        traceback=plugin.traceback,
    )
    return emit(result, json_output=json_output)


@app.command()
def freeze(context: typer.Context, json_output: JsonOutput = False) -> int:
    """Print the distributions of the plugins in use with their versions, as pip reads them."""
    from townlet_train.registry import PluginStatus
    from townlet_train.results import PluginPinsDTO

    used = (plugin for plugin in session_listing(context).plugins if plugin.status is PluginStatus.OK)
    known = sorted({(plugin.distribution, plugin.version) for plugin in used if plugin.known})
    result = PluginPinsDTO(pins=tuple(f"{distribution}=={version}" for distribution, version in known))
    if json_output:
        return emit(result, json_output=True)
    write("\n".join(result.pins))
    return ExitCode.OK


@app.command()
def check(
    context: typer.Context,
    name: Name,
    env: Env = None,
    config: ConfigFiles = None,
    sets: Sets = None,
    preset: Preset = None,
    json_output: JsonOutput = False,
) -> int:
    """Try every rule of the contract on a plugin's strategies, in short runs; a broken rule ends it with 2.

    Params that nobody sets are small where they are long by default, and the environment is CartPole-v1.
    """
    import logging

    from townlet_train.config import DEFAULT
    from townlet_train.envs.build import build_env
    from townlet_train.results import PluginCheckDTO, RuleDTO
    from townlet_train.testing.conformance import SMALL_WORLD, examine_strategy

    registry = session_registry(context)
    strategies = _to_check(registry, name)
    settings = load_settings(context, files=config, preset=preset, sets=sets, named={"env": env})
    world = settings.config
    if settings.origin["env"] == DEFAULT:
        world = world.model_copy(update={"env": SMALL_WORLD["env"]})
    else:
        build_env(registry.listing.with_env(world), 1).close()  # one that cannot be is no reason to skip
    log_to_stderr()
    for handler in logging.getLogger().handlers:
        handler.setLevel(logging.ERROR)  # of many short runs nobody reads the lines
    rules: list[RuleDTO] = []
    with reporting() as report:
        for strategy in strategies:
            section = settings.section(strategy.name)
            rules += examine_strategy(strategy, section, config=world, registry=registry, report=report)
    passed = not any(rule.outcome == "failed" for rule in rules)
    emit(PluginCheckDTO(name=name, passed=passed, rules=tuple(rules)), json_output=json_output)
    return ExitCode.OK if passed else ExitCode.FAILED


def _to_check(registry: Registry, name: str) -> list[type[TrainingStrategy]]:
    """The strategy of a name, or those of the plugin or distribution of it.

    Raises:
        PluginError: the plugin did not load, or brings no strategy.
        UnknownNameError: there is neither.
    """
    from townlet_train.errors import PluginError
    from townlet_train.registry import PluginStatus

    if name in registry.classes or name in registry.addresses:
        return [registry.find(name)]
    plugin = registry.plugin(name)
    if plugin.status is not PluginStatus.OK:
        raise PluginError(str(plugin))
    addresses = [f"{plugin.distribution}:{found}" for found in _strategies(registry.listing, plugin)]
    if not addresses:
        raise PluginError(f"Plugin {plugin.name!r} of {plugin.distribution} brings no strategy to check.")
    return [registry.find(address) for address in dict.fromkeys(addresses)]


def _strategies(listing: Listing, plugin: PluginRecord) -> tuple[str, ...]:
    """Names of what a plugin's distribution brings."""
    return tuple(found.name for found in listing.strategies if found.distribution == plugin.distribution)


def _experts(listing: Listing, plugin: PluginRecord) -> tuple[str, ...]:
    """Environments that the experts of a plugin's distribution play."""
    return tuple(
        found.env
        for found in listing.experts
        if found.distribution == plugin.distribution and not found.reason
    )


def _offers(listing: Listing, plugin: PluginRecord) -> list[OfferRecord]:
    """What a plugin's distribution brings beside strategies and experts, and is used."""
    return [
        found for found in listing.offers if found.distribution == plugin.distribution and not found.reason
    ]


def _kinds(listing: Listing, plugin: PluginRecord) -> tuple[str, ...]:
    """Each kind of what it brings beside strategies, with its name, or how many there are."""
    names: dict[str, list[str]] = {}
    for found in _offers(listing, plugin):
        names.setdefault(found.kind, []).append(found.name)
    names |= {"expert": [*experts]} if (experts := _experts(listing, plugin)) else {}
    return tuple(
        f"{kind} {each[0]}" if len(each) == 1 else f"{len(each)} {kind}s" for kind, each in names.items()
    )
