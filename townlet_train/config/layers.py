"""From layers of settings to one frozen config, remembering where each value came from.

Later layers win: defaults < preset < files in the order given < environment < `--set` < named options. Lists
are replaced whole, mappings are merged. A key nobody knows is an error: key, place and likely word.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from townlet_train.config.documents import Document, parse_value, read_document
from townlet_train.config.run import RunConfig, config_hash
from townlet_train.errors import ConfigError, UnknownNameError, UsageError, suggestion

ENVIRONMENT_PREFIX = "TOWNLET_TRAIN__"
DEFAULT = "default"

Sections = Callable[[], Mapping[str, type[BaseModel]]]


@dataclass(frozen=True)
class Settings:
    """A resolved config, the settings under strategies' names, and where every value came from."""

    config: RunConfig
    sections: Mapping[str, Mapping[str, object]]
    origin: Mapping[str, str]

    @property
    def hash(self) -> str:
        """Hex sha256 of the resolved config."""
        return config_hash(self.config)

    def section(self, name: str) -> dict[str, object]:
        """What was set under a strategy's name, as given."""
        return dict(self.sections.get(name, {}))


class _Setting(NamedTuple):
    value: Any
    source: str
    document: Document | None = None  # it was written in

    def where(self, path: str) -> str:
        """Where it was said, or what is below it at that dotted key."""
        return self.source if self.document is None else self.document.source(path)


def load(
    *,
    files: Iterable[Path] = (),
    preset: str | None = None,
    sets: Iterable[str] = (),
    named: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    sections: Sections = dict,
) -> Settings:
    """Merge the layers, refuse what nobody knows, validate the rest.

    Args:
        named: values of named options by dotted key; None means that the option was not given.
        environ: the process environment unless told otherwise.
        sections: the params model of each strategy by name; asked only when a layer mentions a section.

    Raises:
        ConfigError: a file, key or value is wrong; one sentence for each.
    """
    layers = [
        *([_preset(preset)] if preset else []),
        *(read_document(path) for path in files),
    ]
    defaults = RunConfig().model_dump(mode="json")
    leaves = {key: _Setting(value, DEFAULT) for key, value in flatten(defaults)}
    for document in layers:
        said = flatten(document.values)
        leaves |= {key: _Setting(value, document.source(key), document) for key, value in said}
    leaves |= _environment(os.environ if environ is None else environ)
    leaves |= _sets(sets)
    for key, value in (named or {}).items():
        leaves |= {} if value is None else _spread(key, value, "option")

    models: dict[str, type[BaseModel]] = {}
    if any(_top(key) not in RunConfig.model_fields for key in leaves):
        models = dict(sections())
    leaves = {key: setting for key, setting in leaves.items() if not _says_nothing(key, setting, models)}
    nested = nest({key: setting.value for key, setting in leaves.items()})
    config = _validate({name: values for name, values in nested.items() if name not in models}, leaves)
    given = {name: nested[name] for name in nested if name in models}
    for name, values in given.items():
        _validate_section(models[name], name, values, leaves)
    return Settings(config, given, _origins(config, given, leaves))


def check_key(key: str, source: str, sections: Mapping[str, type[BaseModel]]) -> type[BaseModel] | None:
    """Follow a dotted key down the models; the model it names, or None when it names a single value.

    Raises:
        ConfigError: a part of it names nothing; the sentence says which, from where, and what was meant.
    """
    model: type[BaseModel] | None = RunConfig
    walked: list[str] = []
    for part in key.split("."):
        if model is None:
            raise ConfigError(f"{key} ({source}) goes below {'.'.join(walked)}, which is a single value.")
        known = [*model.model_fields, *(sections if model is RunConfig else ())]
        if part not in known:
            path = ".".join([*walked, part])
            hint = _upstream_hint(key) if not walked else ""
            likely = suggestion(path, [".".join([*walked, name]) for name in known])
            raise ConfigError(f"Unknown setting {path!r} ({source}).{likely}{hint}")
        walked.append(part)
        if model is RunConfig and part in sections:
            model = sections[part]
        elif _takes_any_key(model.model_fields[part].annotation):
            return None
        else:
            model = _submodel(model.model_fields[part].annotation)
    return model


def _says_nothing(key: str, setting: _Setting, sections: Mapping[str, type[BaseModel]]) -> bool:
    """Whether this is a section's bare heading (`town:`); a value in a section's place is refused."""
    if check_key(key, setting.source, sections) is None:
        return False
    if setting.value is not None:
        raise ConfigError(f"{key} = {setting.value!r} ({setting.source}): expected a mapping of settings.")
    return True


def _validate(values: Mapping[str, object], leaves: Mapping[str, _Setting]) -> RunConfig:
    """The config of the merged values.

    Raises:
        ConfigError: one sentence for each value that does not fit.
    """
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_sentences(error, RunConfig, "", leaves))) from None


def _validate_section(
    model: type[BaseModel], name: str, values: Mapping[str, object], leaves: Mapping[str, _Setting]
) -> None:
    """Check what a strategy's section says; what it leaves open may still come from elsewhere.

    Raises:
        ConfigError: one sentence for each value that does not fit.
    """
    try:
        model.model_validate(values)
    except ValidationError as error:
        sentences = list(_sentences(error, model, name, leaves, missing=False))
        if sentences:
            raise ConfigError("\n".join(sentences)) from None


def preset_names() -> list[str]:
    """Names of the presets in the package."""
    folder = resources.files("townlet_train").joinpath("presets")
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def _preset(name: str) -> Document:
    if name not in preset_names():
        raise UnknownNameError("preset", name, preset_names())
    with resources.as_file(resources.files("townlet_train").joinpath("presets", f"{name}.yaml")) as path:
        return Document(f"preset {name}", read_document(path).values)


def _environment(environ: Mapping[str, str]) -> dict[str, _Setting]:
    """Settings from variables like TOWNLET_TRAIN__TOWN__N_AGENTS; TOWNLET_TRAIN_PLUGINS is none."""
    leaves: dict[str, _Setting] = {}
    for variable in sorted(environ):
        if variable.startswith(ENVIRONMENT_PREFIX):
            key = variable.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", ".")
            leaves |= _spread(key, parse_value(environ[variable]), f"environment {variable}")
    return leaves


def _sets(sets: Iterable[str]) -> dict[str, _Setting]:
    leaves: dict[str, _Setting] = {}
    for text in sets:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set takes KEY=VALUE, e.g. town.n_agents=4, not {text!r}.")
        leaves |= _spread(key.strip(), parse_value(value), "--set")
    return leaves


def _spread(key: str, value: object, source: str) -> dict[str, _Setting]:
    """A value that may itself be a mapping, as leaves."""
    if isinstance(value, dict) and value:
        return {f"{key}.{below}": _Setting(leaf, source) for below, leaf in flatten(value)}
    return {key: _Setting(value, source)}


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every value that is not a mapping; an empty mapping sets nothing."""
    for key, value in values.items():
        path = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, dict):
            yield from flatten(value, path)
        else:
            yield path, value


def nest(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted key as a tree; the inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for key, value in leaves.items():
        *parents, last = key.split(".")
        branch = tree
        for part in parents:
            if not isinstance(branch.get(part), dict):
                branch[part] = {}
            branch = branch[part]
        branch[last] = value
    return tree


def _top(key: str) -> str:
    return key.partition(".")[0]


def _submodel(annotation: object) -> type[BaseModel] | None:
    """The model an annotation names, alone or beside None."""
    models = [
        option
        for option in _options(annotation)
        if isinstance(option, type) and issubclass(option, BaseModel)
    ]
    return models[0] if len(models) == 1 else None


def _takes_any_key(annotation: object) -> bool:
    """Whether a field is a mapping whose keys are its own business."""
    return any(get_origin(option) is dict or option is dict for option in _options(annotation))


def _options(annotation: object) -> tuple[object, ...]:
    """The members of a union, or the annotation itself."""
    return get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)


def _sentences(
    error: ValidationError,
    model: type[BaseModel],
    prefix: str,
    leaves: Mapping[str, _Setting],
    *,
    missing: bool = True,
) -> Iterator[str]:
    """One sentence for each value pydantic refused: key, value, source, what was expected."""
    for problem in error.errors(include_url=False):
        if problem["type"] == "missing" and not missing:
            continue
        path = ".".join([*([prefix] if prefix else []), *(str(part) for part in problem["loc"])])
        expected = expectation(problem["msg"])
        owner = next((key for key in (path, *_parents(path)) if key in leaves), None)
        if problem["type"] == "missing":
            yield f"{path} is required and was not given."
        elif owner is None:
            yield f"{path or 'config'}: {expected}."
        elif problem["type"] == "extra_forbidden":
            likely = suggestion(str(problem["loc"][-1]), _beside(model, problem["loc"]))
            yield f"Unknown setting {path!r} ({leaves[owner].where(path)}).{likely}"
        else:
            yield f"{path} = {problem['input']!r} ({leaves[owner].where(path)}): {expected}."


def _beside(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """Names of the fields where pydantic found one too many, at that place below a model."""
    for part in location[:-1]:
        field = model.model_fields.get(str(part))  # none for an index
        if field is not None:
            held = [each for option in _options(field.annotation) for each in get_args(option) or (option,)]
            below = (each for each in held if isinstance(each, type) and issubclass(each, BaseModel))
            model = next(below, model)
    return list(model.model_fields)


def expectation(message: str) -> str:
    """Pydantic's message as the end of a sentence."""
    text = message.removeprefix("Value error, ").rstrip(".")
    return text.replace("Input should be", "expected", 1) if text.startswith("Input should be") else text


def _parents(path: str) -> Sequence[str]:
    parts = path.split(".")
    return [".".join(parts[:size]) for size in range(len(parts) - 1, 0, -1)]


def _origins(
    config: RunConfig, sections: Mapping[str, Mapping[str, Any]], leaves: Mapping[str, _Setting]
) -> dict[str, str]:
    resolved = [*flatten(config.model_dump(mode="json")), *flatten(dict(sections))]
    return {key: leaves[key].source for key, _ in resolved}


def _upstream_hint(key: str) -> str:
    upstream = {"config_id", "features", "rewards", "queue_fairness", "runtime", "behavior"}
    if _top(key) not in upstream:
        return ""
    return " An upstream Townlet file is converted with: townlet-train config import-upstream FILE"
