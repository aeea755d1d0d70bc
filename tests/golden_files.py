"""Files of every schema version, kept so that later releases go on reading them: `python -m tests.golden_files`.

What is there is never written again. A new document, or a new version of one, adds a file; the old one stays and must
go on loading.
"""

from __future__ import annotations

import inspect
import os
import types
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from tests import promotions, recordings
from townlet_train import results
from townlet_train.files import to_json
from townlet_train.results import ResultDTO
from townlet_train.services.schemas import list_schemas

ROOT = Path(__file__).parent
GOLDEN = ROOT / "golden"
RESULTS = GOLDEN / "results"
SCHEMAS = ROOT.parent / "docs/schemas"
PLAIN = {str: "text", int: 1, float: 0.5, bool: True, Any: "anything"}
DOCUMENTS: dict[str, type[ResultDTO]] = {
    name: model
    for name, model in vars(results).items()
    if inspect.isclass(model) and issubclass(model, ResultDTO)
}


def golden_of(name: str) -> Path:
    """Where the result of this name has its golden file, in the version of today."""
    return RESULTS / f"{name}-{DOCUMENTS[name].model_fields['schema_version'].default}.json"


def example(model: type[BaseModel]) -> BaseModel:
    """An instance of a result with every field filled."""
    return model.model_validate(
        {
            name: field.default if name == "schema_version" else _value(field.annotation)
            for name, field in model.model_fields.items()
        }
    )


def _value(annotation: Any) -> Any:
    """Some value that a field of this type allows."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return _value(next(item for item in arguments if item is not type(None)))
    if origin is Literal:
        return arguments[0]
    if origin is tuple and arguments[-1] is Ellipsis:
        return (_value(arguments[0]),)
    if origin is tuple:
        return tuple(map(_value, arguments))
    if origin is dict:
        return {_value(arguments[0]): _value(arguments[1])}
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return example(annotation)
    if inspect.isclass(annotation) and issubclass(annotation, Enum):
        return next(iter(annotation))
    return PLAIN[annotation]


def write_missing() -> None:
    """Every schema as it is today, and the golden files that are not there yet."""
    list_schemas(SCHEMAS)
    RESULTS.mkdir(parents=True, exist_ok=True)
    for name, model in DOCUMENTS.items():
        if not golden_of(name).exists():
            document = example(model).model_dump(mode="json")
            golden_of(name).write_text(to_json(document, indent=1) + "\n", encoding="utf-8")
    os.chdir(GOLDEN)
    for store in ("npz", "memmap"):
        if not Path(f"capture-1-{store}").exists():
            recordings.capture(Path(f"capture-1-{store}"), ticks=6, seeds=(5,), store=store)
        if not Path(f"capture-1-vectors-{store}").exists():
            recordings.capture_vectors(Path(f"capture-1-vectors-{store}"), ticks=12, towns=1, store=store)
    if not Path("promotion-1.0.0").exists():
        Path("promotion-1.0.0").mkdir()
        promotions.history(Path("promotion-1.0.0"))
    if not Path("run-1.0.0").exists():
        from tests.short_runs import train

        train(Path("run-1.0.0"), timesteps=200, n_steps=100, batch_size=50, hidden_sizes=[4])
        for path in (*Path("run-1.0.0/logs").rglob("*"), *Path("run-1.0.0").glob("checkpoint_*.zip")):
            if path.is_file():
                path.unlink()


if __name__ == "__main__":
    write_missing()
