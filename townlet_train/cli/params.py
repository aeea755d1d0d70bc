"""A strategy's params model as options of a command, and as a description."""

from __future__ import annotations

import enum
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic_core import PydanticUndefined

from townlet_train.registry import StrategyRecord

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

# Options every strategy command has; a param of such a name is set through files and --set.
TAKEN = frozenset(
    {"config", "set", "sets", "preset", "seed", "env", "output_dir", "resume_from", "fork"}
    | {"dry_run", "overwrite", "require_conda_env", "verbose", "json", "json_output", "help", "context"}
)
_LIMITS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<=", "multiple_of": "multiple of"}


@dataclass(frozen=True)
class ParamDescription:
    """One param: its dotted setting, option, type, default and meaning."""

    name: str
    option: str
    type: str
    default: object
    required: bool
    limits: str
    description: str


@dataclass(frozen=True)
class StrategyDescription:
    """A strategy and its params."""

    name: str
    summary: str
    requires_torch: bool
    available: bool
    reason: str
    distribution: str
    version: str
    params: tuple[ParamDescription, ...]


def describe_strategy(record: StrategyRecord, params: type[BaseModel]) -> StrategyDescription:
    """What `strategies show` tells."""
    return StrategyDescription(
        name=record.name,
        summary=record.summary,
        requires_torch=record.requires_torch,
        available=record.available,
        reason=record.reason,
        distribution=record.distribution,
        version=record.version,
        params=tuple(_describe(record.name, name, field) for name, field in params.model_fields.items()),
    )


def option_name(field_name: str) -> str:
    """`learning_rate` as `--learning-rate`."""
    return f"--{field_name.replace('_', '-')}"


def option_annotation(name: str, field: FieldInfo) -> Any:
    """The annotation of a command's parameter that takes this field; it is None when the option is not given.

    Limits are checked by the model, with every other layer's values, so that they are told in one way.
    """
    cli_type = option_type(field.annotation)
    flag = f"{option_name(name)}/--no-{name.replace('_', '-')}" if cli_type is bool else option_name(name)
    metavar = None
    if get_origin(cli_type) is list:
        metavar = f"<{type_name(_item(field.annotation))}>"
    elif cli_type is str:
        metavar = f"<{type_name(_without_none(field.annotation))}>"
    option = typer.Option(flag, help=_help(field), metavar=metavar, show_default=False)
    return Annotated[cli_type | None, option]


def option_type(annotation: Any) -> Any:
    """The type a command line value is first read as; what has no counterpart there is read as text.

    >>> option_type(int | None), option_type(tuple[int, ...])
    (<class 'int'>, list[str])
    """
    plain = _without_none(annotation)
    if plain in (bool, int, float, str, Path) or (isinstance(plain, type) and issubclass(plain, enum.Enum)):
        return plain
    origin, arguments = get_origin(plain), get_args(plain)
    if origin is Literal and all(isinstance(choice, str) for choice in arguments):
        return plain
    item = _item(plain)
    if item is not None:
        return list[str] if item in (int, float, str, Path) else str
    if origin is tuple and all(item in (int, float, str, Path) for item in arguments):
        return plain
    return str


def given_values(params: type[BaseModel], options: Mapping[str, object]) -> dict[str, object]:
    """The options that were given, as values for the params model."""
    from townlet_train.config.documents import parse_value

    values: dict[str, object] = {}
    for name, value in options.items():
        if value is None:
            continue
        plain = _without_none(params.model_fields[name].annotation)
        if isinstance(value, list) and _item(plain) in (int, float):
            values[name] = [parse_value(item) for text in value for item in str(text).split(",")]
        elif isinstance(value, str) and plain is not str and option_type(plain) is str:
            values[name] = parse_value(value)
        else:
            values[name] = value
    return values


def _describe(strategy: str, name: str, field: FieldInfo) -> ParamDescription:
    required = field.is_required()
    return ParamDescription(
        name=name,
        option=f"--set {strategy}.{name}=" if name in TAKEN else option_name(name),
        type=type_name(field.annotation),
        default=None if required else plain_default(field),
        required=required,
        limits=limits(field),
        description=field.description or "",
    )


def plain_default(field: FieldInfo) -> object:
    """A field's default as plain JSON values."""
    from pydantic_core import to_jsonable_python

    default = field.default
    if field.default_factory is not None:
        try:
            default = field.default_factory()  # type: ignore[call-arg]  # one that takes the other values raises
        except TypeError:
            return "computed"
    return None if default is PydanticUndefined else to_jsonable_python(default, fallback=str)


def type_name(annotation: Any) -> str:
    """A type as a person writes it.

    >>> type_name(int | None), type_name(Literal["a", "b"]), type_name(tuple[int, ...])
    ('int or none', 'a|b', 'list of int')
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        names = [type_name(item) for item in arguments if item is not type(None)]
        return " or ".join([*names, *(["none"] if type(None) in arguments else [])])
    if origin is Literal:
        return "|".join(str(choice) for choice in arguments)
    if origin is Annotated:
        return type_name(arguments[0])
    if _item(annotation) is not None:
        return f"list of {type_name(_item(annotation))}"
    if origin is tuple:
        return ", ".join(type_name(item) for item in arguments)
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return "|".join(str(member.value) for member in annotation)
    return getattr(annotation, "__name__", str(annotation)).lower()


def _help(field: FieldInfo) -> str:
    facts = [limits(field)] if limits(field) else []
    if _item(field.annotation) is not None:
        facts.append("repeatable")
    if field.is_required():
        facts.append("required")
    else:
        default = plain_default(field)
        facts.append("default: none" if default is None else f"default: {_shown(default)}")
    return f"{field.description or type_name(field.annotation)}  [{'; '.join(facts)}]"


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return "yes" if default else "no"
    if isinstance(default, list):
        return " ".join(str(item) for item in default) or "none"
    return str(default)


def limits(field: FieldInfo) -> str:
    """The bounds of a field's value, e.g. `>= 0, < 1`."""
    found = [
        f"{sign} {getattr(constraint, limit)}"
        for constraint in field.metadata
        for limit, sign in _LIMITS.items()
        if getattr(constraint, limit, None) is not None
    ]
    return ", ".join(found)


def _item(annotation: Any) -> Any:
    """X of a list, set or tuple of any number of X, or None."""
    plain = _without_none(annotation)
    origin, arguments = get_origin(plain), get_args(plain)
    of_any_length = origin in (list, set, frozenset) or (origin is tuple and arguments[-1:] == (Ellipsis,))
    return arguments[0] if of_any_length and arguments else None


def _without_none(annotation: Any) -> Any:
    """X of `X | None` and of Annotated[X, ...]; another union stays as it is."""
    if get_origin(annotation) is Annotated:
        return _without_none(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        options = [item for item in get_args(annotation) if item is not type(None)]
        return _without_none(options[0]) if len(options) == 1 else annotation
    return annotation
