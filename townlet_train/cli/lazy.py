"""A command group that knows its commands by name and loads one only when it is called."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from townlet_train.cli import output
from townlet_train.cli.commands import COMMANDS
from townlet_train.cli.session import session_listing, session_registry
from townlet_train.errors import TownletTrainError, UnknownNameError
from townlet_train.registry import COMMAND, Offer, failed


def _without_adapters(params: list[Any]) -> list[Any]:
    """Flags that Typer acts on itself (--help and its kin), given False for a default instead of None.

    Typer reads None through a pydantic adapter, whose import would double the start-up of a command.
    """
    for param in params:
        if param.default is None and not param.expose_value and getattr(param, "is_flag", False):
            param.default = False
    return params


class QuickCommand(TyperCommand):
    """A command that starts without pydantic as long as none of its options needs it."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]  # as below
        """What is left of the arguments; an error says of which command it is, which Typer's parser forgets."""
        try:
            return super().parse_args(ctx, args)
        except typer.TyperException as error:
            if getattr(error, "ctx", ctx) is None:
                vars(error)["ctx"] = ctx
            raise

    def get_params(self, ctx: typer.Context) -> list[Any]:  # type: ignore[override]  # Typer hands over its public Context
        """The options, Typer's own included."""
        return _without_adapters(super().get_params(ctx))


class QuickGroup(TyperGroup):
    """A group that starts so."""

    def get_params(self, ctx: typer.Context) -> list[Any]:  # type: ignore[override]  # as above
        """The options, Typer's own included."""
        return _without_adapters(super().get_params(ctx))

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]  # as above
        """The command a name stands for.

        Raises:
            UnknownNameError: the group has none of that name.
        """
        if args[0] not in self.commands and not ctx.resilient_parsing:
            raise UnknownNameError(f"command of {ctx.command_path}", args[0], self.commands)
        return super().resolve_command(ctx, args)


class LazyGroup(QuickGroup):
    """Commands of the table and of the registry. Help and completion see stand-ins; a call loads the real one."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # as above
        """Names of all commands: strategies, our own, those of plugins."""
        return list(self._help_lines(ctx))

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]  # as above
        """A stand-in with the command's one line of help, or None."""
        line = self._help_lines(ctx).get(cmd_name)
        return None if line is None else TyperCommand(cmd_name, short_help=line, help=line)

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]  # as above
        """The command itself; while a shell completes, nothing where there is none.

        Raises:
            UnknownNameError: neither the table nor the registry knows the name.
        """
        n_words = 2 if " ".join(args[:2]) in COMMANDS else 1
        name, rest = " ".join(args[:n_words]), args[n_words:]
        try:
            return name, self._load(ctx, name), rest
        except TownletTrainError:
            if ctx.resilient_parsing:
                return None, None, rest
            raise

    def _load(self, context: typer.Context, name: str) -> Any:
        if name in COMMANDS:
            return _load_entry(name)
        registry = session_registry(context)
        offered = registry.offered(COMMAND)
        if name in offered:
            return _load_offered(offered[name])
        try:
            strategy = registry.find(name)
        except UnknownNameError:
            known = [*COMMANDS, *registry.classes, *offered]
            raise UnknownNameError("command", name, known, registry.hint(name)) from None
        from townlet_train.cli.generated import strategy_command

        return strategy_command(strategy, name)

    def _help_lines(self, context: typer.Context) -> dict[str, str]:
        strategies: dict[str, str] = {}
        listing = session_listing(context)
        clashes = listing.clashes
        for record in listing.strategies:
            line = record.summary
            if not record.available and record not in clashes:
                line = f"{line} (not available here)"
            strategies.setdefault(record.address if record in clashes else record.name, line)
        offered = {name: record.about for name, record in listing.offered(COMMAND).items()}
        ours = strategies | {name: entry.help for name, entry in COMMANDS.items()}
        return ours | offered | ours


def _load_entry(name: str) -> Any:
    entry = COMMANDS[name]
    module = import_module(entry.module)
    if hasattr(module, "command"):
        single = typer.Typer(rich_markup_mode=None, add_completion=False)
        single.command(name, cls=QuickCommand)(module.command)
        return typer.main.get_command(single)
    module.app.rich_markup_mode = None
    module.app.info.help = entry.help
    module.app.info.cls = QuickGroup
    for info in module.app.registered_commands:
        info.cls = QuickCommand
    group = typer.main.get_group(module.app)
    group.name = name
    return group


def _load_offered(offered: Offer) -> Any:
    """A command of a plugin, whose result is shown; what it raises that is no error of ours is told with its name."""
    app = offered.value
    app.pretty_exceptions_enable = False
    command = typer.main.get_command(app)
    command.name = offered.record.name
    _teach_environments(command)
    invoke = command.invoke

    def named(ctx: Any) -> Any:
        try:
            with output.lent_stdout():
                returned = invoke(ctx)
            return output.shown(returned)
        except (TownletTrainError, typer.Exit, typer.Abort, typer.TyperException, OSError, MemoryError):
            raise
        except (Exception, SystemExit) as error:
            raise failed(offered, error, "--debug shows its traceback.") from error

    command.invoke = named  # type: ignore[method-assign]  # one object of one invocation
    return command


def _teach_environments(command: Any) -> None:
    """Let the options `--env` of a command, and of those below it, take the names that plugins give environments."""
    for param in command.params:
        if "--env" in param.opts:
            param.callback = partial(_named_env, then=param.callback)
    for below in getattr(command, "commands", {}).values():
        _teach_environments(below)


def _named_env(context: Any, param: Any, value: Any, *, then: Callable[..., Any] | None) -> Any:
    """The id that an environment's name stands for, as the command's own callback would have it."""
    from townlet_train.config import RunConfig

    if isinstance(value, str) and not context.resilient_parsing:
        value = session_listing(context).with_env(RunConfig.model_validate({"env": value})).env
    return value if then is None else then(context, param, value)
