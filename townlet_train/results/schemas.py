"""What documents there are, and which schema each has."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from townlet_train.results.base import ResultDTO


class SchemaRowDTO(BaseModel):
    """One document of the program."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: str = Field(description="result: what a command prints with --json; file: what is left on disk")
    version: str = Field(description="of the document, as it says itself")
    about: str


class SchemasDTO(ResultDTO):
    """Every document that has a schema."""

    schemas: tuple[SchemaRowDTO, ...]
    output: str | None = Field(None, description="directory the schemas were written to")
