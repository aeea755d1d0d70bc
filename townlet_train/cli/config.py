"""`townlet-train config`: what a run would be told, what it may be told, and settings from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from townlet_train.cli.options import ConfigFiles, Env, JsonOutput, Overwrite, Preset, Seed, Sets
from townlet_train.cli.output import emit, write
from townlet_train.cli.session import load_settings, session_registry
from townlet_train.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from pydantic import BaseModel

app = typer.Typer()


@dataclass(frozen=True)
class ShownConfig:
    """A resolved config."""

    hash: str
    config: dict[str, Any]
    origin: dict[str, str] | None = None


@dataclass(frozen=True)
class CheckedFile:
    """Whether a file's settings could be used, and what stands against it."""

    file: str
    valid: bool
    problems: tuple[str, ...]


@dataclass(frozen=True)
class CheckedFiles:
    """One verdict per file."""

    files: tuple[CheckedFile, ...]


@app.command()
def show(
    context: typer.Context,
    origin: Annotated[bool, typer.Option("--origin", help="Tell where each value comes from.")] = False,
    config: ConfigFiles = None,
    sets: Sets = None,
    preset: Preset = None,
    seed: Seed = None,
    env: Env = None,
    json_output: JsonOutput = False,
) -> int:
    """Show every setting a run would use: defaults < preset < files < environment < --set < options."""
    from townlet_train.config.layers import flatten

    settings = load_settings(
        context, files=config, preset=preset, sets=sets, named={"seed": seed, "env": env}
    )
    resolved = {**settings.config.model_dump(mode="json"), **settings.sections}
    if json_output:
        shown = ShownConfig(settings.hash, resolved, dict(settings.origin) if origin else None)
        return emit(shown, json_output=True)
    rows = tuple(
        {"setting": key, "value": value, **({"origin": settings.origin[key]} if origin else {})}
        for key, value in flatten(resolved)
    )
    return emit(_Rows(rows), json_output=False)


@app.command()
def schema(context: typer.Context, json_output: JsonOutput = False) -> int:
    """Describe every setting; with --json as a JSON Schema that editors understand."""
    from townlet_train.config import RunConfig

    params = session_registry(context).params()
    if json_output:
        from townlet_train.files import to_json

        write(to_json(json_schema(RunConfig, params)))
        return ExitCode.OK
    rows = list(_setting_rows(RunConfig, ""))
    for name, model in params.items():
        rows += _setting_rows(model, f"{name}.")
    return emit(_Rows(tuple(rows)), json_output=False)


@app.command()
def validate(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(help="Settings files, each checked by itself.")],
    json_output: JsonOutput = False,
) -> int:
    """Check settings files; exit 3 when any is wrong."""
    from townlet_train.config import load
    from townlet_train.errors import ConfigError

    def check(path: Path) -> CheckedFile:
        try:
            load(files=[path], environ={}, sections=lambda: session_registry(context).params())
        except ConfigError as error:
            return CheckedFile(str(path), False, tuple(str(error).splitlines()))
        return CheckedFile(str(path), True, ())

    checked = CheckedFiles(tuple(check(path) for path in files))
    emit(checked, json_output=json_output)
    return ExitCode.OK if all(file.valid for file in checked.files) else ExitCode.USAGE


@app.command("import-upstream")
def import_upstream(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="Upstream Townlet config, or its file of affordances.")],
    output: Annotated[
        Path | None, typer.Option("--output", help="YAML file to write the settings to.")
    ] = None,
    overwrite: Overwrite = False,
    json_output: JsonOutput = False,
) -> int:
    """Translate an upstream Townlet file, and list what was carried over and what was not, with the reason.

    Settings the file leaves to upstream's defaults stay at ours; add --preset upstream-2025 for upstream's town.
    """
    from townlet_train.config.upstream import import_upstream as translate

    if output is not None and output.exists() and not overwrite:
        raise UsageError(f"{output} already exists. Choose another name or add --overwrite.")
    imported = translate(file, session_registry(context).params())
    if output is not None:
        import yaml

        from townlet_train.files import write_bytes

        text = yaml.safe_dump(imported.config, sort_keys=False, allow_unicode=True)
        write_bytes(output, text.encode())
    shown = imported if json_output else replace(imported, config={})
    return emit(shown, json_output=json_output)


def json_schema(config: type[BaseModel], params: Mapping[str, type[BaseModel]]) -> dict[str, Any]:
    """A JSON Schema of a settings file: the run's config and one section for each strategy."""
    from pydantic.json_schema import models_json_schema

    refs, shared = models_json_schema(
        [(model, "validation") for model in (config, *params.values())],
        title="townlet-train settings",
    )
    definitions = shared["$defs"]
    root = definitions.pop(refs[config, "validation"]["$ref"].rpartition("/")[2])
    for name, model in params.items():
        root["properties"][name] = refs[model, "validation"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **root, "$defs": definitions}


@dataclass(frozen=True)
class _Rows:
    """Rows of a table without other values."""

    settings: tuple[dict[str, Any], ...]


def _setting_rows(model: type[BaseModel], prefix: str) -> list[dict[str, Any]]:
    """One row per setting below a model."""
    from pydantic import BaseModel

    from townlet_train.cli.params import limits, plain_default, type_name

    rows: list[dict[str, Any]] = []
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            rows += _setting_rows(annotation, f"{prefix}{name}.")
            continue
        row = {
            "setting": f"{prefix}{name}",
            "type": type_name(annotation),
            "default": "required" if field.is_required() else plain_default(field),
            "limits": limits(field),
            "description": field.description or "",
        }
        rows.append(row)
    return rows
