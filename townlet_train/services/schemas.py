"""JSON Schemas of every document that the program prints or leaves, for programs that read them."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import FloatSchema

from townlet_train import results
from townlet_train.config import RunConfig
from townlet_train.data.checkpoint import CHECKPOINT_SCHEMA, CheckpointManifest
from townlet_train.data.manifest import FORMAT_VERSION
from townlet_train.data.schema import SampleManifest, SampleMetadata, StoreManifest
from townlet_train.data.storage import FORMAT_VERSION as SAMPLE_VERSION
from townlet_train.errors import UnknownNameError
from townlet_train.files import make_folder, write_json
from townlet_train.results import ResultDTO, SchemaRowDTO, SchemasDTO
from townlet_train.services.documents import MetricsLine, ResultsDocument, RunDocument
from townlet_train.services.promotion.ledger import Line
from townlet_train.services.runs import RUN_SCHEMA

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class _Known(NamedTuple):
    model: type[BaseModel]
    kind: str
    version: str


FILES: dict[str, _Known] = {
    "config": _Known(RunConfig, "file", "1.0.0"),
    "run": _Known(RunDocument, "file", RUN_SCHEMA),
    "metrics-line": _Known(MetricsLine, "file", RUN_SCHEMA),
    "results": _Known(ResultsDocument, "file", RUN_SCHEMA),
    "checkpoint-manifest": _Known(CheckpointManifest, "file", CHECKPOINT_SCHEMA),
    "capture-samples": _Known(SampleManifest, "file", str(FORMAT_VERSION)),
    "capture-store": _Known(StoreManifest, "file", str(FORMAT_VERSION)),
    "sample": _Known(SampleMetadata, "file", str(SAMPLE_VERSION)),
    "promotion-ledger-line": _Known(Line, "file", Line.model_fields["schema_version"].default),
}


PRINTED_BY: dict[str, str] = {
    "anneal": "AnnealSummaryDTO",
    "anneal study": "StudyDTO",
    "bc": "BCTrainingResultDTO",
    "card": "CardDTO",
    "compare": "CompareDTO",
    "demo": "DemoDTO",
    "doctor": "MachineDoctorDTO",
    "doctor town": "TownDoctorDTO",
    "evaluate": "EvaluationDTO",
    "export": "ExportDTO",
    "gate": "GateDTO",
    "minari export": "MinariDTO",
    "minari import": "MinariDTO",
    "plugins check": "PluginCheckDTO",
    "plugins freeze": "PluginPinsDTO",
    "plugins list": "PluginListDTO",
    "plugins new": "NewPluginDTO",
    "plugins show": "PluginDTO",
    "ppo": "PPOTrainingResultDTO",
    "promotion history": "PromotionHistoryDTO",
    "promotion promote": "PromotionStatusDTO",
    "promotion record": "PromotionStatusDTO",
    "promotion rollback": "PromotionStatusDTO",
    "promotion status": "PromotionStatusDTO",
    "promotion verify": "PromotionVerifyDTO",
    "replay convert": "ReplayRewriteDTO",
    "replay inspect": "ReplayInspectDTO",
    "replay merge": "ReplayRewriteDTO",
    "replay split": "ReplaySplitDTO",
    "replay stats": "ReplayStatsDTO",
    "replay validate": "ReplayValidateDTO",
    "rollout capture": "RolloutCaptureDTO",
    "runs diff": "RunDiffDTO",
    "runs gc": "RunsGcDTO",
    "runs list": "RunsListDTO",
    "runs show": "RunShowDTO",
    "runs tail": "RunTailDTO",
    "schema": "SchemasDTO",
    "town show": "TownBudgetDTO",
    "town warm-up": "KernelCacheDTO",
}
"""Which document each command prints with --json."""


class _Reported(GenerateJsonSchema):
    """A number that is not finite is null in our documents, so every number may be."""

    def float_schema(self, schema: FloatSchema) -> JsonSchemaValue:
        described = super().float_schema(schema)
        return described | {"type": ["number", "null"]} if described.get("type") == "number" else described


def documents() -> dict[str, _Known]:
    """Every document with a schema by name: files first, then results by the name of their DTO."""
    found = {
        name: _Known(model, "result", str(model.model_fields["schema_version"].default))
        for name, model in vars(results).items()
        if inspect.isclass(model) and issubclass(model, ResultDTO)
    }
    return FILES | dict(sorted(found.items()))


def list_schemas(output: Path | None = None) -> SchemasDTO:
    """Every document that has a schema; with `output`, each schema is written there as `{name}.json`."""
    known = documents()
    if output is not None:
        make_folder(output)
        for name in known:
            write_json(output / f"{name}.json", schema_of(name))
    rows = tuple(
        SchemaRowDTO(name=name, kind=each.kind, version=each.version, about=_about(each.model))
        for name, each in known.items()
    )
    return SchemasDTO(schemas=rows, output=None if output is None else str(output))


def schema_of(name: str) -> dict[str, Any]:
    """The JSON Schema of a document, by its name or by the command of ours that prints it, in any case.

    Raises:
        UnknownNameError: there is none of that name.
    """
    known = documents()
    called = {each.casefold(): each for each in known}
    called |= {each.casefold().removesuffix("dto"): each for each in known if each not in FILES}
    called |= PRINTED_BY | {each: each for each in FILES}
    if name.casefold() not in called:
        hint = (
            "A command of townlet-train itself names what it prints, too; results of plugins have none here."
        )
        raise UnknownNameError("schema", name, known, hint)
    name = called[name.casefold()]
    model, kind, version = known[name]
    if kind == "file":
        described = model.model_json_schema(mode="validation")
    else:
        described = model.model_json_schema(mode="serialization", schema_generator=_Reported)
        described["properties"]["non_finite"] = {
            "description": "JSON pointers to numbers that were not finite and are null",
            "items": {"type": "string"},
            "type": "array",
        }
    return {"$schema": DIALECT, "$id": f"townlet-train/{name}/{version}", **described}


def _about(model: type[BaseModel]) -> str:
    """The first sentence of a model's docstring."""
    return (inspect.getdoc(model) or "").partition("\n")[0]
